"""What a fitted model says of one volume in memory: labels, probabilities, doubts, single objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_sparseseg._types import Annotation, Extra
from napari_sparseseg.config import ObjectConfig, PredictionConfig
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.labelling import best_labels, present_of
from napari_sparseseg.engine.metrics import dice, dice_of_overlapping, mean_dice
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.objects.finding import ObjectFinder
from napari_sparseseg.engine.objects.grouping import Writable
from napari_sparseseg.engine.predictor import Predictor, TilePrediction
from napari_sparseseg.engine.weak.advice import uncertainty
from napari_sparseseg.errors import InputError
from napari_sparseseg.progress import duration, move_bar, open_bar
from napari_sparseseg.storage.volume import ArrayVolume


class Learnable(NamedTuple):
    """What a model can learn besides its classes, in words, and a setting with which it does."""

    what: str
    group: str
    setting: str
    value: float | str


LEARNABLE: Mapping[str, Learnable] = {
    "candidates": Learnable("candidate classes", "paint", "candidates", 1.2),
    "novelty": Learnable("what is new", "paint", "novelty", "features"),
}


class VolumePrediction:
    """What one model says of one volume; each call predicts the volume again, tile by tile.

    Results have the volume's spatial shape, (Z, Y, X) or (Y, X), after an axis of classes where there is one. The
    methods of `SparseSegmenter` that return them describe them. Up to `cache_bytes` of features are kept. `progress`
    shows a bar: True, False, or None for terminals and notebooks only.
    """

    def __init__(
        self,
        fitted: FittedModel,
        volume: ArrayVolume,
        config: PredictionConfig,
        *,
        cache_bytes: int,
        progress: bool | None,
    ) -> None:
        self.volume = volume
        self.fitted = fitted
        self._config = config
        self._cache_bytes = cache_bytes
        self._progress = progress

    def labels(self) -> npt.NDArray[np.unsignedinteger]:
        """Class ids, in the smallest unsigned dtype that holds all of them."""
        classes = self.fitted.classes
        kind = np.min_scalar_type(max(classes.ids))
        return self._image(kind, lambda tile: best_labels(tile.probabilities, classes))

    def probabilities(self) -> npt.NDArray[np.float32]:
        """Shape (classes, *spatial shape), 0..1."""
        return self._class_images(np.float32, lambda tile: _array(tile.probabilities))

    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes are there: shape (classes, *spatial shape)."""
        return self._class_images(np.bool_, lambda tile: present_of(tile.probabilities, self.fitted.classes))

    def uncertainty(self) -> npt.NDArray[np.float32]:
        """Entropy of the classes over its maximum, 0..1."""
        overlapping = self.fitted.classes.overlapping
        return self._image(np.float32, lambda tile: _array(uncertainty(tile.probabilities, overlapping=overlapping)))

    def candidates(self) -> npt.NDArray[np.bool_]:
        """Which classes come into question: shape (classes, *spatial shape). `InputError` if they were not learnt."""
        self._check_says("candidates")
        return self._class_images(np.bool_, lambda tile: _array(tile.candidates), "candidates")

    def novelty(self) -> npt.NDArray[np.float32]:
        """How unlike the paint each voxel is, 0..1. `InputError` if it was not learnt."""
        self._check_says("novelty")
        return self._image(np.float32, lambda tile: _array(tile.novelty), "novelty")

    def objects(self, config: ObjectConfig) -> npt.NDArray[np.uint32]:
        """Ids 1..n of single objects, 0 where there is none. `InputError` for what the model cannot follow."""
        ids = np.zeros(self.volume.shape, np.uint32)
        self.write_objects(config, ids)
        return ids.reshape(self.volume.spatial_shape)

    def write_objects(self, config: ObjectConfig, ids: Writable) -> None:
        """The same into an array of zeros, (z, y, x), that need not be in memory."""
        finder = ObjectFinder(self.fitted, self.features(), config, tile_voxels=self._config.tile_voxels)
        with open_bar("Finding objects", self._progress) as bar:
            started = time.perf_counter()
            for share in finder.find(ids):
                move_bar(bar, share, f"{duration(_left(started, share))} left")

    def score(self, truth: Annotation) -> float:
        """Mean Dice over the classes but the background, 0..1, where the truth says something.

        Classes of the truth that the model has not learnt count as well, unless classes overlap.
        """
        classes, where = self.fitted.classes, tuple(truth.coordinates.T)
        if classes.overlapping:
            present, absent = classes.stated_by(truth)
            found = self.present().reshape(-1, *self.volume.shape)[(slice(None), *where)].T
            return mean_dice(dice_of_overlapping(found, present, absent, classes.ids), classes.background)
        labels = self.labels().reshape(self.volume.shape)[where]
        return mean_dice(dice(labels, truth.codes, sorted({*classes.ids, *truth.classes()})), classes.background)

    def intensity(self) -> IntensityRange:
        """The intensities that features are computed with: those of the volume, or of the first training image."""
        return IntensityRange.of(self.volume) if self._config.intensity == "image" else self.fitted.intensity[0]

    def features(self) -> FeatureMap:
        """The volume's features, computed when they are read."""
        return self.fitted.features_of(self.volume, self.intensity(), cache_bytes=self._cache_bytes)

    def predictor(self, tile_voxels: int | None = None) -> Predictor:
        """Predicts tiles of the volume, of the configured size or of fewer voxels."""
        most = self._config.tile_voxels
        tile_voxels = most if tile_voxels is None else min(tile_voxels, most)
        return Predictor(self.fitted.network, self.features(), tile_voxels=tile_voxels)

    def _check_says(self, extra: Extra) -> None:
        if extra not in self.fitted.network.extras:
            what, group, setting, value = LEARNABLE[extra]
            raise InputError(
                f"the model has not learnt {what}; fit it again after set_params({group}__{setting}={value!r})"
            )

    def _image(
        self, kind: npt.DTypeLike, of: Callable[[TilePrediction], npt.NDArray[Any]], *extras: Extra
    ) -> npt.NDArray[Any]:
        """One value for each voxel."""
        found = np.empty(self.volume.shape, kind)
        for tile in self._tiles(extras):
            found[tile.box.slices] = of(tile)
        return found.reshape(self.volume.spatial_shape)

    def _class_images(
        self, kind: npt.DTypeLike, of: Callable[[TilePrediction], npt.NDArray[Any]], *extras: Extra
    ) -> npt.NDArray[Any]:
        """One value for each class and voxel."""
        n_classes = len(self.fitted.classes)
        found = np.empty((n_classes, *self.volume.shape), kind)
        for tile in self._tiles(extras):
            found[(slice(None), *tile.box.slices)] = of(tile)
        return found.reshape(n_classes, *self.volume.spatial_shape)

    def _tiles(self, extras: Collection[Extra]) -> Iterator[TilePrediction]:
        predictor = self.predictor()
        done, total = 0, self.volume.shape[0] * self.volume.shape[1] * self.volume.shape[2]
        with open_bar("Predicting", self._progress) as bar:
            started = time.perf_counter()
            for tile in predictor.predict(extras=extras):
                yield tile
                done += tile.box.n_voxels
                move_bar(bar, done / total, f"{duration(_left(started, done / total))} left")


def _array(values: Tensor | None) -> npt.NDArray[Any]:
    assert values is not None  # noqa: S101 - the network has the head
    found: npt.NDArray[Any] = values.cpu().numpy()
    return found


def _left(started: float, share: float) -> float:
    """Seconds until all is done, if it goes on as it went."""
    return (time.perf_counter() - started) * (1 - share) / share
