"""Names of axes: checked, guessed where a file does not say, and put into the order that we read."""

from __future__ import annotations

from pathlib import Path

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.volume import FEW_CHANNELS

UNKNOWN = "?"
_LETTERS = "TCZYX"
_HOW = 'say which is which, one letter of T, C, Z, Y, X for each, e.g. with axes="CZYX" (--axes CZYX for commands)'


def named_axes(axes: str, shape: tuple[int, ...], wanted: str | None, path: Path | str) -> str:
    """Letter of each array axis: `wanted` if given, else those of the file with its unknown ones guessed.

    Raises `InputError` if `wanted` does not fit the shape, or if there is more than one way to guess.
    """
    if wanted is not None:
        return _checked(wanted, shape, path)
    guessed = _guessed(axes, shape)
    if guessed is None:
        known = "" if set(axes) == {UNKNOWN} else f" (known: {axes})"
        raise InputError(
            f"{path} has {len(shape)} axes of sizes {shape}, and does not say what they are{known}; {_HOW}"
        )
    return _checked(guessed, shape, path)


def reading_order(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Array axes in the order in which we read: as they are, but z, y, x among themselves, without a single T."""
    places = [i for i, letter in enumerate(axes) if letter in "ZYX"]
    spatial = iter(sorted(places, key=lambda i: "ZYX".index(axes[i])))
    order = [next(spatial) if i in places else i for i in range(len(axes))]
    return tuple(i for i in order if not (axes[i] == "T" and shape[i] == 1))


def _guessed(axes: str, shape: tuple[int, ...]) -> str | None:
    unknown = [i for i, letter in enumerate(axes) if letter == UNKNOWN]
    free = "".join(letter for letter in "ZYX" if letter not in axes)
    if len(unknown) == 2 and free == "ZYX":
        free = "YX"
    if len(unknown) == len(free) + 1 and "C" not in axes:
        few = [i for i in unknown if shape[i] <= FEW_CHANNELS]
        if len(few) != 1:
            return None
        place = unknown.index(few[0])
        free = f"{free[:place]}C{free[place:]}"
    if not unknown:
        return axes
    if len(unknown) != len(free):
        return None
    letters = iter(free)
    return "".join(next(letters) if letter == UNKNOWN else letter for letter in axes)


def _checked(axes: str, shape: tuple[int, ...], path: Path | str) -> str:
    letters = str(axes).upper()
    sizes = f"{path} has {len(shape)} axes of sizes {shape}"
    if not letters or set(letters) - set(_LETTERS) or len(set(letters)) < len(letters):
        raise InputError(f"axes {axes!r} are not usable; {sizes}: {_HOW}")
    if len(letters) != len(shape):
        raise InputError(f"axes {axes!r} name {len(letters)} axes, but {sizes}; {_HOW}")
    if not {"Y", "X"} <= set(letters):
        raise InputError(f"axes {axes!r} lack Y or X, without which it is no image; {sizes}: {_HOW}")
    return letters
