"""Every setting, once: its title, description, bounds and default. Frozen, checked, and JSON both ways."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_sparseseg.errors import InputError


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Build from plain values; raises `InputError` that names the wrong one, its bounds and its meaning."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(_explain(cls, error)) from None

    def with_changes(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like new ones."""
        return self.of(self.model_dump() | changes)


class ModelConfig(_Config):
    """Shape of the network; fixed once a model has been fitted."""

    scales: tuple[Annotated[float, Field(gt=0, le=4096)], ...] = Field(
        (1.0, 2.0, 4.0, 8.0, 16.0),
        min_length=1,
        max_length=12,
        title="Filter scales",
        description="Widths of the filters that every voxel is described by, in units of the finest voxel edge.",
    )
    width: int = Field(
        16,
        ge=4,
        le=128,
        title="Channels",
        description="Channels of the U-Net at full resolution. Fewer than 16 is not faster on a CPU.",
    )
    depth: int = Field(
        3, ge=1, le=6, title="Levels", description="Resolution levels of the U-Net; each one doubles its reach."
    )
    head_width: int = Field(
        64, ge=4, le=512, title="Pixel head width", description="Units in each hidden layer of the pixel classifier."
    )


class TrainingConfig(_Config):
    """How the network learns."""

    learning_rate: float = Field(
        3e-3, gt=0, le=1, title="Step size", description="Step size of the U-Net's optimiser (AdamW and Muon)."
    )
    weight_decay: float = Field(
        1e-2, ge=0, le=10, title="Weight decay", description="Pull of all weights towards zero; holds overfitting back."
    )
    batch_size: int = Field(2, ge=1, le=64, title="Patches per step", description="Patches in each training step.")
    patch_voxels: int = Field(
        65536,
        ge=512,
        le=1 << 24,
        title="Patch size",
        description="Voxels in a patch; its shape follows the voxel size and the painted plane.",
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Class balance",
        description="0 lets each painted voxel count the same, 1 lets each class count the same.",
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, title="Dropout", description="Share of the pixel head's units that rest in each step."
    )
    feature_dropout: float = Field(
        0.25,
        ge=0,
        lt=1,
        title="Feature dropout",
        description="Share of the filter features that the U-Net must do without in each step when little is painted; "
        "less with more paint.",
    )
    feature_noise: float = Field(
        0.4,
        ge=0,
        le=10,
        title="Feature noise",
        description="Noise on the pixel head's features while it learns from little paint, in units of their spread; "
        "less with more paint.",
    )
    averaging: float = Field(
        0.999,
        ge=0,
        lt=1,
        title="Weight averaging",
        description="Memory of the running average of the weights that predicts; 0 predicts with the latest.",
    )
    warm_start_steps: int = Field(
        300,
        ge=1,
        le=10000,
        title="Warm start",
        description="Steps of the pixel head before the U-Net starts; up to 2.5 times as many where a class is rare.",
    )
    warm_up_steps: int = Field(
        0,
        ge=0,
        le=100000,
        title="Warm-up on the volume",
        description="Steps in which the U-Net fills in hidden parts of the volume before it learns from paint; 0 is "
        "without. No gain was measured; if you have time and next to no paint, try 200.",
    )
    consistency: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Consistency",
        description="How much the network must agree with its own average where nothing is painted, against the paint; "
        "0 is without. No gain was measured with few steps, and a step takes longer; if you train for long, try 1.",
    )
    distillation: float = Field(
        1.0,
        ge=0,
        le=100,
        title="Learn from the pixel head",
        description="How much the U-Net must agree with the pixel head where nothing is painted, against the paint, if "
        "there are only a few strokes or a class has next to no paint; 0 is without.",
    )
    held_out: float = Field(
        0.1,
        ge=0,
        le=0.5,
        title="Held-out paint",
        description="Share of the paint kept aside to estimate Dice and to weigh pixel head and U-Net.",
    )
    orientation_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Orientation balance",
        description="0 learns from slices of each orientation in proportion to their paint, 1 from each orientation "
        "alike. Try 1 where one slice across another axis was painted beside many of the usual ones.",
    )
    flips: bool = Field(True, title="Flips", description="Mirror patches at random along every axis.")
    turns: bool = Field(True, title="Turns", description="Swap axes of equal voxel size at random.")
    gain: float = Field(
        0.1, ge=0, le=1, title="Gain", description="Spread of the random contrast change of each patch."
    )
    default_seconds: float = Field(
        120.0, gt=0, title="Longest fit", description="Seconds after which a fit without a budget ends at the latest."
    )
    patience: int = Field(
        8,
        ge=1,
        title="Patience",
        description="A fit without a budget ends after so many checks without progress on held-out paint.",
    )
    check_every: int = Field(
        25, ge=1, title="Check interval", description="Steps between checks on the held-out paint."
    )
    cache_mb: int = Field(
        1024, ge=16, title="Feature cache", description="Memory for filter features that are kept between steps, in MB."
    )


