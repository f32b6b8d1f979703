"""What the user painted, as napari tells it, turned into strokes: masks in boxes of one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.widgets.axes import AxisMap, Index
from napari_sparseseg.widgets.shadow import Mask, ShadowedArray


@dataclass(frozen=True, slots=True)
class Stroke:
    """Voxels of one frame that were painted with one label; 0 erases."""

    frame: int
    box: Box
    mask: Mask
    label: int

    @property
    def center(self) -> tuple[float, float, float]:
        """Middle of the box, in voxels."""
        z, y, x = ((a + b - 1) / 2 for a, b in zip(self.box.start, self.box.stop, strict=True))
        return z, y, x

    def where(self, mask: Mask) -> Stroke | None:
        """The stroke, only where a mask of its box holds; None if nowhere."""
        both = self.mask & mask
        return trimmed(Stroke(self.frame, self.box, both, self.label)) if both.any() else None

    def plane_across(self, axis: int) -> Plane | None:
        """The plane across `axis` that the stroke lies in; None if it lies in several."""
        return Plane(self.frame, axis, self.box.start[axis]) if self.box.shape[axis] == 1 else None


def strokes_of(atoms: Iterable[Any], axes: AxisMap) -> list[Stroke]:
    """The strokes of a paint event of napari, one for each frame and label."""
    found: dict[tuple[int, int], list[Stroke]] = {}
    for atom in atoms:
        for index, mask, label in _patches(atom):
            for stroke in _split(index, mask, label, axes):
                found.setdefault((stroke.frame, label), []).append(stroke)
    return [united(strokes) for strokes in found.values()]


def differences(array: ShadowedArray, frame: int, box: Box) -> list[Stroke]:
    """What was painted within a box without any event, for example in place by a script."""
    painted = array.user_mask(frame, box)
    if not painted.any():
        return []
    current = array.current(frame, box)
    labels = np.unique(current[painted]).tolist()
    return [trimmed(Stroke(frame, box, painted & (current == label), label)) for label in labels]


def is_written(stroke: Stroke, array: ShadowedArray) -> bool:
    """Whether the stroke stands in the layer; of a script's `layer.paint()` napari tells before."""
    return bool((array.current(stroke.frame, stroke.box)[stroke.mask] == stroke.label).all())


def joined(strokes: Sequence[Stroke], track: Stroke | None) -> list[Stroke]:
    """The strokes, the one of the track's frame and label extended by it."""
    if track is None:
        return list(strokes)
    same, others = [track], list[Stroke]()
    for stroke in strokes:
        (same if (stroke.frame, stroke.label) == (track.frame, track.label) else others).append(stroke)
    return [*others, united(same)]


def united(strokes: Sequence[Stroke]) -> Stroke:
    """One stroke of several of the same frame and label."""
    if len(strokes) == 1:
        return strokes[0]
    box = reduce(_hull, (stroke.box for stroke in strokes))
    mask = np.zeros(box.shape, bool)
    for stroke in strokes:
        mask[stroke.box.relative_to(box.start).slices] |= stroke.mask
    return Stroke(strokes[0].frame, box, mask, strokes[0].label)


def trimmed(stroke: Stroke) -> Stroke:
    """The same voxels in the smallest box."""
    spans = [np.flatnonzero(stroke.mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    start, stop = [int(span[0]) for span in spans], [int(span[-1]) + 1 for span in spans]
    inner = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return Stroke(stroke.frame, inner.shifted(stroke.box.start), stroke.mask[inner.slices], stroke.label)


def _hull(a: Box, b: Box) -> Box:
    start, stop = np.minimum(a.start, b.start).tolist(), np.maximum(a.stop, b.stop).tolist()
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _patches(atom: Any) -> Iterator[tuple[Index, Mask, int]]:
    """Place, mask and label of an edit in a layer's array: a masked box, or before napari 0.8 and by code, indices."""
    if hasattr(atom, "slice_key"):
        shape = tuple(part.stop - part.start for part in atom.slice_key)
        mask = np.ones(shape, bool) if atom.mask is None else atom.mask
        yield tuple(atom.slice_key), mask, int(atom.new_value)
        return
    indices, _, new_values = atom
    coordinates = np.broadcast_arrays(*(np.asarray(axis) for axis in indices))
    points = np.stack([axis.ravel() for axis in coordinates], axis=1)
    labels = np.broadcast_to(np.asarray(new_values), coordinates[0].shape).ravel()
    for label in np.unique(labels).tolist():
        chosen = points[labels == label]
        low, high = chosen.min(axis=0), chosen.max(axis=0) + 1
        mask = np.zeros(high - low, bool)
        mask[tuple((chosen - low).T)] = True
        yield tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)), mask, label


def _split(index: Index, mask: Mask, label: int, axes: AxisMap) -> Iterator[Stroke]:
    """The parts of a patch in each frame."""
    time, *space = axes.to_frames(index)
    z, y, x = space
    box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
    for frame, part in zip(range(time.start, time.stop), axes.as_frames(mask), strict=True):
        if part.any():
            yield Stroke(frame, box, part, label)


