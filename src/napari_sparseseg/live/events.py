"""What the live loop reports: frozen records, and the signals that carry them.

Signals are emitted on the thread on which something happened: paint, classes and wishes on the caller's thread, tiles,
steps and failures on the compute thread. A GUI must pass them on to its own thread. Slots should be quick: the loop
waits for them, and so may a caller that changes a wish meanwhile.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import EmitLoopError, Signal, SignalGroup, SignalInstance

from napari_sparseseg._types import Box, Plane, Shape3D

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

Color = tuple[float, float, float]
"""Red, green, blue, each 0..1."""


class LiveState(StrEnum):
    """What the live loop is doing."""

    NO_IMAGE = "no image"
    PREPARING = "preparing"  # loading torch, reading the image
    WAITING = "waiting for paint"
    TRAINING = "training"
    PREDICTING = "predicting"
    PAUSED = "paused"  # there is a model, nothing is computed
    UP_TO_DATE = "up to date"  # nothing left to compute: not training, all tiles fresh
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """A class that can be painted. The one in the background role is transparent in the prediction."""

    class_id: int
    name: str
    color: Color
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """A snapshot of the live loop.

    `activity` is one short sentence on what it is doing now, or what it waits for ("Paint a second class").
    `dice` estimates the agreement, 0..1, or None; `dice_source` says what the estimate is based on, and
    `is_dice_of_strokes` whether that is strokes that have not been learnt yet, unlike the dice of `CurvePoint`.
    `n_tiles` counts the tiles of the time point on screen, `n_fresh` those that show the latest paint and (nearly) the
    latest weights. `seconds_left` is the time until all tiles are fresh, None if unknown or not predicting. `revision`
    counts the changes of the annotation. `is_finding` and `is_advising` say that objects, or a slice to paint next, are
    being looked for. `error` is the failure that ended the last run, in one sentence, until the next start.
    """

    state: LiveState = LiveState.NO_IMAGE
    activity: str = ""
    device: str = ""
    device_reason: str = ""
    is_training: bool = False
    is_live: bool = True
    step: int = 0
    steps_per_second: float = 0.0
    loss: float | None = None
    dice: float | None = None
    dice_source: str = ""
    is_dice_of_strokes: bool = False
    n_tiles: int = 0
    n_fresh: int = 0
    seconds_left: float | None = None
    revision: int = 0
    has_model: bool = False
    is_finding: bool = False
    is_advising: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class TileUpdate:
    """A predicted box: `labels` (z, y, x) uint8 are class ids, 0 where nothing is known.

    Paint does not show in `labels`, except that sets of classes narrow them. `probability` (of the class that was asked
    for), `uncertainty` (entropy) and `novelty` are uint8, 0..255, or None. `second` is uint8, too: the id of the second
    most likely of a voxel's candidate classes, 0 where there is only one.

    If `is_forgotten`, nothing is known there any more: the prediction was dropped to keep memory bounded.
    """

    frame: int
    box: Box
    labels: npt.NDArray[np.uint8]
    generation: int
    probability: npt.NDArray[np.uint8] | None = None
    uncertainty: npt.NDArray[np.uint8] | None = None
    novelty: npt.NDArray[np.uint8] | None = None
    second: npt.NDArray[np.uint8] | None = None
    is_forgotten: bool = False


@dataclass(frozen=True, slots=True)
class PaintChange:
    """The annotation changed within a box, by a stroke, undo, redo, or a slice marked as complete."""

    frame: int
    box: Box
    revision: int


@dataclass(frozen=True, slots=True)
class ObjectsChange:
    """The objects that were found changed within a box: by a search, a correction, undo or redo."""

    frame: int
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Measurements of the objects of a frame: `rows` is what `measure_objects` returns, including classes.

    The class is that of the prediction and the paint at the time of measuring.
    """

    frame: int
    rows: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """Paint that the program proposes: `codes` (z, y, x) of a box of a frame, 0 where nothing is suggested.

    `plane` is the slice on which strokes were grown, None if slices between painted ones were filled.
    """

    frame: int
    box: Box
    codes: npt.NDArray[np.uint8]
    plane: Plane | None = None


