"""Units of length as files spell them, and as UDUNITS (and so OME-Zarr) names them."""

from __future__ import annotations

from collections.abc import Sequence

_METRES = {
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
}
_SYMBOLS = {
    "å": "angstrom",
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",
    "μm": "micrometer",  # the Greek letter, as some programs write it, not the micro sign
    "\\u00b5m": "micrometer",  # ImageJ escapes what is not ASCII
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}

Steps = tuple[float | None, ...]


def unit_name(text: object) -> str | None:
    """UDUNITS name of a unit of length in any usual spelling; None for pixels, inches and what is not known."""
    if not isinstance(text, str):
        return None
    word = text.strip().lower().replace("metre", "meter")
    for spelling in (word, word.removesuffix("s")):
        if spelling in _METRES:
            return spelling
        if spelling in _SYMBOLS:
            return _SYMBOLS[spelling]
    return None


def factor(unit: str, target: str) -> float | None:
    """Number by which lengths in `unit` become lengths in `target`; None if that is not known."""
    if unit == target:
        return 1.0
    if unit not in _METRES or target not in _METRES:
        return None
    # divided as integers' powers would be: 1e-6 / 1e-3 alone is not exactly 1e-3
    return float(f"{_METRES[unit] / _METRES[target]:.12g}")


def in_one_unit(steps: Steps, units: Sequence[str | None]) -> tuple[Steps, str | None]:
    """Steps of several axes in the unit of the last axis that has one; None where that is not possible."""
    target = next((unit for unit in reversed(units) if unit), None)
    return tuple(_converted(step, unit, target) for step, unit in zip(steps, units, strict=True)), target


def in_last_unit(lengths: Sequence[float], units: Sequence[str]) -> tuple[float, ...]:
    """Lengths along several axes in the unit of the last one; where the factor is not known they stay as they are."""
    *_, last = names = [unit_name(unit) or unit for unit in units]
    return tuple(length * (factor(name, last) or 1.0) for length, name in zip(lengths, names, strict=True))


def _converted(step: float | None, unit: str | None, target: str | None) -> float | None:
    if step is None or unit is None or target is None:
        return step
    scale = factor(unit, target)
    return None if scale is None else step * scale
