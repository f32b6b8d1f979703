"""Which tile is predicted next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.board import FRESH, NEVER, STALE, Generation, TileBoard, grid_of, live_tile_shape
from napari_sparseseg.live.events import View

shapes = st.tuples(st.integers(1, 40), st.integers(1, 200), st.integers(1, 200))


def view_of(shape, axis=0, index=None, window=None, center=None):
    plane = Plane(0, axis, shape[axis] // 2 if index is None else index)
    box = plane.box(shape) if window is None else window
    middle = tuple((a + b - 1) / 2 for a, b in zip(box.start, box.stop, strict=True))
    return View(plane, box, center or middle)


def take_all(board, choose, generation):
    """Mark what is chosen until nothing is; the order."""
    order = []
    while (index := choose()) is not None:
        assert len(order) < board._number.size, "it does not end"
        board.mark(index, generation)
        order.append(index)
    return order


@given(shape=shapes)
def test_tiles_cover_every_voxel_once(shape):
    board = TileBoard(shape, live_tile_shape(shape))
    count = np.zeros(shape, int)
    for index in np.ndindex(board.grid):
        count[board.box(index).slices] += 1
    assert (count == 1).all()
    assert board.grid == grid_of(shape, board.tile_shape)


@given(shape=shapes, axis=st.integers(0, 2), data=st.data())
def test_each_tile_on_screen_comes_once_a_generation(shape, axis, data):
    board = TileBoard(shape, live_tile_shape(shape))
    index = data.draw(st.integers(0, shape[axis] - 1))
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    low[axis], high[axis] = index, index + 1
    window = Box(tuple(low), tuple(high))
    view = view_of(shape, axis, index, window)
    on_screen = {i for i in np.ndindex(board.grid) if board.box(i).clipped(window).n_voxels}
    for number in (1, 2):
        generation = Generation(number, 1, number)
        order = take_all(board, lambda g=generation: board.next_on_screen(view, g, None), generation)
        assert len(order) == len(set(order))
        assert set(order) == on_screen


@given(shape=shapes)
def test_what_is_elsewhere_ends_and_is_all_fresh_then(shape):
    board = TileBoard(shape, live_tile_shape(shape))
    generation = Generation(1, 1, 100)
    view = view_of(shape)
    order = take_all(board, lambda: board.next_elsewhere(view, generation), generation)
    assert len(order) == np.prod(board.grid)
    assert (board.states(generation) == FRESH).all()


BIG = (48, 256, 256)


@pytest.fixture
def board():
    return TileBoard(BIG, live_tile_shape(BIG))


class TestOrder:
    def test_the_tile_of_the_latest_stroke_comes_first(self, board):
        view = view_of(BIG, index=20)
        assert board.next_on_screen(view, Generation(1, 1, 0), (20, 250, 3)) == (1, 3, 0)

    def test_then_those_around_it(self, board):
        view, generation = view_of(BIG, index=20), Generation(1, 1, 0)
        order = take_all(board, lambda: board.next_on_screen(view, generation, (20, 250, 3)), generation)
        distance = [abs(y - 3) + abs(x - 0) for _, y, x in order]
        assert distance[:3] == [0, 1, 1]
        assert distance[-1] == 6

    def test_a_stroke_that_is_not_on_screen_any_more_does_not_count(self, board):
        generation = Generation(1, 1, 0)
        window = Box((20, 128, 128), (21, 256, 256))
        view = view_of(BIG, index=20, window=window, center=(20, 250, 250))
        assert board.next_on_screen(view, generation, (20, 3, 3)) == (1, 3, 3)
        assert board.next_on_screen(view_of(BIG, index=40, center=(40, 250, 3)), generation, (20, 3, 3)) == (2, 3, 0)

    def test_without_a_stroke_the_eye_decides(self, board):
        view = view_of(BIG, index=20, center=(20, 10, 200))
        assert board.next_on_screen(view, Generation(1, 1, 0), None) == (1, 0, 3)

    def test_elsewhere_the_same_slab_comes_before_others(self, board):
        view, generation = view_of(BIG, index=2, center=(2, 0, 0)), Generation(1, 1, 0)
        order = take_all(board, lambda: board.next_elsewhere(view, generation), generation)
        assert [z for z, _, _ in order] == [0] * 16 + [1] * 16 + [2] * 16
        assert order[0] == (0, 0, 0)

    def test_elsewhere_follows_the_orientation_of_the_view(self, board):
        view, generation = view_of(BIG, axis=2, index=250), Generation(1, 1, 0)
        order = take_all(board, lambda: board.next_elsewhere(view, generation), generation)
        assert [x for _, _, x in order] == [3] * 12 + [2] * 12 + [1] * 12 + [0] * 12

    def test_without_a_view_the_middle_comes_first(self, board):
        assert board.next_elsewhere(None, Generation(1, 1, 0)) in {(1, y, x) for y in (1, 2) for x in (1, 2)}

    def test_an_empty_view_shows_no_tile(self, board):
        view = view_of(BIG, window=Box((20, 256, 10), (21, 256, 40)))
        assert board.next_on_screen(view, Generation(1, 1, 0), None) is None


class TestFreshness:
    def test_never_stale_fresh(self, board):
        old = Generation(1, revision=1, step=10)
        board.mark((0, 0, 0), old)
        assert board.states(old)[0, 0, 0] == FRESH
        assert board.states(old)[1, 0, 0] == NEVER
        assert board.states(Generation(2, revision=2, step=10))[0, 0, 0] == STALE

    def test_weights_that_moved_a_little_leave_tiles_fresh(self, board):
        board.mark((0, 0, 0), Generation(1, 1, 100))
        assert board.states(Generation(2, 1, 149))[0, 0, 0] == FRESH
        assert board.states(Generation(3, 1, 150))[0, 0, 0] == STALE

    def test_the_first_steps_do_not_make_everything_stale_at_once(self, board):
        board.mark((0, 0, 0), Generation(1, 1, 0))
        assert board.states(Generation(2, 1, 24))[0, 0, 0] == FRESH
        assert board.states(Generation(3, 1, 25))[0, 0, 0] == STALE

    def test_a_model_that_began_anew_makes_tiles_stale(self, board):
        board.mark((0, 0, 0), Generation(1, 1, 500))
        assert board.states(Generation(2, 1, 0))[0, 0, 0] == STALE

    def test_what_expired_is_stale_whatever_its_generation(self, board):
        generation = Generation(1, -1, 0)
        board.mark((0, 0, 0), generation)
        board.expire()
        assert board.states(generation)[0, 0, 0] == STALE
        assert board.states(generation)[1, 1, 1] == NEVER

    def test_known_voxels_are_those_of_predicted_tiles(self, board):
        board.mark((0, 0, 1), Generation(1, 1, 0))
        known = board.known(Box((15, 0, 60), (17, 2, 130)))
        expected = np.zeros((2, 2, 70), bool)
        expected[0, :, 4:68] = True
        np.testing.assert_array_equal(known, expected)


def test_tiles_of_planes_are_larger_squares():
    assert live_tile_shape((1, 500, 500)) == (1, 128, 128)
    assert live_tile_shape((64, 500, 30)) == (16, 64, 30)
