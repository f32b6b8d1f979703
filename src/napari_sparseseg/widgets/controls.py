"""Small pieces that the panels share: elided labels, buttons, foldable sections, theme colours."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QPointF, QRect, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget
from typing_extensions import override

from napari_sparseseg.widgets.icons import draw_glyph, glyph_icon

SPACING = 4
"""Pixels between the lines of a panel."""

_SIDES = {
    "left": Qt.AlignmentFlag.AlignLeft,
    "center": Qt.AlignmentFlag.AlignHCenter,
    "right": Qt.AlignmentFlag.AlignRight,
}


def is_dark(widget: QWidget) -> bool:
    """Whether the widget has light text, as in napari's dark theme."""
    return widget.palette().color(QPalette.ColorRole.WindowText).lightnessF() > 0.5


def text_color(widget: QWidget, role: str = "normal") -> QColor:
    """Colour of text in the widget's theme; `role` is normal, muted, error or good."""
    if role == "error":
        return QColor("#ff9a8c" if is_dark(widget) else "#b3261e")
    if role == "good":
        return QColor("#7fd18b" if is_dark(widget) else "#1a6e2e")
    color = QColor(widget.palette().color(QPalette.ColorRole.WindowText))
    if role == "muted":
        color.setAlphaF(0.66)
    return color


def caption(text: str, tooltip: str = "") -> QLabel:
    """A short label in front of a control, flush with what is above and below it."""
    label = QLabel(text)
    label.setIndent(0)
    label.setToolTip(tooltip)
    return label


class ElidedLabel(QLabel):
    """One line of text of fixed height; what does not fit is elided, and the tooltip has all of it."""

    def __init__(self, text: str = "", *, role: str = "normal", side: str = "left", width: int | None = None) -> None:
        super().__init__(text)
        self._role = role
        self._hint = ""
        self.setAlignment(_SIDES[side] | Qt.AlignmentFlag.AlignVCenter)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        if width is not None:
            # A layout gives an ignored policy no room at all beside a stretch.
            self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            self.setFixedWidth(width)

    def show_text(self, text: str, hint: str = "") -> None:
        """Set text and tooltip (the text itself without a hint); cheap if nothing changes."""
        if text != self.text():
            self.setText(text)
        if (hint or text) != self._hint:
            self._hint = hint or text
            self.setToolTip(self._hint)

    def set_role(self, role: str) -> None:
        """Draw as normal, muted, error or good text."""
        if role != self._role:
            self._role = role
            self.update()

    @override
    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 2, self.fontMetrics().height() + 2)

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(0, self.sizeHint().height())

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        color = text_color(self, self._role)
        color.setAlphaF(color.alphaF() * (1.0 if self.isEnabled() else 0.5))
        painter.setPen(color)
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, self.width())
        painter.drawText(self.rect(), int(self.alignment()), text)
        painter.end()


class MessageLabel(QLabel):
    """Text over several lines; what does not fit into the height is elided, and the tooltip has all of it."""

    def __init__(self, text: str = "", *, role: str = "normal") -> None:
        super().__init__(text)
        self._role = role
        self.setWordWrap(True)

    def show_text(self, text: str) -> None:
        """Set the text; cheap if nothing changes."""
        if text != self.text():
            self.setText(text)
            self.setToolTip(text)

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setPen(text_color(self, self._role))
        painter.drawText(self.rect(), _WRAPPED, self._fitting())
        painter.end()

    def _fitting(self) -> str:
        words = self.text().split(" ")
        text = self.text()
        while len(words) > 1 and self._height_of(text) > self.height() + 2:
            words.pop()
            text = " ".join(words) + " …"
        return text

    def _height_of(self, text: str) -> int:
        return self.fontMetrics().boundingRect(QRect(0, 0, max(1, self.width()), 10000), _WRAPPED, text).height()


_WRAPPED = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop) | int(Qt.TextFlag.TextWordWrap)


