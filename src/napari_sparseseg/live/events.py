"""What the live loop tells: frozen records, and the signals that carry them.

Signals are emitted on the thread on which the thing happened: paint, classes and wishes on the caller's, tiles,
steps and failures on the compute thread. Whoever draws must bring them to its own thread. Slots should be quick: the
loop waits for them, and so may whoever changes a wish meanwhile.
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
    """What the live loop is at."""

    NO_IMAGE = "no image"
    PREPARING = "preparing"  # loading torch, reading the image
    WAITING = "waiting for paint"
    TRAINING = "training"
    PREDICTING = "predicting"
    PAUSED = "paused"  # a model is there, nothing is computed
    UP_TO_DATE = "up to date"  # nothing is left to compute: not training, all tiles fresh
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
    `dice` estimates the agreement, 0..1, or None; `dice_source` says on what it rests, `is_dice_of_strokes` whether on
    strokes that were not learnt yet, unlike that of `CurvePoint`. `n_tiles` counts the tiles of the time point on
    screen, `n_fresh` those that show the latest paint and (nearly) the latest weights. `seconds_left` is the time until
    all tiles are fresh, None if unknown or not predicting. `revision` counts the changes of the annotation.
    `is_finding`: objects are being looked for, `is_advising`: a slice to paint. `error` is the sentence of the failure
    that ended the last run, until the next start.
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

    Paint does not show in `labels` but where a set of classes was painted, which narrows them. `probability` (of the
    class that was asked for), `uncertainty` (entropy) and `novelty` are uint8, 0..255, or None. So is `second`: the id
    of the next likely of a voxel's candidate classes, 0 where there is one only.

    If `is_forgotten`, nothing is known there any more: it was given up to keep memory bounded.
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
    """The annotation changed within a box, by a stroke, by undo or redo, or by a slice that was marked."""

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
    """What was measured of the objects of a frame: `rows` are what `measure_objects` returns, classes included.

    The class is that of the prediction, with the paint, when it was measured.
    """

    frame: int
    rows: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """Paint that the program proposes: `codes` (z, y, x) of a box of a frame, 0 where nothing is suggested.

    `plane` is the slice that strokes were grown on, None where slices between painted ones are filled.
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
    """A slice to paint next, and the voxel (z, y, x) on it to begin at; `score` is that of `SliceAdvice`.

    `method` is what was asked for: "intervals" or "uncertainty".
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
    """What is on screen: a plane, the part of it that can be seen, and where the eye is likely to be.

    `box` is one voxel thick across the plane. In 3D display `plane` is the one the slider stood at.
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
    """How what is painted and learnt is kept on disk.

    `path` is the project's folder, empty without project. `reason` says why a project is not written to ("open in
    another window"), empty if it is. `error` says what cannot be saved at the moment and why; all of it is kept in
    memory and tried again. `saved_at` is when paint, model and prediction were saved last, in seconds since 1970.
    """

    path: str = ""
    reason: str = ""
    error: str = ""
    saved_at: float | None = None


class WholeState(StrEnum):
    """What there is of the prediction of all of an image."""

    NONE = "none"
    RUNNING = "running"
    STOPPING = "stopping"
    UNFINISHED = "unfinished"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class WholeStatus:
    """How far the prediction of all of an image has come: `share`, 0..1, and speed and time left, or what failed.

    `paths` are the OME-Zarrs of all time points once they are complete, maybe by an older model: those stay while a
    newer one is at work. `is_new` in the moment in which they have become complete.
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
    """When a tile, or a preview of a part of the plane on screen, has been predicted; compute thread."""
    predictions_cleared = Signal()
    """When all predictions were dropped (model reset, another image)."""
    freshness_changed = Signal(int)
    """Frame in which tiles became fresh or stale."""
    paint_changed = Signal(PaintChange)
    """After the annotation changed; caller's thread."""
    objects_changed = Signal(ObjectsChange)
    """After objects were found (compute thread), corrected, or a correction was taken back (caller's thread)."""
    objects_measured = Signal(ObjectTable)
    """When the objects whose table is wanted were measured, at first and after each change; compute thread."""
    suggestion_changed = Signal(SuggestionState, reemission="queued")
    """When paint is suggested, was accepted or refused; compute thread or caller's."""
    slice_suggested = Signal(SuggestedSlice)
    """When the slice to paint next was found; compute thread."""
    classes_changed = Signal(tuple)
    """After a class was added, renamed, recoloured or removed: tuple of `ClassInfo`; caller's thread."""
    curve_extended = Signal(CurvePoint)
    """After a training step; compute thread."""
    curve_cleared = Signal()
    """When the learning curve starts again: for another image (caller's thread) or a new model (compute thread)."""
    saving_changed = Signal(SavingStatus, reemission="queued")
    """When something was saved or could not be; on the thread that saves, or that of the journal."""
    whole_changed = Signal(WholeStatus, reemission="queued")
    """While all of the image is predicted into its project, several times a second; on the thread that does it."""
    noticed = Signal(str)
    """Something that the user should know, though all goes on: one sentence; any thread."""
    failed = Signal(str)
    """When training or predicting ended in an error: one sentence that says what to do; compute thread."""


def tell(signal: SignalInstance, *values: Any) -> None:
    """Emit a signal. What goes wrong in somebody's slot is logged, and is no failure of what was told."""
    try:
        signal.emit(*values)
    except EmitLoopError as error:
        _log.error("a slot of %s failed; what it was told holds all the same", signal.name, exc_info=error.__cause__)