@dataclass(frozen=True, slots=True)
class SuggestionState:
    """What is suggested (None: nothing), whether a suggestion is being computed, and why there is none."""

    suggestion: Suggestion | None = None
    is_busy: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SuggestedSlice:
    """A slice to paint next, and the voxel (z, y, x) on it to start at; `score` is that of `SliceAdvice`.

    `method` is the one that was asked for: "intervals" or "uncertainty".
    """

    plane: Plane
    spot: Shape3D
    score: float
    method: str


@dataclass(frozen=True, slots=True)
class PaintedSlice:
    """A slice that carries paint, for the list of slices."""

    plane: Plane
    n_voxels: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class View:
    """What is on screen: a plane, the visible part of it, and where the user is probably looking.

    `box` is one voxel thick across the plane. In 3D display `plane` is the one that the slider was at.
    """

    plane: Plane
    box: Box
    center: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of the learning curve."""

    step: int
    seconds: float
    loss: float
    dice: float | None


@dataclass(frozen=True, slots=True)
class SavingStatus:
    """How paint and models are saved to disk.

    `path` is the project's folder, empty without a project. `reason` says why a project is not written to ("open in
    another window"), empty if it is. `error` says what cannot be saved at the moment and why; it is kept in memory and
    tried again. `saved_at` is when paint, model and prediction were saved last, in seconds since 1970.
    """

    path: str = ""
    reason: str = ""
    error: str = ""
    saved_at: float | None = None


class WholeState(StrEnum):
    """How far the prediction of a whole image is."""

    NONE = "none"
    RUNNING = "running"
    STOPPING = "stopping"
    UNFINISHED = "unfinished"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class WholeStatus:
    """Progress of the prediction of a whole image: `share`, 0..1; `text` is speed and time left, or what failed.

    `paths` are the OME-Zarrs of all time points once they are complete, possibly by an older model: those stay while a
    newer one predicts. `is_new` is true just when they have become complete.
    """

    state: WholeState = WholeState.NONE
    share: float = 0.0
    text: str = ""
    paths: tuple[str, ...] = ()
    is_new: bool = False


class LiveEvents(SignalGroup):
    """Signals of a `LiveSegmenter`."""

    # queued, so that all slots get the statuses in order, even if one of them changes a wish
    status_changed = Signal(LiveStatus, reemission="queued")
    """After each change of state, and at most ten times a second while something is computed."""
    tile_predicted = Signal(TileUpdate)
    """When a tile, or a preview of part of the plane on screen, has been predicted; compute thread."""
    predictions_cleared = Signal()
    """When all predictions were dropped (model reset, another image)."""
    freshness_changed = Signal(int)
    """When tiles of a frame became fresh or stale: the frame."""
    paint_changed = Signal(PaintChange)
    """After the annotation changed; caller's thread."""
    objects_changed = Signal(ObjectsChange)
    """After objects were found (compute thread), corrected, or a correction was taken back (caller's thread)."""
    objects_measured = Signal(ObjectTable)
    """When objects whose table is wanted have been measured, first and after each change; compute thread."""
    suggestion_changed = Signal(SuggestionState, reemission="queued")
    """When paint was suggested, accepted or refused; compute thread or caller's."""
    slice_suggested = Signal(SuggestedSlice)
    """When the slice to paint next was found; compute thread."""
    classes_changed = Signal(tuple)
    """After a class was added, renamed, recoloured or removed: tuple of `ClassInfo`; caller's thread."""
    curve_extended = Signal(CurvePoint)
    """After a training step; compute thread."""
    curve_cleared = Signal()
    """When the learning curve starts again: for another image (caller's thread) or a new model (compute thread)."""
    saving_changed = Signal(SavingStatus, reemission="queued")
    """When something was saved or could not be; saving thread, or that of the journal."""
    whole_changed = Signal(WholeStatus, reemission="queued")
    """While the whole image is predicted into its project, several times a second; on the thread that does it."""
    noticed = Signal(str)
    """Something that the user should know, though everything goes on: one sentence; any thread."""
    failed = Signal(str)
    """When training or predicting ended in an error: one sentence that says what to do; compute thread."""


def tell(signal: SignalInstance, *values: Any) -> None:
    """Emit a signal. An error in somebody's slot is logged, and does not fail whoever emits."""
    try:
        signal.emit(*values)
    except EmitLoopError as error:
        _log.error("a slot of %s failed; what it was told holds all the same", signal.name, exc_info=error.__cause__)
