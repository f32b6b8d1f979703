"""The classes that can be painted: ids, names, colours, and which one is the background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import dist

from napari_sparseseg._types import MAX_CLASSES
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.errors import InputError
from napari_sparseseg.live.events import ClassInfo, Color

# Okabe & Ito's colours, which differ for colour-blind people as well (jfly.uni-koeln.de/color); the background's first
_BACKGROUND: Color = (0.45, 0.45, 0.5)
_COLORS: tuple[Color, ...] = (
    (0.9, 0.6, 0.0),
    (0.35, 0.7, 0.9),
    (0.0, 0.6, 0.5),
    (0.95, 0.9, 0.25),
    (0.8, 0.4, 0.0),
    (0.8, 0.6, 0.7),
    (0.0, 0.45, 0.7),
    (0.6, 0.85, 0.4),
)
_LEVELS = (0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0)
_MORE_COLORS: tuple[Color, ...] = tuple(
    (r, g, b)
    for r, g, b in product(_LEVELS, repeat=3)
    if max(r, g, b) >= 0.5  # not too dark
)
_BLACK: Color = (0.0, 0.0, 0.0)
_FEWEST = 2


class ClassList:
    """Classes in the order of their ids. One thread may change them while others read."""

    def __init__(self) -> None:
        # replaced as a whole, never changed: others may be reading
        self._classes = {
            1: ClassInfo(1, "background", _BACKGROUND, is_background=True),
            2: ClassInfo(2, "object", _COLORS[0]),
        }
        self._highest = 2

    @property
    def all(self) -> tuple[ClassInfo, ...]:
        classes = self._classes
        return tuple(classes[class_id] for class_id in sorted(classes))

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._classes))

    @property
    def highest(self) -> int:
        """The highest id that a class ever had: older paint and models know those that were removed."""
        return self._highest

    @property
    def background(self) -> int | None:
        """Id of the class in the background role, None if that class was removed."""
        return next((info.class_id for info in self.all if info.is_background), None)

    def learnable(self, painted: Iterable[int], painting: PaintConfig) -> tuple[int, ...]:
        """Those of the painted classes that can be learnt, ascending; none if they are too few.

        Two are needed. Where unpainted voxels say something they stand for the background, and any other will do.
        """
        found = {class_id for class_id in painted if class_id in self._classes}
        background = self.background
        if painting.learns_unlabelled:
            if background is None:
                return ()
            found.add(background)
        return tuple(sorted(found)) if len(found) >= _FEWEST else ()

    def __contains__(self, class_id: int) -> bool:
        return class_id in self._classes

    def add(self, name: str | None = None, color: Color | None = None, class_id: int | None = None) -> ClassInfo:
        """Add a class under the given id, or one that none has had; a name is refused as by `rename`.

        Where no such id is left it is the lowest free one.
        """
        ids = (self._highest + 1, *range(1, MAX_CLASSES + 1))
        wanted = class_id or next((i for i in ids if i <= MAX_CLASSES and i not in self._classes), None)
        if wanted is None or not 1 <= wanted <= MAX_CLASSES:
            raise InputError(f"there can be at most {MAX_CLASSES} classes, with ids from 1 on; remove one first")
        called = f"class {wanted}" if name is None else self._checked(wanted, name)
        info = ClassInfo(wanted, called, color or self._free_color(wanted))
        self._classes = {**self._classes, wanted: info}
        self._highest = max(self._highest, wanted)
        return info

    def add_missing(self, class_ids: Iterable[int]) -> None:
        """Add those of the given ids that no class has."""
        for class_id in class_ids:
            if class_id not in self._classes:
                self.add(class_id=class_id)

    def _free_color(self, class_id: int) -> Color:
        """A colour that no class has: the next of the list, or the one that is least like those of all classes."""
        first, taken = (class_id - 2) % len(_COLORS), {info.color for info in self.all}
        free = [color for color in (*_COLORS[first:], *_COLORS[:first]) if color not in taken]
        if free:
            return free[0]
        others = (_BLACK, *_COLORS, *taken)  # one of the list may yet be that of a class again
        return max(_MORE_COLORS, key=lambda color: min(dist(color, other) for other in others))

    def bring_back(self, class_id: int, info: ClassInfo | None) -> None:
        """Add a class that was removed as it was, as far as that is known and no other has its name or role."""
        if info is None or not info.name.strip() or any(other.name == info.name for other in self.all):
            self.add(color=info.color if info else None, class_id=class_id)
        else:
            self.add(info.name, info.color, class_id)
        if info is not None and info.is_background and self.background is None:
            self.set_background(class_id)

    def restore(self, infos: Iterable[ClassInfo], highest: int = 0) -> None:
        """Have these classes instead, unless they are fewer than two; `highest` is the highest id that one had."""
        classes = {info.class_id: info for info in infos}
        if len(classes) >= _FEWEST:
            self._classes = classes
        self._highest = max(highest, *self._classes)

    def rename(self, class_id: int, name: str) -> None:
        """Raises `InputError` for an empty name and for one that another class has."""
        self._change(class_id, name=self._checked(class_id, name))

    def recolor(self, class_id: int, color: Color) -> None:
        self._change(class_id, color=color)

    def set_background(self, class_id: int) -> None:
        """Give the background role to one class, and take it from the others."""
        self._check(class_id)
        self._classes = {i: replace(info, is_background=i == class_id) for i, info in self._classes.items()}

    def remove(self, class_id: int) -> None:
        """Raises `InputError` where fewer than two classes would be left."""
        self._check(class_id)
        if len(self._classes) <= _FEWEST:
            raise InputError(f"class {class_id} cannot be removed: two classes are needed; add another first")
        self._classes = {i: info for i, info in self._classes.items() if i != class_id}

    def _checked(self, class_id: int, name: str) -> str:
        cleaned = name.strip()
        if not cleaned:
            raise InputError(f"class {class_id} needs a name; type at least one letter")
        if any(info.name == cleaned and info.class_id != class_id for info in self.all):
            raise InputError(f"there is a class {cleaned!r} already; choose another name")
        return cleaned

    def _change(self, class_id: int, **changes: object) -> None:
        self._check(class_id)
        changed = replace(self._classes[class_id], **changes)  # type: ignore[arg-type]
        self._classes = {**self._classes, class_id: changed}

    def _check(self, class_id: int) -> None:
        if class_id not in self._classes:
            raise InputError(f"there is no class {class_id}; the classes are {', '.join(map(str, self.ids))}")