class PaintConfig(_Config):
    """What paint means: how much is believed of it, and what follows from what was not painted."""

    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Label smoothing",
        description="Share of each painted voxel's say that goes to all classes its paint allows alike. Try 0.1 where "
        "strokes are sloppy or neighbours disagree about the outline.",
    )
    class_weights: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        (),
        max_length=127,
        title="Class weights",
        description="How much paint of each class counts, one number for each class in the order of their ids; 1 for "
        "those left out. Raise that of a class which is missed, lower that of one which is found too often. Where "
        "classes overlap, the weights of present and absent do this.",
    )
    correction_weight: float = Field(
        1.0,
        ge=1,
        le=100,
        title="Weight of corrections",
        description="How much a stroke counts that corrects the prediction, while it is new; all else counts 1. Try 2 "
        "where early paint is wrong and corrections do not help.",
    )
    correction_halving: float = Field(
        8.0,
        gt=0,
        le=1e6,
        title="Corrections fade",
        description="After so many further strokes the extra weight of a correction is halved. Lower where later "
        "strokes are the more reliable ones.",
    )
    unlabelled: Literal["ignore", "background", "risk"] = Field(
        "ignore",
        title="Unpainted voxels",
        description="Ignore: they say nothing. The others are for objects of which only some were outlined, so that "
        "the rest may be either; one class is enough then, and no background need be painted. Background: what lies "
        "around paint counts as background, weakly; where most objects were outlined. Risk: it is a mixture, with a "
        "share of objects that is known or estimated; where few were. Not where classes overlap.",
    )
    positive_weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        title="Weight of painted",
        description="Where unpainted voxels are weak background: how much a painted voxel counts.",
    )
    negative_weight: float = Field(
        0.5,
        gt=0,
        le=1000,
        title="Weight of unpainted",
        description="The same for an unpainted voxel. Lower where more objects were left out: about the share of them "
        "that was painted.",
    )
    prior: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Share of objects",
        description="With the risk of unpainted voxels: the share of them that belongs to objects after all; 0 "
        "estimates it. Higher finds more.",
    )
    overlapping: bool = Field(
        False,
        title="Classes overlap",
        description="A voxel may belong to several classes, or to none. Set it where structures lie within others, "
        "such as nuclei within cells. Part of the model: takes hold with a new one.",
    )
    missing_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Missing classes",
        description="Where classes overlap: how much a class that was not mentioned counts as absent where another one "
        "was painted. 0 says nothing of it. Try 0.1 where nobody has painted where classes are not.",
    )
    present_weight: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = Field(
        (),
        max_length=127,
        title="Weights of present",
        description="Where classes overlap: how much it counts that a class is present, one number for each class in "
        "the order of their ids; 1 for those left out. Raise that of a rare class.",
    )
    absent_weight: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = Field(
        (),
        max_length=127,
        title="Weights of absent",
        description="The same for a class that is absent. Lower it where outlines are certain and the rest may have "
        "been overlooked.",
    )

    suggestion_weight: float = Field(
        0.3,
        gt=0,
        le=1,
        title="Weight of suggestions",
        description="How much a suggestion that was accepted counts, where paint counts 1. Lower it where suggestions "
        "are often wrong at outlines.",
    )
    growth: Literal["walker", "superpixels"] = Field(
        "walker",
        title="Strokes grow by",
        description="Walker: to where most random walks end on strokes of one class; best in general. Superpixels: to "
        "the small patches that they touch; where objects are textured and outlines sharp.",
    )
    growth_reach: float = Field(
        12.0,
        ge=2,
        le=64,
        title="Growth of strokes",
        description="How far strokes may grow, in units of the finest voxel edge of the slice. About the radius of the "
        "objects.",
    )
    growth_certainty: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        title="Certainty of growth",
        description="Share of the walks, and probability by its look, from which a voxel is suggested. Higher suggests "
        "less, and less that is wrong.",
    )
    candidates: float = Field(
        0.0,
        ge=0,
        le=127,
        title="Candidate classes",
        description="Classes that a voxel may be, on average over all: 0 learns none, 1.2 names a second class for "
        "about every fifth. Use it to see what is confused with what.",
    )
    novelty: Literal["off", "features", "embedding"] = Field(
        "off",
        title="Novelty",
        description="Also tell what is like nothing that was painted, where a volume may hold more than your classes: "
        "artefacts, debris, another tissue. Measured among filter features, or in an embedding that is learnt to keep "
        "the classes apart, which finds less but for classes that differ little.",
    )

    @property
    def learns_unlabelled(self) -> bool:
        """Whether unpainted voxels say something."""
        return self.unlabelled != "ignore" and not self.overlapping

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, average: float) -> float:
        if 0 < average < 1:
            raise ValueError("a voxel is one class at least; take 0 for none, or 1 and more")
        return average


