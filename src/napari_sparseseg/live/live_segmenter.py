"""LiveSegmenter: learns while it is painted at. The one object that the widgets talk to."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Plane, Region, Shape3D
from napari_sparseseg.config import ModelConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.live.events import ClassInfo, Color, LiveEvents, LiveStatus, PaintedSlice, View
from napari_sparseseg.storage.journal import Journal


class LiveSegmenter:
    """Paint goes in, predictions come out, what is looked at first; without Qt.

    All methods may be called from one thread (that of the GUI); they return at once. Learning and predicting happen
    on a thread of the segmenter's own, which is started when it is first needed and ended by `close`.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        prediction: PredictionConfig | None = None,
        journal: Journal | None = None,
    ) -> None: ...

    events: LiveEvents
    auto_start: bool
    """Whether training starts by itself once two classes are painted (default True)."""

    @property
    def status(self) -> LiveStatus:
        """The latest snapshot."""

    # --- image ---

    def open(
        self,
        image: Any,
        *,
        channel_axis: int | None = None,
        time_axis: int | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Take an image, (Y, X) or (Z, Y, X) with or without a channel and a time axis; drops what was painted.

        `spacing` is along z, y, x (y, x). Raises `InputError` for what cannot be used. Loading torch and reading the
        image start in the background, so that the first prediction comes quickly.
        """

    @property
    def shape(self) -> tuple[int, int, int, int] | None:
        """Frames (time points), z, y, x; None without image."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Shape of annotation and labels as the user sees them: the image's without channels."""

    def close(self) -> None:
        """End the thread (within a second) and the journal; paint and predictions stay readable."""

    # --- classes ---

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    def add_class(self, name: str | None = None, color: Color | None = None) -> ClassInfo:
        """The next free id, 1..127."""

    def rename_class(self, class_id: int, name: str) -> None: ...

    def recolor_class(self, class_id: int, color: Color) -> None: ...

    def set_background(self, class_id: int) -> None:
        """Give the background role to this class."""

    def remove_class(self, class_id: int) -> None:
        """Remove a class with its paint; the model forgets it. Raises `InputError` for the last two."""

    # --- paint ---

    def annotate(self, region: Region, class_id: int, *, plane: Plane | None = None) -> None:
        """Paint a class on the annotation; 0 erases. `plane` is the slice that the stroke was made on."""

    def annotate_values(self, region: Region, codes: npt.NDArray[np.uint8], *, plane: Plane | None = None) -> None:
        """The same with a code for each voxel of the region's box (a layer that was replaced)."""

    def correct(self, region: Region, class_id: int, *, shown: npt.NDArray[np.uint8], plane: Plane | None = None) -> None:
        """Paint a class on the prediction: voxels are pinned to it; where it was `shown` already, that confirms it.

        `shown` are the labels of the region's box before the stroke. Class 0 erases: "not the class that was shown",
        but nothing is said about voxels that showed the background or nothing, and voxels whose annotation was one
        class lose it.
        """

    def undo(self) -> bool:
        """Take the last stroke back, on whichever layer it was made; False if there is none."""

    def redo(self) -> bool: ...

    def set_complete(self, plane: Plane, complete: bool) -> None:
        """Say that all that is unpainted on this slice is background, or take that back.

        Raises `InputError` if no class has the background role.
        """

    def painted_slices(self) -> tuple[PaintedSlice, ...]:
        """Slices that strokes were made on or that are complete, in order."""

    @property
    def codes(self) -> npt.NDArray[np.uint8] | None:
        """The annotation's codes, (frames, z, y, x), read-only: 0 unpainted, 1..127 classes, 128..254 sets."""

    def allowed(self, code: int) -> frozenset[int]:
        """Class ids that a code leaves possible."""

    # --- wishes ---

    def start(self) -> None:
        """Train, until `pause`; waits for a second class where there is one only."""

    def pause(self) -> None: ...

    def update_once(self) -> None:
        """Learn what was painted in a short burst, predict everything once, then rest."""

    def reset_model(self) -> None:
        """Forget what was learnt and drop the predictions; the paint stays. Training goes on if it was on."""

    def set_live(self, live: bool) -> None:
        """Whether predictions are kept fresh while training."""

    def look_at(self, view: View) -> None:
        """Tell what is on screen: that is predicted first."""

    def show_probability(self, class_id: int | None) -> None:
        """Hand out the probability of this class with each tile from now on (None: no longer)."""

    def show_uncertainty(self, wanted: bool) -> None: ...

    def configure(
        self,
        *,
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        prediction: PredictionConfig | None = None,
        device: str | None = None,
    ) -> None:
        """Change settings; those of the model and the device take hold at the next reset."""

    # --- results ---

    @property
    def tile_shape(self) -> Shape3D | None:
        """Tiles of the freshness map, in voxels."""

    def freshness(self, frame: int) -> npt.NDArray[np.uint8]:
        """One number for each tile, (tiles along z, y, x): 0 never predicted, 1 stale, 2 fresh."""

    def labels(self, frame: int, box: Box | None = None) -> npt.NDArray[np.uint8]:
        """What the prediction layer should show: predicted class ids, paint of one class over them; a copy."""

    def estimate_seconds(self, n_voxels: int) -> float:
        """Expected time to predict so many voxels on this machine, from what was measured so far or a first guess."""

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Write the model between two steps; `SparseSegmenter.load` reads it. Raises `NotFittedError`, `InputError`."""

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Go on from a saved model: its classes are added; raises `ModelFileError`, `InputError` if it does not fit."""
