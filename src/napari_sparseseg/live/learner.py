"""Learner: the model of the image on screen, with all that training it takes. Lives on the compute thread."""

from __future__ import annotations

import copy
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from napari_sparseseg._types import Annotation
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.checkpoint import encode_model, save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.device import DeviceChoice, choose_device
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel, ModelSpec, spacing_that_counts
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.normalise import IntensityRange, warn_of_image
from napari_sparseseg.engine.sharpness import lengths_of
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.engine.validation import HeldOutScore
from napari_sparseseg.engine.weak.transfer import check_start, started_from
from napari_sparseseg.errors import InputError, NotFittedError, TrainingError
from napari_sparseseg.live.image import LiveImage, Watched
from napari_sparseseg.live.settings import Settings

FIRST_BURST = 100  # steps of the pixel head before something is shown
LATER_BURST = 60  # the same after a correction
_OTHER_MAPS = 4  # frames without paint whose features are kept
_WATCHED = 20  # steps over which the loss must not be much worse than guessing
_MUCH_WORSE = 5.0
_ROLLBACKS = 3  # before training is given up
_RECOVERED = 200  # steps after which a rollback is forgotten

TrainingState = tuple[Mapping[str, Any], Mapping[str, Tensor]]
"""What `Trainer.state` returns."""


@dataclass(frozen=True, slots=True)
class _Good:
    """A state of model and training to which learning can go back."""

    fitted: FittedModel
    training: TrainingState
    last: TrainingStep | None


