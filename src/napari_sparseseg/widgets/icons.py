"""Icons drawn in a square of 16 units, so that they follow the theme and need no files."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap


def _play(path: QPainterPath) -> None:
    path.moveTo(4, 2)
    path.lineTo(14, 8)
    path.lineTo(4, 14)
    path.closeSubpath()


def _pause(path: QPainterPath) -> None:
    path.addRect(QRectF(3, 2, 3.5, 12))
    path.addRect(QRectF(9.5, 2, 3.5, 12))


def _add(path: QPainterPath) -> None:
    path.moveTo(8, 3)
    path.lineTo(8, 13)
    path.moveTo(3, 8)
    path.lineTo(13, 8)


def _remove(path: QPainterPath) -> None:
    path.moveTo(4, 4)
    path.lineTo(12, 12)
    path.moveTo(12, 4)
    path.lineTo(4, 12)


def _undo(path: QPainterPath) -> None:
    path.moveTo(6, 2)
    path.lineTo(2.5, 5.5)
    path.lineTo(6, 9)
    path.moveTo(2.5, 5.5)
    path.lineTo(9.5, 5.5)
    path.arcTo(QRectF(5.5, 5.5, 8, 8), 90, -180)
    path.lineTo(6, 13.5)


def _redo(path: QPainterPath) -> None:
    path.moveTo(10, 2)
    path.lineTo(13.5, 5.5)
    path.lineTo(10, 9)
    path.moveTo(13.5, 5.5)
    path.lineTo(6.5, 5.5)
    path.arcTo(QRectF(2.5, 5.5, 8, 8), 90, 180)
    path.lineTo(10, 13.5)


def _folded(path: QPainterPath) -> None:
    path.moveTo(6, 3.5)
    path.lineTo(10.5, 8)
    path.lineTo(6, 12.5)


def _unfolded(path: QPainterPath) -> None:
    path.moveTo(3.5, 6)
    path.lineTo(8, 10.5)
    path.lineTo(12.5, 6)


def _check(path: QPainterPath) -> None:
    path.moveTo(3, 8.5)
    path.lineTo(6.5, 12)
    path.lineTo(13, 4.5)


_GLYPHS: dict[str, Callable[[QPainterPath], None]] = {
    "play": _play,
    "pause": _pause,
    "add": _add,
    "remove": _remove,
    "undo": _undo,
    "redo": _redo,
    "folded": _folded,
    "unfolded": _unfolded,
    "check": _check,
}
_FILLED = {"play", "pause"}


def draw_glyph(painter: QPainter, name: str, rect: QRectF, color: QColor) -> None:
    """Draw one of the icons into a square."""
    path = QPainterPath()
    _GLYPHS[name](path)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.translate(rect.topLeft())
    painter.scale(rect.width() / 16, rect.height() / 16)
    if name in _FILLED:
        painter.fillPath(path, color)
    else:
        pen = QPen(color, 1.6, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
        painter.strokePath(path, pen)
    painter.restore()


def glyph_icon(name: str, color: QColor, size: int = 12) -> QIcon:
    """An icon in a colour, sharp on screens of twice the density."""
    pixmap = QPixmap(2 * size, 2 * size)
    pixmap.setDevicePixelRatio(2.0)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    draw_glyph(painter, name, QRectF(0, 0, size, size), color)
    painter.end()
    return QIcon(pixmap)
