"""Learner: the model of the image on screen, with all that training it takes. Lives on the compute thread."""

from __future__ import annotations

import copy
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import torch

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.checkpoint import save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.device import DeviceChoice, choose_device
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.errors import InputError, NotFittedError, TrainingError
from napari_sparseseg.live.image import LiveImage, Watched
from napari_sparseseg.live.settings import Settings

FIRST_BURST = 100  # steps of the pixel head before something is shown
LATER_BURST = 60  # the same after a correction
_OTHER_MAPS = 4  # frames without paint whose features are kept


class Learner:
    """Feature maps, trainer and weights of one image. Not thread-safe; made on the compute thread.

    On a CPU it leaves one core to the rest of the program. Once the image is not wanted any more, whatever reads it
    raises `AbandonedError`.
    """

    def __init__(
        self, image: LiveImage, settings: Settings, *, is_wanted: Callable[[], bool] = lambda: True, seed: int = 0
    ) -> None:
        self.image = image
        self.choice: DeviceChoice = choose_device(settings.device)
        self.fitted: FittedModel | None = None
        self._settings = settings
        self._is_wanted = is_wanted
        self._seed = seed
        self._own_spec = ModelSpec(settings.model, image.spacing, image.n_channels, image.flat)
        self._trainer: Trainer | None = None
        self._steps: Iterator[TrainingStep] | None = None
        self._last: TrainingStep | None = None
        self._settled_at = 0
        self._maps: OrderedDict[int, FeatureMap] = OrderedDict()
        self._painted: frozenset[int] = frozenset()
        if self.choice.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))

    @property
    def spec(self) -> ModelSpec:
        """What fixes the network's shape: the model's, or that of the model to be made."""
        return self.fitted.spec if self.fitted else self._own_spec

    @property
    def step(self) -> int:
        return self._trainer.step if self._trainer else 0

    @property
    def dice(self) -> float | None:
        return self._trainer.dice if self._trainer else None

    def configure(self, settings: Settings) -> None:
        """Take other settings of training and prediction; model and device stay what they are."""
        self._settings = settings
        if self._trainer is not None:
            self._trainer.config = settings.training

    def map(self, frame: int) -> FeatureMap:
        """Features of a frame; reads the volume's coarse features if that has not been done."""
        if frame not in self._maps:
            volume = Watched(self.image.volume(frame), self._is_wanted)
            intensity = IntensityRange.of(volume)
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
        trainer = self._trainer or self._use(FittedModel.fresh(self.spec, classes, self.choice.device, self._seed))
        trainer.change_classes(classes)
        trainer.learn_from(maps, list(annotations.values()))
        self.fitted = FittedModel(self.spec, trainer.classes, trainer.averaged, tuple(m.intensity for m in maps))
        self._settled_at = trainer.step
        yield from map(
            self._checked, trainer.steps(with_context=False, burst=LATER_BURST if self.step else FIRST_BURST)
        )
        self._steps = trainer.steps(burst=0) if self.step else trainer.steps()

    def train(self) -> TrainingStep:
        """One step. Raises `TrainingError` if the loss is no number any more."""
        if self._steps is None:
            raise InputError("there is nothing to learn from yet; paint two classes first")
        return self._checked(next(self._steps))

    def settle(self) -> bool:
        """Choose the mix of pixel head and U-Net by what they can do now; whether it changed.

        Takes time only after new steps.
        """
        if self._trainer is None or self._trainer.step == self._settled_at:
            return False
        before = self._trainer.averaged.context
        self._settled_at = self._trainer.step
        self._trainer.finish()
        return self._trainer.averaged.context != before

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
        self._trainer.change_classes(table_of(remaining, background))
        self.fitted.classes = self._trainer.classes
        self._steps, self._settled_at = None, self._trainer.step

    def adopt(self, fitted: FittedModel, last: TrainingStep | None = None) -> None:
        """Go on from a model that was saved after its `last` step. Raises `InputError` if it does not fit the image."""
        check_fits(fitted.spec, self.image)
        self._drop_maps_unless(fitted.spec)
        self._use(fitted).step = last.step if last else 0
        self._last, self._settled_at = last, self.step

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which `SparseSegmenter.load` reads too."""
        if self.fitted is None:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        save_model(
            path,
            self.fitted,
            settings={
                "spacing": list(self.image.spacing)[-self.image.n_spatial :],
                "channel_axis": self.image.volume(0).channel_axis,
                "random_state": None,
                "background": self.fitted.classes.background,
                "training": self._settings.training.model_dump(),
                "prediction": self._settings.prediction.model_dump(),
            },
            history=[self._last] if self._last else (),
        )

    def forget(self) -> None:
        """Drop the model; features are kept."""
        self._drop_maps_unless(self._own_spec)
        self.fitted, self._trainer, self._steps, self._last = None, None, None, None

    def _use(self, fitted: FittedModel) -> Trainer:
        fitted.network.to(self.choice.device)
        self.fitted, self._steps = fitted, None
        self._trainer = Trainer(fitted.network, fitted.classes, self._settings.training, seed=self._seed)
        return self._trainer

    def _checked(self, step: TrainingStep) -> TrainingStep:
        if not math.isfinite(step.loss):
            raise TrainingError(
                f"the loss became {step.loss} at step {step.step}, so the model is of no use any more and was dropped. "
                "Press Train to begin anew, with a smaller step size if it happens again"
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


def table_of(class_ids: tuple[int, ...], background: int | None) -> ClassTable:
    """Where the background class is not among them, the lowest id stands in for it."""
    return ClassTable(class_ids, background if background in class_ids else class_ids[0])


def check_fits(spec: ModelSpec, image: LiveImage) -> None:
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
