"""Learner: the model of the image on screen, with all that training it takes. Lives on the compute thread."""

from __future__ import annotations

import copy
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.device import DeviceChoice, choose_device
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.errors import InputError, TrainingError
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.settings import Settings

FIRST_BURST = 100  # steps of the pixel head before something is shown
LATER_BURST = 60  # the same after a correction
_MOST_MAPS = 4  # frames whose features are kept


class Learner:
    """Feature maps, trainer and weights of one image. Not thread-safe; made on the compute thread.

    On a CPU it leaves one core to the rest of the program.
    """

    def __init__(self, image: LiveImage, settings: Settings, seed: int = 0) -> None:
        self.image = image
        self.settings = settings
        self.choice: DeviceChoice = choose_device(settings.device)
        self.fitted: FittedModel | None = None
        self._seed = seed
        self._trainer: Trainer | None = None
        self._steps: Iterator[TrainingStep] | None = None
        self._maps: OrderedDict[int, FeatureMap] = OrderedDict()
        if self.choice.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))

    @property
    def spec(self) -> ModelSpec:
        """What fixes the network's shape: the model's, or that of the model to be made."""
        if self.fitted is not None:
            return self.fitted.spec
        image = self.image
        return ModelSpec(self.settings.model, image.spacing, image.n_channels, image.flat)

    @property
    def step(self) -> int:
        return self._trainer.step if self._trainer else 0

    @property
    def dice(self) -> float | None:
        return self._trainer.dice if self._trainer else None

    @property
    def trainer(self) -> Trainer | None:
        return self._trainer

    def map(self, frame: int) -> FeatureMap:
        """Features of a frame; reads the volume's coarse features if that has not been done."""
        if frame not in self._maps:
            volume = self.image.volume(frame)
            cache = (self.settings.training.cache_mb << 20) // (1 if self.image.shape[0] == 1 else _MOST_MAPS)
            self._maps[frame] = FeatureMap(
                volume, self.spec.bank, IntensityRange.of(volume), device=self.choice.device, cache_bytes=cache
            )
            while len(self._maps) > _MOST_MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(frame)
        self._maps[frame].prepare()
        return self._maps[frame]

    def learn(self, annotations: Mapping[int, Annotation], classes: ClassTable) -> Iterator[TrainingStep]:
        """Take the paint of these frames and fit the pixel head to it in a short burst, step by step.

        Classes that are gone are forgotten. `train` goes on from there: the first time with a longer fit.
        """
        maps = [self.map(frame) for frame in annotations]
        trainer = self._trainer or self._begin(classes)
        trainer.config = self.settings.training
        trainer.change_classes(classes)
        trainer.learn_from(maps, list(annotations.values()))
        self.fitted = FittedModel(self.spec, trainer.classes, trainer.averaged, tuple(m.intensity for m in maps))
        yield from map(_checked, trainer.steps(with_context=False, burst=LATER_BURST if self.step else FIRST_BURST))
        self._steps = trainer.steps(burst=0) if self.step else trainer.steps()

    def train(self) -> TrainingStep:
        """One step. Raises `TrainingError` if the loss is no number any more."""
        if self._steps is None:
            raise InputError("there is nothing to learn from yet; paint two classes first")
        return _checked(next(self._steps))

    def settle(self) -> None:
        """Choose the mix of pixel head and U-Net by what they can do now."""
        if self._trainer is not None:
            self._trainer.finish()

    def weights(self) -> SparseNet:
        """A copy of the network that predicts, which further training does not change.

        Raises `InputError` without a model.
        """
        if self.fitted is None:
            raise InputError("there is no model yet; paint two classes and train first")
        return copy.deepcopy(self.fitted.network)

    def adopt(self, fitted: FittedModel, seed: int = 0) -> None:
        """Go on from a model that was saved. Raises `InputError` if it does not fit the image."""
        check_fits(fitted.spec, self.image)
        self._maps.clear()  # the filter bank may be another
        self._use(fitted, seed)

    def forget(self) -> None:
        """Drop the model; features are kept."""
        bank = self.spec.bank
        self.fitted, self._trainer, self._steps = None, None, None
        if self.spec.bank != bank:
            self._maps.clear()

    def _begin(self, classes: ClassTable) -> Trainer:
        fresh = FittedModel.fresh(self.spec, classes, self.choice.device, self._seed)
        return self._use(self.fitted or fresh, self._seed)

    def _use(self, fitted: FittedModel, seed: int) -> Trainer:
        fitted.network.to(self.choice.device)
        self.fitted = fitted
        self._trainer = Trainer(fitted.network, fitted.classes, self.settings.training, seed=seed)
        self._steps = None
        return self._trainer


def _checked(step: TrainingStep) -> TrainingStep:
    if not math.isfinite(step.loss):
        raise TrainingError(
            f"the loss became {step.loss} at step {step.step}, so the model is of no use any more and was dropped. "
            "Press Train to begin anew, with a smaller step size if it happens again"
        )
    return step


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