class IconButton(QToolButton):
    """A small square button with one of the drawn icons."""

    def __init__(self, glyph: str, tooltip: str, *, size: int = 22) -> None:
        super().__init__()
        self._glyph = glyph
        self.setFixedSize(size, size)
        self.setToolTip(tooltip)
        self.setAccessibleName(tooltip)
        self.setAutoRaise(True)

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = text_color(self)
        if self.isEnabled() and (self.underMouse() or self.hasFocus()):
            back = QColor(color)
            back.setAlphaF(0.22 if self.isDown() else 0.12)
            painter.setBrush(back)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawRoundedRect(QRectF(self.rect()), 3, 3)
        color.setAlphaF(0.85 if self.isEnabled() else 0.3)
        center = QPointF(self.width() / 2, self.height() / 2)
        draw_glyph(painter, self._glyph, QRectF(center.x() - 7, center.y() - 7, 14, 14), color)
        painter.end()


class GlyphButton(QPushButton):
    """A push button with text and a drawn icon that follows the theme."""

    def __init__(self, text: str, glyph: str) -> None:
        super().__init__(text)
        self._glyph = glyph
        self._draw()

    def show_face(self, text: str, glyph: str) -> None:
        """Change text and icon; cheap if nothing changes."""
        if text != self.text():
            self.setText(text)
        if glyph != self._glyph:
            self._glyph = glyph
            self._draw()

    @override
    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        changed = (QEvent.Type.StyleChange, QEvent.Type.PaletteChange, QEvent.Type.EnabledChange)
        if event is not None and event.type() in changed:
            self._draw()

    def _draw(self) -> None:
        color = text_color(self)
        color.setAlphaF(1.0 if self.isEnabled() else 0.4)
        self.setIcon(glyph_icon(self._glyph, color))


class Section(QWidget):
    """A heading that unfolds what is below it; folded at first. `beside` stands at its right, folded or not.

    Not superqt's QCollapsible: that only shrinks its content, so that the Tab key walks through invisible controls,
    and draws its arrow once, in the colour of the theme that it was made in.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, tooltip: str, *, unfolded: bool = False, beside: QWidget | None = None) -> None:
        super().__init__()
        self._button = GlyphButton(title, "unfolded" if unfolded else "folded")
        self._button.setCheckable(True)
        self._button.setToolTip(tooltip)
        self._button.setCursor(Qt.CursorShape.PointingHandCursor)
        self._button.setStyleSheet("text-align: left; background: transparent; border: none; padding: 2px 0px;")
        self._content = QWidget()
        self.body = QVBoxLayout(self._content)
        self.body.setContentsMargins(18, 2, 0, 4)
        self.body.setSpacing(SPACING)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(row(self._button, None, beside) if beside else row(self._button))
        layout.addWidget(self._content)
        self._content.setVisible(unfolded)
        self._button.setChecked(unfolded)
        self._button.toggled.connect(self._on_button_toggled)

    def show_title(self, title: str) -> None:
        """Change the heading."""
        if title != self._button.text():
            self._button.setText(title)

    @property
    def is_unfolded(self) -> bool:
        return self._button.isChecked()

    def set_unfolded(self, unfolded: bool) -> None:
        """Fold or unfold."""
        self._button.setChecked(unfolded)

    def _on_button_toggled(self, unfolded: bool) -> None:
        self._button.show_face(self._button.text(), "unfolded" if unfolded else "folded")
        self._content.setVisible(unfolded)
        self.toggled.emit(unfolded)


def row(*widgets: QWidget | None, spacing: int = 6) -> QHBoxLayout:
    """Widgets side by side without margins; None stretches."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        if widget is None:
            layout.addStretch(1)
        else:
            layout.addWidget(widget)
    return layout


def count_text(number: int) -> str:
    """A count with narrow spaces between thousands: 1 532."""
    return f"{number:,}".replace(",", "\u202f")


def equal_row(*buttons: QPushButton) -> QHBoxLayout:
    """Buttons of one width, side by side."""
    for button in buttons:
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        button.setMinimumWidth(0)
    layout = row(*buttons)
    for index in range(len(buttons)):
        layout.setStretch(index, 1)
    return layout
