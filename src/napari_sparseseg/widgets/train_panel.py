"""TrainPanel: start and pause, what the network is doing, and how well."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from napari_sparseseg.live.events import CurvePoint, LiveState, LiveStatus
from napari_sparseseg.progress import duration
from napari_sparseseg.widgets.controls import (
    SPACING,
    ElidedLabel,
    GlyphButton,
    MessageLabel,
    Section,
    count_text,
    row,
    text_color,
)
from napari_sparseseg.widgets.curve import LearningCurve

_BUSY = (LiveState.PREPARING, LiveState.TRAINING, LiveState.PREDICTING)
_TRAIN_TIP = "Learn from what you painted, and go on while you paint."
_PAUSE_TIP = "Stop learning; what was learnt stays."
_ONCE_TIP = "Learn what was painted in a short burst, predict everything once, then rest."
_NO_IMAGE_TIP = "Open an image first."


class TrainPanel(QWidget):
    """Shows the live status and says what the user wishes; it changes only by its `show_` methods."""

    start_requested = Signal()
    pause_requested = Signal()
    update_requested = Signal()
    live_toggled = Signal(bool)
    auto_start_toggled = Signal(bool)
    reset_requested = Signal()
    """Forget what was learnt; whoever listens asks first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._status = LiveStatus()
        self._auto_start = True
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(self._build_buttons())
        layout.addWidget(self._build_state())
        layout.addWidget(self._build_figures())
        self.curve = LearningCurve()
        layout.addWidget(self.curve)
        layout.addWidget(self._build_more())
        self._connect()
        self._show_all(self._status)

    # --- what it shows ---

    def show_status(self, status: LiveStatus) -> None:
        """Show a snapshot; cheap enough for twenty a second."""
        if status != self._status:
            self._status = status
            self._show_all(status)

    def show_auto_start(self, wanted: bool) -> None:
        """Show whether training starts by itself."""
        self._auto_start = wanted
        self._auto.setChecked(wanted)

    def add_points(self, points: Sequence[CurvePoint]) -> None:
        """Extend the curve."""
        self.curve.add(points)

    def clear_curve(self) -> None:
        """Empty the curve."""
        self.curve.clear()

    def _show_all(self, status: LiveStatus) -> None:
        self._show_buttons(status)
        self._state.show_status(status)
        self._pages.setCurrentIndex(1 if status.error else 0)
        self._error.show_text(status.error)
        self._figures.show_status(status)

    def _show_buttons(self, status: LiveStatus) -> None:
        has_image = status.state is not LiveState.NO_IMAGE
        self._train.show_face(*(("Pause", "pause") if status.is_training else ("Train", "play")))
        tip = _PAUSE_TIP if status.is_training else _TRAIN_TIP
        for button, text in ((self._train, tip), (self._once, _ONCE_TIP)):
            _enable(button, has_image, text if has_image else _NO_IMAGE_TIP)
        tip = "Forget what was learnt and start anew; the paint stays."
        _enable(self._reset, status.has_model, tip if status.has_model else "Nothing has been learnt yet.")
        if self._live.isChecked() != status.is_live:
            self._live.setChecked(status.is_live)

    # --- building ---

    def _build_buttons(self) -> QHBoxLayout:
        self._train = GlyphButton("Train", "play")
        self._train.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._once = QPushButton("Update once")
        self._live = QCheckBox("Live")
        self._live.setToolTip("Live prediction: keep the prediction up to date while training.")
        self._live.setAccessibleName("Live prediction")
        for button in (self._train, self._once):
            button.setFixedHeight(28)
        return row(self._train, self._once, self._live)

    def _build_state(self) -> QWidget:
        self._state = _StateLine()
        return self._state

    def _build_figures(self) -> QWidget:
        """Figures, and in their place the error when there is one: nothing below moves."""
        self._figures = _Figures()
        self._error = MessageLabel(role="error")
        self._pages = QStackedWidget()
        self._pages.addWidget(self._figures)
        self._pages.addWidget(self._error)
        self._pages.setFixedHeight(3 * self._error.fontMetrics().height() + 6)
        return self._pages

    def _build_more(self) -> QWidget:
        self._more = Section("More", "Starting by itself, and starting anew.")
        self._auto = QCheckBox("Start by itself")
        self._auto.setChecked(True)
        self._auto.setToolTip("Start training as soon as two classes are painted.")
        self._reset = QPushButton("Reset model")
        self._more.body.addLayout(row(self._auto, None, self._reset))
        return self._more

    def _connect(self) -> None:
        self._train.clicked.connect(self._on_train_clicked)
        self._once.clicked.connect(lambda: self.update_requested.emit())
        self._live.clicked.connect(self._on_live_clicked)
        self._auto.clicked.connect(self._on_auto_clicked)
        self._reset.clicked.connect(lambda: self.reset_requested.emit())

    # --- wishes ---

    def _on_train_clicked(self) -> None:
        if self._status.is_training:
            self.pause_requested.emit()
        else:
            self.start_requested.emit()

    def _on_live_clicked(self, wished: bool) -> None:
        self._live.setChecked(self._status.is_live)  # it changes with the status
        self.live_toggled.emit(wished)

    def _on_auto_clicked(self, wished: bool) -> None:
        self._auto.setChecked(self._auto_start)
        self.auto_start_toggled.emit(wished)


