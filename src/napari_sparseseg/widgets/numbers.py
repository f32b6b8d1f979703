"""NumberField: a spin box that steps as the number's size asks for, and explains what it does not take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QValidator, QWheelEvent
from qtpy.QtWidgets import QDoubleSpinBox
from typing_extensions import override

_TYPED = set("0123456789.,eE+- ")
_LARGEST = float(2**31 - 1)


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest value of a setting, None without; `open_` if the bound itself is excluded."""

    low: float | None
    high: float | None
    open_low: bool
    open_high: bool
    is_int: bool

    @classmethod
    def of(cls, info: FieldInfo) -> Bounds:
        """The bounds that a config's field declares."""
        found: dict[str, float] = {}
        for rule in info.metadata:
            for name in ("ge", "gt", "le", "lt"):
                if getattr(rule, name, None) is not None:
                    found[name] = float(getattr(rule, name))
        low, high = found.get("gt", found.get("ge")), found.get("lt", found.get("le"))
        return cls(low, high, "gt" in found, "lt" in found, info.annotation is int)

    def holds(self, value: float) -> bool:
        """Whether the value may be taken."""
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        if self.high is not None and (value > self.high or (self.open_high and value == self.high)):
            return False
        return math.isfinite(value) and (not self.is_int or value == int(value))

    @property
    def text(self) -> str:
        """In words: from 1 to 64; above 0, at most 1."""
        low = "" if self.low is None else ("above " if self.open_low else "at least ") + number_text(self.low)
        high = "" if self.high is None else ("below " if self.open_high else "at most ") + number_text(self.high)
        if low and high and not self.open_low and not self.open_high:
            words = f"from {number_text(self.low or 0)} to {number_text(self.high or 0)}"
        else:
            words = ", ".join(filter(None, (low, high)))
        return f"whole number {words}" if self.is_int else words


class NumberField(QDoubleSpinBox):
    """Whole numbers and decimals. Any number can be typed; one that is out of bounds is explained and not taken."""

    edited = Signal()
    """After the user has changed the value (Enter, focus elsewhere, a step)."""
    rejected = Signal(str)
    """Why the typed text was not taken."""

    def __init__(self, title: str, bounds: Bounds, default: float) -> None:
        super().__init__()
        self._title = title
        self._bounds = bounds
        self._steps = _Steps(bounds, default)
        self.setDecimals(0 if bounds.is_int else 12)
        self.setRange(-_LARGEST if bounds.low is None else bounds.low, _LARGEST if bounds.high is None else bounds.high)
        self.setKeyboardTracking(False)
        self.setCorrectionMode(QDoubleSpinBox.CorrectionMode.CorrectToPreviousValue)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.valueChanged.connect(lambda: self.edited.emit())

    def show_value(self, value: float) -> None:
        """Show a value; emits nothing."""
        blocked = self.blockSignals(True)
        self.setValue(value)
        self.blockSignals(blocked)

    def read_value(self) -> float | int:
        """The value, as int where the setting is one."""
        return int(self.value()) if self._bounds.is_int else self.value()

    @override
    def stepBy(self, steps: int) -> None:
        value = self.value()
        for _ in range(abs(steps)):
            value = self._steps.after(value) if steps > 0 else self._steps.before(value)
        if self._bounds.holds(value):
            self.setValue(value)
            self.selectAll()

    @override
    def textFromValue(self, value: float) -> str:
        return number_text(int(value) if self._bounds.is_int else value)

    @override
    def valueFromText(self, text: str | None) -> float:
        number = _parsed(text or "")
        return self.value() if number is None else number

    @override
    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        typed = text or ""
        number = _parsed(typed)
        if number is not None and self._bounds.holds(number):
            return QValidator.State.Acceptable, typed, position
        state = QValidator.State.Intermediate if set(typed) <= _TYPED else QValidator.State.Invalid
        return state, typed, position

    @override
    def fixup(self, text: str | None) -> str:
        typed = (text or "").strip()
        what = f"“{typed}” was not taken" if typed else "nothing was changed"
        self.rejected.emit(f"{self._title}: {self._bounds.text}; {what}.")
        return text or ""

    @override
    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is not None:
            event.ignore()  # scrolling the dock must not change settings


class _Steps:
    """The next larger and smaller value that somebody who turns a setting up or down is likely to want.

    Voxel counts double; small rates go 1, 2, 5, 10 through the decades, and so does the distance to 1 of a memory
    such as 0.999; shares go in twentieths.
    """

    def __init__(self, bounds: Bounds, default: float) -> None:
        self._bounds = bounds
        high = math.inf if bounds.high is None else bounds.high
        self._default = default
        if bounds.is_int:
            self._kind = "double" if default >= 512 and math.log2(default).is_integer() else "count"
        elif high == 1 and default > 0.9:
            self._kind = "memory"
        elif 0 < default <= high / 50 and default < 0.1:
            self._kind = "rate"
        else:
            self._kind = "share" if high <= 10 else "count"

    def after(self, value: float) -> float:
        return self._clipped(self._moved(value, up=True))

    def before(self, value: float) -> float:
        return self._clipped(self._moved(value, up=False))

    def _moved(self, value: float, *, up: bool) -> float:
        if self._kind == "double":
            return value * 2 if up else value // 2
        if self._kind == "memory":
            return 1 - _in_series(1 - value, up=not up)
        if self._kind == "rate":
            smallest = self._default / 1000
            if value < smallest:
                return smallest if up else 0.0
            return _in_series(value, up=up)
        step = 0.05 if self._kind == "share" else 10.0 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
        return round(value + (step if up else -step), 12)

    def _clipped(self, value: float) -> float:
        """Within the bounds; a bound that is excluded itself is not reached."""
        low, high = self._bounds.low, self._bounds.high
        if low is not None and not self._bounds.open_low:
            value = max(value, low)
        if high is not None and not self._bounds.open_high:
            value = min(value, high)
        return value


def number_text(number: float) -> str:
    """A number as short as it can be read: 0.003, 65536, 1e-5."""
    if float(number).is_integer() and abs(number) < 1e12:
        return str(int(number))
    return f"{number:.6g}".replace("e-0", "e-").replace("e+0", "e")


def _in_series(value: float, *, up: bool) -> float:
    """The neighbour of a positive value in ... 0.1, 0.2, 0.5, 1, 2, 5, ..."""
    exponent = math.floor(math.log10(value))
    series = [f * 10.0**e for e in range(exponent - 1, exponent + 2) for f in (1, 2, 5)]
    if up:
        return round(min(s for s in series if s > value * (1 + 1e-6)), 15)
    return round(max(s for s in series if s < value * (1 - 1e-6)), 15)


def _parsed(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None
