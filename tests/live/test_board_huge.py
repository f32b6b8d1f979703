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


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2)), max_size=20), st.booleans())
def test_rows_are_forgotten_by_their_age_and_none_on_screen(marks: list[tuple[int, int, int]], is_seen: bool) -> None:
    board = TileBoard(SHAPE, TILE)
    view = View(Plane(0, 0, 5), Box((5, 20, 40), (6, 30, 50)), (5, 25, 45)) if is_seen else None
    for number, index in enumerate(marks):
        board.mark(index, Generation(number, 1, 10))
    age = {(z, y): number for number, (z, y, _) in enumerate(marks)}  # of its latest tile
    on_screen = {(z, y) for z in (0, 1) for y in (0, 1, 2)} if is_seen else set()
    forgotten = []
    while (box := board.forget_row(view.box if view else None, view)) is not None:
        assert (box.start[2], box.stop[2]) == (0, SHAPE[2])
        forgotten.append((box.start[0] // TILE[0], box.start[1] // TILE[1]))
    assert forgotten == sorted(age.keys() - on_screen, key=lambda row: age[row])
    assert board.n_rows() == len(age.keys() & on_screen)
    assert {(b.start[0] // TILE[0], b.start[1] // TILE[1]) for b in board.known_boxes()} == age.keys() & on_screen


def test_of_rows_of_the_same_age_the_farthest_is_forgotten() -> None:
    board, generation = TileBoard(SHAPE, TILE), Generation(1, 1, 10)
    for index in np.ndindex(*board.grid):
        board.mark(index, generation)  # type: ignore[arg-type]
    view = View(Plane(0, 0, 0), Box((0, 0, 0), (1, 9, 9)), (0, 4, 4))
    box = board.forget_row(view.box, view)
    assert box == Box((32, 64, 0), SHAPE)


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