class _StateLine(QWidget):
    """A dot, the state, and what it is doing."""

    def __init__(self) -> None:
        super().__init__()
        self._dot = _Dot()
        self._text = ElidedLabel()
        layout = row(self._dot, self._text, spacing=4)
        layout.setStretch(1, 1)
        self.setLayout(layout)

    def show_status(self, status: LiveStatus) -> None:
        """Show state and activity."""
        self._text.show_text(_state_text(status))
        self._text.set_role("error" if status.state is LiveState.FAILED else "normal")
        self._dot.show_state(status.state)


class _Dot(QWidget):
    """Green while it computes or all is done, red after an error, else grey."""

    def __init__(self) -> None:
        super().__init__()
        self._role = "muted"
        self.setFixedSize(12, 16)

    def show_state(self, state: LiveState) -> None:
        """Take the colour of the state."""
        role = "error" if state is LiveState.FAILED else "good" if state in _BUSY else "muted"
        if role != self._role:
            self._role = role
            self.update()

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(text_color(self, self._role))
        painter.drawEllipse(QRectF(1, self.height() / 2 - 4, 8, 8))
        painter.end()


class _Figures(QWidget):
    """Dice, speed and device; how much of the prediction is fresh, and when all of it will be."""

    def __init__(self) -> None:
        super().__init__()
        self._quality = ElidedLabel()
        self._device = ElidedLabel(role="muted", side="right")
        self._bar = _Bar()
        self._tiles = ElidedLabel(role="muted")
        self._left = ElidedLabel(role="muted", side="right")
        top, bottom = row(self._quality, self._device), row(self._tiles, self._left)
        for line, share in ((top, 6), (bottom, 3)):
            line.setStretch(0, share)
            line.setStretch(1, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(top)
        layout.addWidget(self._bar)
        layout.addLayout(bottom)

    def show_status(self, status: LiveStatus) -> None:
        """Show the figures of a snapshot."""
        speed = f"{status.steps_per_second:.1f} steps/s" if status.steps_per_second > 0 else ""
        name = "Stroke Dice" if status.is_dice_of_strokes else "Dice"
        dice = f"{name} ~{status.dice:.2f}" if status.dice is not None else "Dice not known"
        steps = f"Step {count_text(status.step)}."
        source = status.dice_source or "Agreement of the prediction with your paint, 0 to 1; not known yet."
        self._quality.show_text(" · ".join(filter(None, (dice, speed))), f"{source}\n{steps}")
        device = _device_text(status.device)
        self._device.show_text(device, "\n".join(filter(None, (device, status.device_reason))))
        share = status.n_fresh / status.n_tiles if status.n_tiles else 0.0
        self._bar.show_share(share)
        self._tiles.show_text(_tiles_text(status.n_fresh, status.n_tiles), _TILES_TIP)
        left = f"{duration(status.seconds_left)} left" if status.seconds_left else ""
        self._left.show_text(left, "Until every tile shows the latest paint and weights.")


_TILES_TIP = "Tiles are the blocks that are predicted at once. Fresh ones show your latest paint; others are older."


class _Bar(QWidget):
    """A slim progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._share = 0.0
        self.setFixedHeight(5)
        self.setToolTip(_TILES_TIP)

    def show_share(self, share: float) -> None:
        """Fill this share, 0..1, of the bar."""
        if share != self._share:
            self._share = share
            self.update()

    @override
    def sizeHint(self) -> QSize:
        return QSize(100, 5)

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        ground = QColor(text_color(self))
        ground.setAlphaF(0.15)
        painter.setBrush(ground)
        painter.drawRoundedRect(QRectF(0, 0, self.width(), 4), 2, 2)
        if self._share > 0:
            painter.setBrush(text_color(self, "good"))
            painter.drawRoundedRect(QRectF(0, 0, max(4.0, self._share * self.width()), 4), 2, 2)
        painter.end()


def _state_text(status: LiveStatus) -> str:
    """State and activity, or the activity alone where it begins with the state."""
    state = status.state.value.capitalize()
    if status.activity.startswith(state):
        return status.activity
    return f"{state} · {status.activity}" if status.activity else state


def _tiles_text(n_fresh: int, n_tiles: int) -> str:
    if not n_tiles:
        return "No prediction yet"
    if n_tiles == 1:
        return f"{n_fresh} of 1 tile fresh"
    if n_fresh >= n_tiles:
        return f"All {count_text(n_tiles)} tiles fresh"
    return f"{count_text(n_fresh)} of {count_text(n_tiles)} tiles fresh"


def _device_text(device: str) -> str:
    """A name as it is; torch's short words, such as cpu and cuda:0, in capitals."""
    return device.upper() if device.partition(":")[0] in ("cpu", "cuda", "mps", "xpu") else device


def _enable(button: QPushButton, enabled: bool, tooltip: str) -> None:
    if button.isEnabled() != enabled:
        button.setEnabled(enabled)
    if button.toolTip() != tooltip:
        button.setToolTip(tooltip)
