"""LearningCurve: loss and Dice while the network learns, painted with QPainter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import (
    QColor,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
)
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget
from typing_extensions import override

from napari_sparseseg.live.events import CurvePoint
from napari_sparseseg.progress import duration
from napari_sparseseg.widgets.controls import count_text, is_dark, text_color

REPAINT_MS = 200
_LEAST_TOP = 0.01  # of the axis of the loss: below, the curve is flat, and the numbers would be long
_MARGINS = (40, 16, 26, 15)  # left, top, right, bottom: room for the numbers and the legend
_TIP = (
    "How well the network learns: loss should fall, Dice (of paint that was kept out of training) rise. "
    "A click changes between time and steps."
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Columns:
    """The curve as it is drawn: one entry for each column of pixels that has points."""

    x: Floats
    step: Floats
    seconds: Floats
    loss: Floats
    dice: Floats


class LearningCurve(QWidget):
    """Loss (left axis) and Dice (right axis) over time; a click changes to steps and back."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table: Floats = np.empty((4, 1024))
        self._count = 0
        self._over_time = True
        self._picture: QPixmap | None = None
        self._columns: _Columns | None = None
        self._mouse_x: float | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REPAINT_MS)
        self._timer.timeout.connect(self._redraw)
        self.setMouseTracking(True)
        self.setMinimumSize(120, 90)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setAccessibleName("Learning curve")
        self.setToolTip(_TIP)

    # --- what it shows ---

    @property
    def n_points(self) -> int:
        return self._count

    @property
    def is_over_time(self) -> bool:
        """Whether the horizontal axis is seconds instead of steps."""
        return self._over_time

    def add(self, points: Sequence[CurvePoint]) -> None:
        """Append points in the order of their steps; the picture follows within a fifth of a second."""
        if not points:
            return
        rows = [(p.step, p.seconds, p.loss, np.nan if p.dice is None else p.dice) for p in points]
        new = np.array(rows, np.float64).T
        end = self._count + new.shape[1]
        if end > self._table.shape[1]:
            room = np.empty((4, 2 * end))
            room[:, : self._count] = self._table[:, : self._count]
            self._table = room
        self._table[:, self._count : end] = new
        self._count = end
        if not self._timer.isActive():
            self._timer.start()

    def clear(self) -> None:
        """Forget all points."""
        self._count = 0
        self._redraw()

    # --- Qt ---

    @override
    def sizeHint(self) -> QSize:
        return QSize(300, 112)

    @override
    def resizeEvent(self, event: QResizeEvent | None) -> None:
        self._redraw()

    @override
    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            self._redraw()

    @override
    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        self._over_time = not self._over_time
        self._redraw()

    @override
    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        if event is None or self._columns is None:
            return
        self._mouse_x = event.position().x()
        text = self.text_at(self._mouse_x)
        self.setToolTip(text or _TIP)  # what Qt shows when the mouse rests
        if text:
            QToolTip.showText(event.globalPosition().toPoint(), text, self)
        self.update()

    @override
    def leaveEvent(self, event: QEvent | None) -> None:
        self._mouse_x = None
        self.setToolTip(_TIP)
        self.update()

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        if self._picture is None:
            self._picture = self._draw()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._picture)
        index = self._nearest(self._mouse_x)
        if index is not None and self._columns is not None:
            painter.setPen(QPen(text_color(self, "muted"), 1))
            x = float(self._columns.x[index])
            area = self._area()
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        painter.end()

    # --- reading it off ---

    def text_at(self, x: float) -> str:
        """What the curve says at a horizontal position of the widget, in pixels; empty without points."""
        index = self._nearest(x)
        if index is None or self._columns is None:
            return ""
        at = self._columns
        dice = at.dice[index]
        parts = [
            f"step {count_text(round(at.step[index]))}",
            duration(float(at.seconds[index])),
            f"loss {at.loss[index]:.3g}",
        ]
        return " · ".join(parts + ([] if np.isnan(dice) else [f"Dice ~{dice:.2f} (held out)"]))

    def _nearest(self, x: float | None) -> int | None:
        if x is None or self._columns is None or not len(self._columns.x):
            return None
        return int(np.abs(self._columns.x - x).argmin())

    # --- drawing ---

    def _redraw(self) -> None:
        self._picture = None
        self.update()

    def _area(self) -> QRectF:
        left, top, right, bottom = _MARGINS
        return QRectF(left, top, max(1, self.width() - left - right), max(1, self.height() - top - bottom))

    def _draw(self) -> QPixmap:
        ratio = self.devicePixelRatioF()
        picture = QPixmap(max(1, round(self.width() * ratio)), max(1, round(self.height() * ratio)))
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() * 0.85))
        painter.setFont(font)
        if self._count:
            self._draw_curves(painter)
        else:
            self._columns = None
            self._draw_empty(painter)
        painter.end()
        return picture

    def _draw_empty(self, painter: QPainter) -> None:
        frame = QColor(text_color(self))
        frame.setAlphaF(0.15)
        painter.setPen(QPen(frame, 1))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)
        painter.setPen(text_color(self, "muted"))
        painter.drawText(QRectF(self.rect()), Qt.AlignmentFlag.AlignCenter, "No steps yet")

    def _draw_curves(self, painter: QPainter) -> None:
        area = self._area()
        table = self._table[:, : self._count]
        # Never backwards, as a clock would that starts anew.
        across = np.maximum.accumulate(table[1] if self._over_time else table[0])
        self._columns = columns = _reduced(table, across, area.left(), area.width())
        finite = columns.loss[np.isfinite(columns.loss)]
        top = max(_LEAST_TOP, _round_up(float(np.percentile(finite, 98)) if len(finite) else 0.0))
        self._draw_frame(painter, area, top)
        self._draw_ends(painter, area, float(across[0]), float(across[-1]))
        colors = _line_colors(is_dark(self))
        for values, height, color in ((columns.loss, top, colors[0]), (columns.dice, 1.0, colors[1])):
            painter.setPen(QPen(color, 1.6))
            known = np.isfinite(values)
            y = area.bottom() - np.clip(values[known] / height, 0, 1) * area.height()
            _draw_line(painter, columns.x[known], y)

    def _draw_frame(self, painter: QPainter, area: QRectF, top: float) -> None:
        """Three lines across, loss at their left, Dice at their right, the legend above."""
        grid = QColor(text_color(self))
        grid.setAlphaF(0.13)
        colors = _line_colors(is_dark(self))
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - share * area.height()
            painter.setPen(QPen(grid, 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(colors[0])
            painter.drawText(QRectF(0, y - 8, area.left() - 4, 16), right, f"{share * top:.3g}")
            painter.setPen(colors[1])
            painter.drawText(QRectF(area.right() + 4, y - 8, 24, 16), left, f"{share:.3g}")
        painter.drawText(QRectF(area.left(), 0, area.width() + _MARGINS[2], 12), right, "Dice (held out)")
        painter.setPen(colors[0])
        painter.drawText(QRectF(0, 0, area.width(), 12), left, "Loss")

    def _draw_ends(self, painter: QPainter, area: QRectF, first: float, last: float) -> None:
        painter.setPen(text_color(self, "muted"))
        box = QRectF(area.left(), area.bottom() + 2, area.width(), 13)
        start = duration(first) if self._over_time else count_text(round(first))
        end = duration(last) if self._over_time else f"step {count_text(round(last))}"
        painter.drawText(box, Qt.AlignmentFlag.AlignLeft, start)
        painter.drawText(box, Qt.AlignmentFlag.AlignRight, end)


def _line_colors(dark: bool) -> tuple[QColor, QColor]:
    """Colours of loss and Dice: orange and blue, which colour-blind people tell apart."""
    return (QColor("#f0a35e"), QColor("#6fb7f2")) if dark else (QColor("#b45309"), QColor("#1d5fa8"))


def _reduced(table: Floats, across: Floats, left: float, width: float) -> _Columns:
    """The means of all points that fall into the same column of pixels."""
    span = max(float(across[-1] - across[0]), 1e-9)
    column = np.minimum((across - across[0]) / span * width, width - 1).astype(np.int64)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    counts = np.diff(starts, append=len(column))
    step, seconds, loss = (np.add.reduceat(values, starts) / counts for values in table[:3])
    known = np.isfinite(table[3])
    n_known = np.add.reduceat(known.astype(np.int64), starts)
    dice = np.add.reduceat(np.where(known, table[3], 0.0), starts) / np.maximum(n_known, 1)
    return _Columns(left + column[starts] + 0.5, step, seconds, loss, np.where(n_known > 0, dice, np.nan))


def _round_up(value: float) -> float:
    """The next number whose half is easily read, too."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    unit = float(10.0 ** np.floor(np.log10(value)))
    return next(
        factor * unit for factor in (1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0) if factor * unit >= value * 0.98
    )


def _draw_line(painter: QPainter, x: Any, y: Any) -> None:
    points = [QPointF(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    if len(points) == 1:
        painter.drawEllipse(points[0], 1.5, 1.5)
    elif points:
        painter.drawPolyline(QPolygonF(points))
