"""The panels under napari's style sheets: nothing is cut off, all of it can be read.

SPARSESEG_PICTURES=FOLDER keeps a picture of each, to be looked at.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from napari.qt import get_qapp, get_stylesheet
from qtpy.QtGui import QColor, QCursor
from qtpy.QtWidgets import QAbstractButton, QApplication, QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_sparseseg._types import Plane
from napari_sparseseg.config import ModelConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.live.events import ClassInfo, CurvePoint, LiveState, LiveStatus, PaintedSlice
from napari_sparseseg.widgets.class_panel import ClassPanel
from napari_sparseseg.widgets.controls import ElidedLabel, MessageLabel, text_color
from napari_sparseseg.widgets.form import ConfigForm
from napari_sparseseg.widgets.paint_panel import PaintPanel
from napari_sparseseg.widgets.train_panel import TrainPanel

WIDTH = 350
MARGIN = 9
TWO = (ClassInfo(1, "background", (0.35, 0.55, 0.9), is_background=True), ClassInfo(2, "object", (0.95, 0.6, 0.2)))
NAMES = ("background", "nucleus", "membrane of the endoplasmic reticulum, outer side", *"abcdefghi")
TWELVE = tuple(ClassInfo(i, name, (i / 12, 0.6, 1 - i / 12), i == 1) for i, name in enumerate(NAMES, 1))
SLICES = tuple(PaintedSlice(Plane(0, i % 3, 5 * i), 37 * i**3 + 1, i % 3 == 0) for i in range(9))
BUSY = LiveStatus(
    LiveState.TRAINING,
    "learning from 5 slices",
    device="NVIDIA GeForce RTX 4090 Laptop GPU",
    is_training=True,
    step=1240,
    steps_per_second=12.3,
    dice=0.86,
    n_tiles=12000,
    n_fresh=3400,
    seconds_left=18500.0,
    has_model=True,
)
FAILED = LiveStatus(
    LiveState.FAILED,
    "press Train to go on",
    error="The GPU ran out of memory. Close other programs, choose a smaller tile in the settings, or use the CPU.",
    has_model=True,
)


def curve_points(n):
    return [CurvePoint(i, 0.4 * i, 0.9 * math.exp(-i / 200) + 0.1, 1 - 0.7 * math.exp(-i / 150)) for i in range(1, n)]


def dock(classes, status, n_points, *, unfolded=False):
    """The panels as the dock stacks them."""
    class_panel, paint_panel, train_panel = ClassPanel(), PaintPanel(), TrainPanel()
    class_panel.show_classes(classes, classes[1].class_id)
    paint_panel.show_slices(SLICES)
    paint_panel.show_plane(SLICES[1].plane)
    train_panel.show_status(status)
    train_panel.add_points(curve_points(n_points))
    paint_panel._section.set_unfolded(unfolded)
    train_panel._more.set_unfolded(unfolded)
    return stacked(class_panel, paint_panel, train_panel)


def forms():
    return stacked(*(ConfigForm(config()) for config in (ModelConfig, TrainingConfig, PredictionConfig)))


def stacked(*panels):
    widget = QWidget()
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
    layout.setSpacing(10)
    for panel in panels:
        layout.addWidget(panel)
    layout.addStretch(1)
    return widget


CASES = {
    "first_sight": lambda: dock(TWO, LiveStatus(), 0),
    "training": lambda: dock(TWO, BUSY, 800),
    "failed": lambda: dock(TWELVE, FAILED, 30, unfolded=True),
    "forms": forms,
}


@pytest.fixture(autouse=True)
def pointer_aside(qapp):
    QCursor.setPos(QApplication.primaryScreen().geometry().bottomRight())


@pytest.fixture(scope="module", params=["dark", "light"])
def theme(request, qapp):
    """A style sheet is long to parse; all tests of a theme share it."""
    before = get_qapp().styleSheet()  # napari's way of asking for it finds the theme's icons, too
    qapp.setStyleSheet(get_stylesheet(request.param))
    yield request.param
    qapp.setStyleSheet(before)


@pytest.fixture(params=sorted(CASES))
def shown(request, theme, qtbot):
    widget = CASES[request.param]()
    qtbot.addWidget(widget)
    widget.setFixedWidth(WIDTH)
    widget.show()
    qtbot.waitExposed(widget)
    widget.resize(WIDTH, max(700, widget.sizeHint().height()))
    QApplication.processEvents()
    if folder := os.environ.get("SPARSESEG_PICTURES"):
        widget.grab().save(str(Path(folder) / f"{request.param}_{theme}.png"))
    return widget


def test_no_text_is_cut_off_unless_it_is_elided(shown):
    for kind in (QPushButton, QCheckBox, QLabel):
        for widget in shown.findChildren(kind):
            if not widget.isVisible() or isinstance(widget, (ElidedLabel, MessageLabel)):
                continue
            assert widget.width() >= widget.fontMetrics().horizontalAdvance(widget.text()), widget.text()
            assert widget.height() >= widget.fontMetrics().ascent(), widget.text()


def test_nothing_sticks_out_and_nothing_overlaps(shown):
    for panel in shown.findChildren(QWidget):
        children = [c for c in panel.children() if isinstance(c, QWidget) and c.isVisible() and not c.isWindow()]
        if panel.layout() is None:
            continue
        for child in children:
            assert panel.rect().contains(child.geometry()), (panel, child)
        boxes = [child.geometry() for child in children if panel.layout().indexOf(child) >= 0]
        assert not [1 for i, a in enumerate(boxes) for b in boxes[:i] if a.intersects(b)], panel


def test_elided_text_is_in_the_tooltip(shown):
    for label in shown.findChildren(ElidedLabel):
        if label.isVisible() and label.fontMetrics().horizontalAdvance(label.text()) > label.width():
            assert label.text() in label.toolTip()


def test_every_role_of_text_stands_out_from_the_ground(theme, qtbot):
    label = ElidedLabel("text")
    qtbot.addWidget(label)
    label.show()
    ground = QColor("#23242b" if theme == "dark" else "#ebe7e6")
    for role in ("normal", "muted", "error", "good"):
        color = text_color(label, role)
        mixed = [color.alphaF() * a + (1 - color.alphaF()) * b for a, b in zip(rgb(color), rgb(ground), strict=True)]
        assert contrast(mixed, rgb(ground)) >= 4.5, role


def test_all_panels_leave_room_for_the_others_in_700_pixels(theme, qtbot):
    widget = dock(TWO, BUSY, 800)
    qtbot.addWidget(widget)
    widget.setFixedWidth(WIDTH)
    widget.show()
    qtbot.waitExposed(widget)
    assert widget.sizeHint().height() <= 490


def test_every_control_has_a_tooltip(shown):
    for button in shown.findChildren(QAbstractButton):
        if not button.objectName().startswith("qt_"):
            assert button.toolTip(), button


def rgb(color):
    return color.redF(), color.greenF(), color.blueF()


def contrast(a, b):
    """Ratio of luminances as the web's accessibility guide defines it; 4.5 is enough for small text."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