class Learner:
    """Feature maps, trainer and weights of one image. Not thread-safe; made on the compute thread.

    On a CPU it leaves one core to the rest of the program. Once the image is not wanted any more, whatever reads it
    raises `AbandonedError`. `notice` is told a sentence where the image gives nothing to learn from.
    """

    def __init__(
        self,
        image: LiveImage,
        settings: Settings,
        *,
        notice: Callable[[str], None] = warn_of_image,
        is_wanted: Callable[[], bool] = lambda: True,
        seed: int = 0,
    ) -> None:
        self.image = image
        self.choice: DeviceChoice = choose_device(settings.device)
        self.fitted: FittedModel | None = None
        self._settings = settings
        self._is_wanted = is_wanted
        self._notice = notice
        self._seed = seed
        spacing = spacing_that_counts(image.spacing, image.flat)
        self._own_spec = ModelSpec(settings.model, spacing, image.n_channels, image.flat)
        self._start: FittedModel | None = None
        self._trainer: Trainer | None = None
        self._steps: Iterator[TrainingStep] | None = None
        self._last: TrainingStep | None = None
        self._settled_at = 0
        self._good: _Good | None = None
        self._rollbacks: list[int] = []  # the steps at which they were made
        self._losses: deque[float] = deque(maxlen=_WATCHED)
        self._maps: OrderedDict[int, FeatureMap] = OrderedDict()
        self._painted: frozenset[int] = frozenset()
        if self.choice.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))

    @property
    def spec(self) -> ModelSpec:
        """What fixes the network's shape: the model's, or that of the model to be made."""
        return self.fitted.spec if self.fitted else self._own_spec

    @property
    def paint(self) -> PaintConfig:
        """What the paint that is learnt next means."""
        return self._settings.paint

    @property
    def is_overlapping(self) -> bool:
        """Whether the classes of the model, or of the model to be made, may overlap."""
        return self.fitted.classes.overlapping if self.fitted else self._settings.paint.overlapping

    @property
    def step(self) -> int:
        return self._trainer.step if self._trainer else 0

    @property
    def dice(self) -> float | None:
        return self._trainer.dice if self._trainer else None

    @property
    def score(self) -> HeldOutScore | None:
        """What held-out paint told last, which the model's mix and `dice` are by."""
        return self._trainer.score if self._trainer else None

    def configure(self, settings: Settings) -> None:
        """Take other settings of training and prediction; model and device stay what they are."""
        self._settings = settings
        if self._trainer is not None:
            self._trainer.change_settings(settings.training, settings.paint)

    def map(self, frame: int) -> FeatureMap:
        """Features of a frame; reads the volume's coarse features if that has not been done."""
        if frame not in self._maps:
            volume = Watched(self.image.volume(frame), self._is_wanted)
            intensity = IntensityRange.of(volume, self._notice)
            if self.fitted is None and not self._maps:
                self._own_spec = replace(self._own_spec, lengths=lengths_of([volume], self._own_spec.spacing))
            self._maps[frame] = FeatureMap(volume, self.spec.bank, intensity, device=self.choice.device)
        self._maps.move_to_end(frame)
        self._keep_few_maps()
        self._maps[frame].prepare()
        return self._maps[frame]

    def learn(self, annotations: Mapping[int, Annotation], classes: ClassTable) -> Iterator[TrainingStep]:
        """Take the paint of these frames and fit the pixel head to it in a short burst, step by step.

        Classes that are gone are forgotten. `train` goes on from there: the first time with a longer fit.
        """
        self._painted = frozenset(annotations)
        maps = [self.map(frame) for frame in annotations]
        trainer = self._trainer or self._use(self._fresh(classes))
        trainer.change_classes(classes)
        trainer.learn_from(maps, list(annotations.values()))
        self.fitted = FittedModel(self.spec, trainer.classes, trainer.averaged, tuple(m.intensity for m in maps))
        self._settled_at = trainer.step
        yield from map(
            self._checked, trainer.steps(with_context=False, burst=LATER_BURST if self.step else FIRST_BURST)
        )
        self._steps = trainer.steps(burst=0) if self.step else trainer.steps()

    def go_on(
        self,
        fitted: FittedModel,
        training: TrainingState,
        annotations: Mapping[int, Annotation],
        *,
        is_fresh: bool,
        score: HeldOutScore | None = None,
    ) -> None:
        """Take over from another learner of this image, exactly as it would have gone on; `train` comes next.

        `annotations` are those it was learning from, `score` is what it last had of them; with `is_fresh` it has not
        trained since `learn`, the first time.
        """
        self._drop_maps_unless(fitted.spec)
        self._painted = frozenset(annotations)
        trainer = self._use(fitted)
        trainer.restore(*training)
        maps = [self.map(frame) for frame in annotations]
        trainer.learn_from(maps, list(annotations.values()), is_known=True)
        trainer.score = score
        self._settled_at = trainer.step
        self._steps = trainer.steps() if is_fresh else trainer.steps(burst=0)

    def train(self, seconds: float) -> Iterator[TrainingStep]:
        """Steps for about so long, one at least. Raises `TrainingError` if the loss is no number any more."""
        if self._steps is None:
            raise InputError("there is nothing to learn from yet; paint two classes first")
        started = time.perf_counter()
        while True:
            yield self._checked(next(self._steps))
            if time.perf_counter() - started >= seconds:
                return

    @property
    def trains_elsewhere(self) -> bool:
        """Whether training takes no time here: `train` then only waits for steps that were made."""
        return False

    @property
    def has_news(self) -> bool:
        """Whether steps that were made elsewhere have arrived, for `train` to take."""
        return False

    def settle(self) -> bool:
        """Choose mix and shift of the answers by what is known now; whether they changed.

        Takes time only after new steps.
        """
        if self._trainer is None or self._trainer.step == self._settled_at:
            return False
        before = _mix_of(self._trainer.averaged)
        self._settled_at = self._trainer.step
        self._trainer.finish()
        return _mix_of(self._trainer.averaged) != before

    def weights(self) -> SparseNet:
        """A copy of the network that predicts, which further training does not change.

        Raises `InputError` without a model.
        """
        if self.fitted is None:
            raise InputError("there is no model yet; paint two classes and train first")
        return copy.deepcopy(self.fitted.network)

    def drop_class(self, class_id: int, background: int | None) -> None:
        """Forget a class; a model that knows no two others goes as well. `learn` comes before the next step."""
        if self.fitted is None or self._trainer is None or class_id not in self.fitted.classes.ids:
            return
        remaining = tuple(i for i in self.fitted.classes.ids if i != class_id)
        if len(remaining) < 2:
            self.forget()
            return
        overlapping = self.fitted.classes.overlapping
        self._trainer.change_classes(table_of(remaining, background, overlapping=overlapping))
        self.fitted.classes = self._trainer.classes
        self._steps, self._settled_at = None, self._trainer.step

    def start_from(self, start: FittedModel) -> None:
        """Start again with what another model knows of images, whatever its classes; the next paint is learnt that way.

        Raises `InputError` as `check_start`, and leaves everything as it was.
        """
        spec = self.check_start(start)
        self.forget()
        self._drop_maps_unless(spec)
        self._own_spec, self._start = spec, start

    def check_start(self, start: FittedModel) -> ModelSpec:
        """What a model that starts from this one would be. Raises `InputError` if that does not fit the image."""
        spec = replace(self._own_spec, config=start.spec.config)
        check_start(start.spec, spec)
        return spec

    def _fresh(self, classes: ClassTable) -> FittedModel:
        fresh = FittedModel.fresh(self.spec, classes, self.choice.device, self._seed)
        return fresh if self._start is None else started_from(self._start, fresh)

    def adopt(
        self, fitted: FittedModel, last: TrainingStep | None = None, training: TrainingState | None = None
    ) -> None:
        """Go on from a model that was saved after its `last` step, exactly if there is its state of `training`.

        Raises `InputError` if it does not fit the image.
        """
        check_fits(self.image, fitted.spec)
        self._drop_maps_unless(fitted.spec)
        self._start = None
        trainer = self._use(fitted)
        trainer.step = last.step if last else 0
        if training is not None:
            trainer.restore(*training)
        self._last, self._settled_at = last, self.step
        self._good = None
        self.keep()

    def keep(self) -> bool:
        """Remember model and training as they are now, to go back to if they go wrong; False if they have already."""
        if self.fitted is None or self._trainer is None:
            return False
        plain, tensors = self._trainer.state()
        weights = self.fitted.network.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in (*weights.values(), *tensors.values())):
            return False
        network = copy.deepcopy(self.fitted.network)
        fitted = FittedModel(self.fitted.spec, self._trainer.classes, network, self.fitted.intensity)
        training = copy.deepcopy(plain), {name: value.detach().clone() for name, value in tensors.items()}
        self._good = _Good(fitted, training, self._last)
        return True

    def roll_back(self) -> bool:
        """Go back to what was kept last; False if there is nothing.

        `learn` comes before the next step. Other patches are drawn than the last time.
        """
        good = self._good
        if good is None:
            return False
        self._rollbacks = [step for step in self._rollbacks if self.step - step < _RECOVERED] + [self.step]
        random = self._trainer.state()[0]["random"] if self._trainer else good.training[0]["random"]
        fitted = FittedModel(
            good.fitted.spec, good.fitted.classes, copy.deepcopy(good.fitted.network), good.fitted.intensity
        )
        self._use(fitted).restore({**good.training[0], "random": random}, good.training[1])
        self._last, self._settled_at = good.last, self.step
        self._losses.clear()
        return True

    @property
    def keeps_failing(self) -> bool:
        """Whether going back did not help several times in a row."""
        return len(self._rollbacks) > _ROLLBACKS

    def encoded(self, history: Iterable[TrainingStep]) -> bytes:
        """Model and state of training as the content of a file. Raises `NotFittedError` without model."""
        if self.fitted is None or self._trainer is None:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        return encode_model(self.fitted, settings=self._described(), history=history, trainer=self._trainer)

    def save(self, path: str | os.PathLike[str], class_names: Mapping[int, str] | None = None) -> None:
        """Write the model to a file, which `SparseSegmenter.load` reads too; with what its classes are called."""
        if self.fitted is None:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        save_model(
            path,
            self.fitted,
            settings=self._described() | {"class_names": {str(i): name for i, name in (class_names or {}).items()}},
            history=[self._last] if self._last else (),
        )

    def _described(self) -> dict[str, Any]:
        """Parameters of a `SparseSegmenter` that would go on from here."""
        return {
            "spacing": list(self.image.spacing)[-self.image.n_spatial :],
            "channel_axis": self.image.volume(0).channel_axis,
            "random_state": None,
            "background": (self.fitted.classes.background or None) if self.fitted else None,
            "training": self._settings.training.model_dump(),
            "paint": self._settings.paint.model_dump(),
            "prediction": self._settings.prediction.model_dump(),
        }

    def forget(self) -> None:
        """Drop the model; features are kept."""
        self._drop_maps_unless(self._own_spec)
        self.fitted, self._trainer, self._steps, self._last, self._good = None, None, None, None, None
        self._losses.clear()

    def _use(self, fitted: FittedModel) -> Trainer:
        fitted.network.to(self.choice.device)
        self.fitted, self._steps = fitted, None
        settings = self._settings
        self._trainer = Trainer(
            fitted.network,
            fitted.classes,
            settings.training,
            paint=settings.paint,
            seed=self._seed,
            is_started=self._start is not None,
        )
        return self._trainer

    def _checked(self, step: TrainingStep) -> TrainingStep:
        self._losses.append(step.loss)
        guessing = max(1.0, math.log(len(self.fitted.classes))) if self.fitted else 1.0
        is_exploded = len(self._losses) == _WATCHED and sum(self._losses) / _WATCHED > _MUCH_WORSE * guessing
        if not math.isfinite(step.loss) or is_exploded:
            self._losses.clear()
            raise TrainingError(
                f"the loss became {step.loss:.3g} at step {step.step}, so the model is of no use any more. Press Train "
                "to try again, with a smaller step size if it happens again"
            )
        self._last = step
        return step

    def _drop_maps_unless(self, spec: ModelSpec) -> None:
        """Another filter bank makes other features."""
        if spec.bank != self.spec.bank:
            self._maps.clear()

    def _keep_few_maps(self) -> None:
        """Keep the features of the frames that are learnt from and of a few others; all share the cache."""
        others = [frame for frame in self._maps if frame not in self._painted]
        for frame in others[:-_OTHER_MAPS]:
            del self._maps[frame]
        for feature_map in self._maps.values():
            feature_map.cache_bytes = (self._settings.training.cache_mb << 20) // len(self._maps)


def table_of(class_ids: tuple[int, ...], background: int | None, *, overlapping: bool = False) -> ClassTable:
    """Where the background class is not among them, the lowest id stands in for it, or none where classes overlap."""
    stand_in = 0 if overlapping else class_ids[0]
    return ClassTable(class_ids, background if background in class_ids else stand_in, overlapping=overlapping)


def check_fits(image: LiveImage, spec: ModelSpec) -> None:
    """Raise `InputError` if a model cannot be applied to an image."""
    if spec.n_channels != image.n_channels:
        raise InputError(
            f"the model was trained on {spec.n_channels} channels, but the image has {image.n_channels}; choose the "
            "same channels in the same order"
        )
    if spec.flat[0] and image.shape[1] > 1:
        raise InputError(
            f"the model was trained on single planes, but the image has {image.shape[1]}; train a model on this volume"
        )


def _mix_of(network: SparseNet) -> tuple[float, ...]:
    """What the answers depend on besides the weights."""
    return network.context, *network.shift.tolist()
