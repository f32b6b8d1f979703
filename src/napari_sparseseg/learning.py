"""How a segmenter learns: a model that is begun or continued, and steps until its time is used up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from napari_sparseseg._inputs import check_fits, seed_of
from napari_sparseseg._types import Annotation, Box
from napari_sparseseg.config import ModelConfig, PaintConfig, TrainingConfig
from napari_sparseseg.engine.budget import Budget
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.device import choose_device
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel, ModelSpec, spacing_that_counts
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.sharpness import lengths_of
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.engine.weak.transfer import started_from
from napari_sparseseg.errors import InputError
from napari_sparseseg.progress import duration, move_bar, open_bar
from napari_sparseseg.storage._arrays import checked_spacing
from napari_sparseseg.storage.volume import ArrayVolume

Callback = Callable[[TrainingStep], object]


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model, what trains it, and its steps in all fits; `trainer` shares the network's weights."""

    fitted: FittedModel
    trainer: Trainer
    history: list[TrainingStep]

    def learn_from(self, maps: Sequence[FeatureMap], paint: Sequence[Annotation]) -> Learnt:
        """Take the features of the volumes and their paint; which classes have objects follows from the paint."""
        self.trainer.learn_from(maps, paint)
        return replace(self, fitted=replace(self.fitted, classes=self.trainer.classes))

    def run(self, budget: Budget, callback: Callback | None, *, progress: bool | None) -> None:
        """Train until the budget is used up or `callback` returns False; `history` grows with each step."""
        with open_bar("Learning  ", progress) as bar:
            for step in self.trainer.steps(budget.used, with_context=budget.max_steps != 0):
                timed = replace(step, seconds=budget.elapsed)
                self.history.append(timed)
                share = budget.used(step.step)
                move_bar(bar, share, _describe(timed, budget, share))
                if (callback is not None and callback(timed) is False) or budget.is_over(step):
                    break
            self.trainer.finish()
        if self.history and self.history[-1].dice is None:  # the pixel head is checked after its last step
            self.history[-1] = replace(self.history[-1], dice=self.trainer.dice)


@dataclass(frozen=True, slots=True)
class Learning:
    """The settings of one fit, which make models and trainers; see the arguments of `SparseSegmenter`."""

    spacing: Sequence[float] | None
    device: str
    random_state: Any
    model: ModelConfig | None
    training: TrainingConfig
    paint: PaintConfig

    def begin(
        self,
        volumes: Sequence[ArrayVolume],
        classes: Sequence[int],
        background: int | None,
        start: FittedModel | None,
    ) -> Learnt:
        """A model that has learnt nothing yet, but what another one knows of images.

        Raises `InputError` for settings that do not suit the volumes or the paint, and for a start that does not fit.
        """
        fitted = self._new_model(volumes, classes, background, start)
        return Learnt(fitted, self.trainer(fitted, seed_of(self.random_state), is_started=start is not None), [])

    def go_on(
        self,
        fitted: FittedModel,
        trainer: Trainer | None,
        history: list[TrainingStep],
        volumes: Sequence[ArrayVolume],
    ) -> Learnt:
        """What was learnt, with these settings; one without trainer gets a new optimiser on its weights.

        Raises `InputError` for volumes that do not fit the model.
        """
        for volume in volumes:
            check_fits(volume, fitted.spec)
        trainer = trainer or self.trainer(fitted, seed_of(self.random_state))
        trainer.change_settings(self.training, self.paint)
        trainer.step = history[-1].step if history else 0
        return Learnt(fitted, trainer, history)

    def look_at(
        self, volumes: Sequence[ArrayVolume], classes: Sequence[int], known: Learnt
    ) -> tuple[Learnt, list[FeatureMap]]:
        """The model for these volumes and classes beside its own, and the features of each volume."""
        fitted, trainer = known.fitted, known.trainer
        intensity = tuple(IntensityRange.of(v) for v in volumes)
        cache_bytes = self.training.cache_mb << 20
        maps = [fitted.features_of(v, i, cache_bytes=cache_bytes) for v, i in zip(volumes, intensity, strict=True)]
        for feature_map in maps:  # reads the volume once: what cannot be used is refused before the model changes
            feature_map.read(Box((0, 0, 0), (1, 1, 1)))
        trainer.change_classes(fitted.classes.grown_by(classes))
        grown = FittedModel(fitted.spec, trainer.classes, trainer.averaged, intensity)
        return replace(known, fitted=grown), maps

    def trainer(self, fitted: FittedModel, seed: int, *, is_started: bool = False) -> Trainer:
        """What trains a model from its weights on."""
        return Trainer(
            fitted.network, fitted.classes, self.training, paint=self.paint, seed=seed, is_started=is_started
        )

    def _new_model(
        self,
        volumes: Sequence[ArrayVolume],
        classes: Sequence[int],
        background: int | None,
        start: FittedModel | None,
    ) -> FittedModel:
        overlapping = self.paint.overlapping
        is_given = background is not None
        if background is None:
            background = 0 if overlapping else classes[0]
        if background not in classes and (is_given or not overlapping):
            raise InputError(f"background={background} is not among the painted classes {tuple(classes)}")
        z, y, x = (all(v.shape[axis] == 1 for v in volumes) for axis in range(3))
        spacing = checked_spacing(self.spacing, n_axes=len(volumes[0].spatial_shape))
        spacing = spacing_that_counts(spacing, (z, y, x))
        config = self.model or (start.spec.config if start else ModelConfig())
        spec = ModelSpec(config, spacing, volumes[0].n_channels, (z, y, x), lengths_of(volumes, spacing))
        table = ClassTable(tuple(classes), int(background), overlapping=overlapping)
        fresh = FittedModel.fresh(spec, table, choose_device(self.device).device, seed_of(self.random_state))
        return fresh if start is None else started_from(start, fresh)


def _describe(step: TrainingStep, budget: Budget, share: float) -> str:
    """Step, loss, Dice estimate and time left, for the progress bar."""
    dice = f", Dice ~{step.dice:.2f}" if step.dice is not None else ""
    left = (budget.seconds - budget.elapsed) if budget.max_steps is None and budget.seconds else None
    if left is None:
        left = budget.elapsed * (1 - share) / share if share else None
    time_left = f", {duration(left)} left" if left is not None else ""
    name = {"pixel": "pixel classifier", "warm-up": "warm-up"}.get(step.phase, f"step {step.step}")
    return f"{name}, loss {step.loss:.3f}{dice}{time_left}"
