"""The learning curve."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPalette
from qtpy.QtWidgets import QApplication

from napari_sparseseg.live.events import CurvePoint
from napari_sparseseg.widgets.curve import REPAINT_MS, LearningCurve, _reduced, _round_up


def points(n, first=1):
    return [CurvePoint(i, i * 0.5, 1.0 / (1 + i / 100), 0.8 if i % 5 == 0 else None) for i in range(first, first + n)]


@pytest.fixture
def curve(qtbot):
    curve = LearningCurve()
    curve.resize(300, 120)
    qtbot.addWidget(curve)
    curve.show()
    qtbot.waitExposed(curve)
    return curve


def picture(curve):
    return curve.grab().toImage()


def test_without_points_it_says_so(curve):
    empty = picture(curve)
    assert curve.text_at(150) == ""
    curve.add(points(10))
    curve._redraw()
    full = picture(curve)
    assert full != empty
    curve.clear()
    assert picture(curve) == empty
    assert curve.n_points == 0


@pytest.mark.parametrize("n", [1, 2, 3, 299, 5000])
def test_any_number_of_points_draws(curve, n):
    curve.add(points(n))
    curve._redraw()
    picture(curve)
    assert curve.n_points == n
    assert len(curve._columns.x) <= curve.width()


def test_points_arrive_in_parts_as_if_at_once(curve, qtbot):
    other = LearningCurve()
    other.resize(curve.size())
    qtbot.addWidget(other)
    curve.add(points(3000))
    other.add(points(1000))
    other.add([])
    other.add(points(2000, first=1001))
    assert np.array_equal(curve._table[:, :3000], other._table[:, :3000], equal_nan=True)


def test_however_many_points_come_there_is_one_picture_per_interval(curve, qtbot, monkeypatch):
    drawn = []
    monkeypatch.setattr(curve, "_draw", lambda draw=curve._draw: drawn.append(1) or draw())
    for i in range(1, 41):
        curve.add(points(1, first=i))
        QApplication.processEvents()
        if not curve._timer.isActive():  # a slow machine: the interval is over
            break
    assert len(drawn) <= 1
    qtbot.waitUntil(lambda: not curve._timer.isActive() and drawn != [])
    assert curve._timer.interval() == REPAINT_MS


def test_each_column_is_the_mean_of_its_points():
    table = np.array([[0.0, 1, 2, 3], [0, 1, 2, 3], [4, 2, 1, 1], [np.nan, 0.5, np.nan, np.nan]])
    reduced = _reduced(table, table[0], 10.0, 2.0)
    assert reduced.x.tolist() == [10.5, 11.5]
    assert reduced.step.tolist() == [0.5, 2.5]
    assert reduced.loss.tolist() == [3.0, 1.0]
    assert reduced.dice[0] == 0.5
    assert np.isnan(reduced.dice[1])


@pytest.mark.parametrize(("value", "top"), [(0.9, 1.0), (1.1, 1.2), (0.031, 0.04), (70, 80), (0, 1), (np.inf, 1)])
def test_the_scale_ends_at_a_readable_number(value, top):
    assert _round_up(value) == pytest.approx(top)


@pytest.mark.parametrize("loss", [3e-6, 0.0115, 0.7, 1.15, 115.0, 7000.0])
def test_the_numbers_at_the_loss_are_not_cut_off(curve, monkeypatch, loss):
    drawn = []
    draw = QPainter.drawText

    def note(painter, *args):
        if isinstance(args[0], QRectF) and args[0].left() == 0 and args[-1] not in ("Loss", ""):
            drawn.append((args[-1], painter.fontMetrics().horizontalAdvance(args[-1]) <= args[0].width()))
        draw(painter, *args)

    monkeypatch.setattr(QPainter, "drawText", note)
    curve.add([CurvePoint(i, i * 0.5, loss, None) for i in range(1, 5)])
    curve._redraw()
    picture(curve)
    assert len(drawn) == 3
    assert all(fits for _, fits in drawn)


def test_the_mouse_reads_the_curve_off(curve, qtbot):
    curve.add([CurvePoint(1, 0.5, 1.0, 0.5), CurvePoint(1240, 185.0, 0.25, 0.857)])
    curve._redraw()
    picture(curve)
    assert curve.text_at(299) == "step 1\u202f240 · 3:05 min · loss 0.25 · Dice ~0.86 (held out)"
    qtbot.mouseMove(curve, QPoint(20, 50))
    qtbot.mouseMove(curve, QPoint(290, 50))
    qtbot.waitUntil(lambda: curve.toolTip() == curve.text_at(290))


def test_a_dice_that_is_not_known_is_left_out(curve):
    curve.add([CurvePoint(1, 0.5, 1.0, None)])
    curve._redraw()
    picture(curve)
    assert curve.text_at(100) == "step 1 · 0 s · loss 1"


def test_a_click_changes_between_time_and_steps(curve, qtbot):
    curve.add(points(50))
    curve._redraw()
    over_time = picture(curve)
    qtbot.mouseClick(curve, Qt.MouseButton.LeftButton)
    assert not curve.is_over_time
    assert picture(curve) != over_time
    qtbot.mouseClick(curve, Qt.MouseButton.LeftButton)
    assert picture(curve) == over_time


def test_a_clock_that_starts_anew_does_not_leave_the_axes(curve):
    curve.add([*points(50), *points(20, first=1)])
    curve._redraw()
    picture(curve)
    area = curve._area()
    assert curve._columns.x.min() >= area.left()
    assert curve._columns.x.max() <= area.right()
    assert np.all(np.diff(curve._columns.x) > 0)


def test_a_loss_that_is_not_finite_does_not_stop_it(curve):
    curve.add([CurvePoint(1, 0.1, 0.5, None), CurvePoint(2, 0.2, float("nan"), None), CurvePoint(3, 0.3, 0.4, 0.5)])
    curve._redraw()
    picture(curve)
    assert np.isnan(curve._columns.loss[1:-1]).any()
    curve.clear()
    curve.add([CurvePoint(1, 0.1, float("nan"), None)])
    curve._redraw()
    picture(curve)


def test_it_follows_the_theme(curve):
    curve.add(points(50))
    shots = []
    for color in ("#f0f1f2", "#1e1e21"):
        palette = QPalette(curve.palette())
        palette.setColor(QPalette.ColorRole.WindowText, QColor(color))
        curve.setPalette(palette)
        shots.append(picture(curve))
    assert shots[0] != shots[1]
