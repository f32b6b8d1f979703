"""Tiles of a part of a volume, as the whole board sees them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.board import FRESH, Generation, TileBoard
from napari_sparseseg.live.events import View

SHAPE, TILE = (40, 70, 90), (16, 16, 32)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2), st.integers(0, 3)), max_size=12),
    st.integers(0, 3),
)
def test_fresh_tiles_are_counted_as_their_states_say(marks: list[tuple[int, int, int, int]], revision: int) -> None:
    board = TileBoard(SHAPE, TILE)
    for z, y, x, known in marks:
        board.mark((z, y, x), Generation(1, known, 10))
    for generation in (None, Generation(2, revision, 12)):
        assert board.n_fresh(generation) == int((board.states(generation) == FRESH).sum())
    assert len(board.known_boxes()) == len({mark[:3] for mark in marks})


def test_only_tiles_within_a_box_are_wanted_elsewhere() -> None:
    board, generation = TileBoard(SHAPE, TILE), Generation(1, 1, 10)
    view = View(Plane(0, 0, 20), Box((20, 20, 40), (21, 30, 50)), (20, 25, 45))
    within = view.box.grown(TILE)
    found = set()
    while (index := board.next_elsewhere(view, generation, within)) is not None:
        board.mark(index, generation)
        found.add(index)
        assert board.box(index).clipped(within).n_voxels
    touching = {
        index
        for index in np.ndindex(*board.grid)
        if board.box(index).clipped(within).n_voxels  # type: ignore[arg-type]
    }
    assert found == touching
    assert board.next_elsewhere(view, generation) is not None