class StrokeRecorder:
    """Follows the mouse on a layer: whether a stroke is being made, and where the brush went.

    Of voxels that hold the label already napari tells nothing; only the track of the brush shows that the user has
    painted them too. `released` is called at the end of a drag, just before napari tells of it.
    """

    def __init__(self, layer: Any, axes: AxisMap, released: Callable[[], None]) -> None:
        self._layer = layer
        self._axes = axes
        self._released = released
        self._track: BrushTrack | None = None
        self._is_pressed = False
        self._is_encircling = False
        layer.mouse_drag_callbacks.append(self.follow)

    @property
    def is_encircling(self) -> bool:
        """Whether something is being encircled, which began with a right click and may take several more."""
        return self._is_encircling

    @property
    def is_open(self) -> bool:
        """Whether the user is in the middle of a stroke, or encircling."""
        return self._is_pressed or self._is_encircling

    def follow(self, layer: Any, event: Any) -> Iterator[None]:
        """Record one drag; a mouse callback of napari."""
        self._track = None
        if layer.mode not in ("paint", "erase", "fill") or layer.cursor == "circle_frozen":
            return  # frozen: the drag changes the size of the brush
        is_flat = len(event.dims_displayed) == 2
        if self._is_encircling or (is_flat and layer.mode == "paint" and event.button == 2):
            self._is_encircling = True
            return
        if is_flat and layer.mode in ("paint", "erase"):
            self._track = BrushTrack.begin(layer, event)
        self._is_pressed = True
        yield
        while event.type == "mouse_move":
            if self._track is not None:
                self._track.extend(layer.world_to_data(event.position))
            yield
        self._is_pressed = False
        self._released()

    def track(self) -> Stroke | None:
        """Where the brush has gone in the last drag, None without."""
        return None if self._track is None else self._track.stroke(self._axes)

    def finish(self) -> None:
        """What was being painted has been taken in, or nothing is left of it."""
        self._track = None
        self._is_pressed = self._is_encircling = False

    def close(self) -> None:
        """Follow no longer."""
        if self.follow in self._layer.mouse_drag_callbacks:
            self._layer.mouse_drag_callbacks.remove(self.follow)


class BrushTrack:
    """Voxels under a brush that is dragged over a plane: stamps as napari sets them, round in the world."""

    def __init__(self, label: int, painted_axes: Sequence[int], brush_size: float, scale: Sequence[float]) -> None:
        self.label = label
        self._axes = sorted(painted_axes)
        self._brush_size = brush_size
        self._radius = np.floor(brush_size / 2) + 0.5
        steps = np.abs([scale[axis] for axis in self._axes])
        self._steps = steps / steps.min()
        self._points: list[Any] = []

    @classmethod
    def begin(cls, layer: Any, event: Any) -> BrushTrack:
        """A track that begins where the mouse was pressed."""
        missing = len(event.position) - layer.ndim
        painted = [axis - missing for axis in event.dims_displayed]
        label = 0 if layer.mode == "erase" else int(layer.selected_label)
        track = cls(label, painted, layer.brush_size, layer.scale)
        track.extend(layer.world_to_data(event.position))
        return track

    def extend(self, point: Any) -> None:
        """Go on to a point, in the layer's voxels."""
        self._points.append(np.asarray(point, float))

    def stroke(self, axes: AxisMap) -> Stroke | None:
        """The voxels that were touched; None outside the image, or where they lie in several frames."""
        centers = self._centers()
        reach = np.zeros(axes.ndim, int)
        reach[self._axes] = np.floor(self._radius / self._steps).astype(int)
        low = np.maximum(centers.min(axis=0) - reach, 0)
        high = np.minimum(centers.max(axis=0) + reach + 1, axes.shape)
        if (low >= high).any():
            return None
        mask = self._stamped(centers, low, high)
        index = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        parts = list(_split(index, mask, self.label, axes))
        return trimmed(parts[0]) if len(parts) == 1 else None

    def _centers(self) -> Any:
        """Centres of the stamps, as close to each other as napari sets them."""
        centers = [self._points[0][None]]
        for start, end in zip(self._points, self._points[1:], strict=False):
            n_steps = round(float(np.abs(end - start).max()) / self._brush_size * 4)
            centers.append(np.linspace(start, end, n_steps + 1)[1:] if n_steps else end[None])
        return np.unique(np.round(np.concatenate(centers)).astype(int), axis=0)

    def _stamped(self, centers: Any, low: Any, high: Any) -> Mask:
        first, second = self._axes
        rows, columns = np.arange(low[first], high[first]), np.arange(low[second], high[second])
        plane = np.zeros((len(rows), len(columns)), bool)
        for center in centers:
            down = ((rows - center[first]) * self._steps[0]) ** 2
            across = ((columns - center[second]) * self._steps[1]) ** 2
            plane |= down[:, None] + across <= self._radius**2
        return np.expand_dims(plane, tuple(axis for axis in range(len(low)) if axis not in self._axes))
