"""Random painting, and how two annotations are compared: for tests of what is kept on disk."""

from __future__ import annotations

import numpy as np

from napari_sparseseg._types import Box, Plane, Region

SHAPE = (2, 4, 20, 24)
CLASSES = (1, 2, 3)


def random_box(rng, shape=SHAPE):
    start, stop = zip(*(sorted(rng.choice(size + 1, 2, replace=False)) for size in shape[1:]), strict=True)
    return Box(tuple(map(int, start)), tuple(map(int, stop)))


def do_something(store, rng):
    """One random act on a store; most of them paint."""
    act = rng.integers(13)
    frame, box = int(rng.integers(store.shape[0])), random_box(rng, store.shape)
    region = Region(frame, box, rng.random(box.shape) < 0.6 if act % 2 else None)
    plane, object_id = Plane(frame, 0, box.start[0]), int(rng.integers(4))
    if act < 4:
        store.annotate(region, int(rng.choice(CLASSES)), plane, object_id=object_id)
    elif act < 5:
        store.annotate(region, 0, plane)
    elif act < 7:
        shown = rng.choice((0, *CLASSES), box.shape).astype(np.uint8)
        class_id = int(rng.choice((0, *CLASSES)))
        store.correct(region, class_id, shown, plane, class_ids=CLASSES, background=1, object_id=object_id)
    elif act < 9:
        store.undo()
    elif act < 10:
        store.redo()
    elif act < 11:
        codes, ids = (rng.integers(low, high, box.shape) for low, high in ((1, 4), (0, 3)))
        store.annotate_objects(region, codes, ids.astype(np.int32), plane)
    elif act < 12:
        store.set_complete(plane, bool(rng.integers(2)))
    elif rng.random() < 0.2:
        store.remove_class(3, class_ids=CLASSES)


def contents(store):
    """What two stores must have in common to be the same."""
    complete = {found.plane for found in store.painted_slices() if found.is_complete}
    background = 1
    frames = [store.snapshot(frame, classes=CLASSES, background=background) for frame in range(store.shape[0])]
    return {
        "codes": store.codes.tobytes(),
        "sets": store.sets,
        "complete": complete,
        "strokes": [(s.kind, s.time, s.plane, s.n_voxels, s.by, s.object_id) for s in store.strokes],
        "objects": [store.objects(frame, Box.whole(store.shape[1:])).tobytes() for frame in range(store.shape[0])],
        "slices": store.painted_slices(),
        "learnt": [(a.coordinates.tobytes(), a.codes.tobytes(), a.weights.round(4).tobytes()) for a in frames],
        "n_painted": [store.n_painted(frame) for frame in range(store.shape[0])],
    }