class PredictionConfig(_Config):
    """How a volume is predicted; none of it changes what is learnt."""

    tile_voxels: int = Field(
        1 << 21,
        ge=4096,
        title="Tile size",
        description="Voxels computed at once. Fewer need less memory and more time; halved by itself when memory runs "
        "out.",
    )
    intensity: Literal["image", "training"] = Field(
        "image",
        title="Intensity range",
        description="Normalise by the range of the image that is predicted, or by that of the training image.",
    )
    next_slice: Literal["intervals", "uncertainty"] = Field(
        "intervals",
        title="Where next",
        description="Which slice is suggested for painting: the middle of the largest gap between painted ones, or the "
        "one on which the network is least sure.",
    )


class ObjectConfig(_Config):
    """How labels become single objects; none of it changes what is learnt."""

    method: Literal["auto", "distance", "affinities"] = Field(
        "auto",
        title="Objects from",
        description="What separates objects that touch: distance to the outline, or what was learnt from painted "
        "objects. Auto takes what was learnt, if it was along every axis.",
    )
    neck: float = Field(
        0.7,
        ge=0,
        le=1,
        title="Neck",
        description="By distance: objects are cut where they are narrower than this share of the thinner one. 0 cuts "
        "nowhere, 1 cuts at the slightest dent.",
    )
    threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        title="Merge from",
        description="By affinities: parts that belong together with at least this probability attract each other. "
        "Higher cuts more.",
    )
    smallest: int = Field(
        0,
        ge=0,
        title="Smallest object",
        description="In voxels. What is smaller joins the object that it touches most, or is left out. 0: as large as "
        "nine of ten painted objects are (a quarter of that where the edge of the image, or of what is looked at, cuts "
        "one that is clear), and 50 where none were painted (16 in a single plane).",
    )
    reach: float = Field(
        24.0,
        ge=2,
        le=256,
        title="Reach",
        description="Distances to the outline count up to here, in units of the finest voxel edge: the radius of the "
        "largest objects that are cut at necks. More takes more memory and time.",
    )


def _explain(config: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else config.__name__
    if first["type"] == "extra_forbidden":
        return f"{config.__name__} has no setting {name!r}; it has {', '.join(config.model_fields)}"
    about = config.model_fields[name].description if name in config.model_fields else ""
    return f"{config.__name__}.{name} cannot be {first['input']!r:.100}: {first['msg'].lower()}. {about}".strip()
