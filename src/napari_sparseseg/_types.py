"""Types that all layers of the package share: boxes of voxels, what can be read, what was painted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Extra = Literal["affinities", "candidates", "novelty"]
"""What a model may predict besides the classes."""

Shape3D = tuple[int, int, int]
Spacing = tuple[float, float, float]

UNPAINTED = 0
NO_OBJECT = 0
MAX_CLASSES = 127
MAX_CODE = 254


@dataclass(frozen=True, slots=True)
class Box:
    """A block of voxels `start <= index < stop` along z, y, x; it may reach beyond its volume."""

    start: Shape3D
    stop: Shape3D

    @classmethod
    def whole(cls, shape: Shape3D) -> Box:
        """The box that covers a volume of this shape."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Shape3D:
        """Size along z, y, x, in voxels."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def n_voxels(self) -> int:
        """How many voxels the box has."""
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of this box in an array; only for boxes that do not start below zero."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grown(self, margin: Shape3D) -> Box:
        """The box with `margin` more voxels on either side of each axis."""
        return Box(
            triple(a - m for a, m in zip(self.start, margin, strict=True)),
            triple(b + m for b, m in zip(self.stop, margin, strict=True)),
        )

    def clipped(self, limits: Box) -> Box:
        """The part of the box that lies within `limits`."""
        start = triple(max(a, b) for a, b in zip(self.start, limits.start, strict=True))
        stop = triple(min(a, b) for a, b in zip(self.stop, limits.stop, strict=True))
        return Box(start, triple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def shifted(self, offset: Shape3D) -> Box:
        """The box moved by `offset` voxels."""
        return Box(
            triple(a + o for a, o in zip(self.start, offset, strict=True)),
            triple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, origin: Shape3D) -> Box:
        """The same voxels, counted from `origin`."""
        z, y, x = origin
        return self.shifted((-z, -y, -x))


def triple(values: Iterable[int]) -> Shape3D:
    """Three numbers, along z, y, x."""
    z, y, x = values
    return z, y, x


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice of one time point: the plane at `index` across `axis` (0 z, 1 y, 2 x)."""

    frame: int
    axis: int
    index: int

    def box(self, shape: Shape3D) -> Box:
        """The plane's voxels in a volume of this shape, as a box that is one voxel thick."""
        start, stop = [0, 0, 0], list(shape)
        start[self.axis], stop[self.axis] = self.index, self.index + 1
        return Box(triple(start), triple(stop))


@dataclass(frozen=True, slots=True)
class Region:
    """Some voxels of one time point: a box within the volume, and which of its voxels (None: all of them)."""

    frame: int
    box: Box
    mask: npt.NDArray[np.bool_] | None = None


class ArrayLike(Protocol):
    """What can be read: a numpy, zarr or dask array, or anything that has these three."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Volume(Protocol):
    """Raw intensities that are read box by box, channels first."""

    @property
    def shape(self) -> Shape3D:
        """Size along z, y, x."""

    @property
    def n_channels(self) -> int:
        """How many channels there are."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Voxels of a box that lies within the volume, shape (channels, z, y, x), finite, native byte order."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What was said about a voxel where classes may overlap: which are present, and which are absent."""

    present: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()

    def completed(self, class_ids: Collection[int], background: int | None) -> Statement:
        """With what follows: the background excludes all other classes, and any other class the background.

        A class that is said to be both present and absent counts as present.
        """
        absent = self.absent
        if background in self.present:
            absent |= frozenset(i for i in class_ids if i != background)
        elif background is not None and background in class_ids and self.present:
            absent |= {background}
        return Statement(self.present, absent - self.present)


@dataclass(frozen=True, slots=True)
class Annotation:
    """What was painted in one volume: the painted voxels only, ordered by z.

    `coordinates` is (n, 3) int32 along z, y, x; `codes` (n,) unsigned, 1..254; `weights` (n,) float32, > 0.
    `allowed` maps a code to the class ids that it leaves possible; a code that is not in it is a class itself.
    `objects` (n,) int32 tells which object a voxel belongs to, 0 where nothing was said; None if no voxel has an id.
    `stated` maps a code to what it says about each class, where classes may overlap; such codes may go up to 65535.
    """

    shape: Shape3D
    coordinates: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    weights: npt.NDArray[np.float32]
    allowed: Mapping[int, frozenset[int]] = field(default_factory=dict)
    objects: npt.NDArray[np.int32] | None = None
    stated: Mapping[int, Statement] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.codes)

    def object_codes(self) -> list[int]:
        """Codes of the voxels that belong to an object, ascending."""
        return [] if self.objects is None else np.unique(self.codes[self.objects > 0]).tolist()

    def statement(self, code: int, class_ids: Collection[int], background: int = 0) -> Statement:
        """What a code says about overlapping classes, with what follows from it.

        A class says that it is present. A set leaves the classes that it names open, and says that others are absent.
        """
        if code in self.stated:
            said = self.stated[code]
        elif code in self.allowed:
            said = Statement(absent=frozenset(class_ids) - self.allowed[code])
        else:
            said = Statement(present=frozenset((code,)))
        return said.completed(class_ids, background)

    def classes(self) -> tuple[int, ...]:
        """Class ids that were painted, or named in a set of allowed classes or in a statement, ascending."""
        found: set[int] = set()
        for code in np.unique(self.codes).tolist():
            if code in self.stated:
                found |= self.stated[code].present | self.stated[code].absent
            else:
                found |= self.allowed.get(code, frozenset((code,)))
        return tuple(sorted(found))
