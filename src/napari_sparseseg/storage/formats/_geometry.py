"""Where the voxels of an image lie in space, as the headers of NIfTI and NRRD say it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Affine:
    """From voxels into the `space` that the header names: a NIfTI code, or a NRRD name or number of dimensions.

    `directions` lead from a voxel to the next, one along each axis, None for an axis outside space; `origin` is the
    first voxel, None where nothing is told. `others` are directions of axes that are not shown.
    """

    space: str | int
    directions: tuple[Vector | None, ...]
    origin: Vector | None
    others: tuple[Vector, ...] = ()

    def along(self, order: Sequence[int]) -> Affine:
        """Of these axes only, in this order."""
        left = (row for axis, row in enumerate(self.directions) if axis not in order and row is not None)
        return replace(self, directions=tuple(self.directions[i] for i in order), others=(*left, *self.others))

    @property
    def is_usable(self) -> bool:
        """Whether each axis has a direction, and all is finite."""
        vectors = [row for row in (*self.directions, *self.others, self.origin) if row is not None]
        has_all = all(row is not None and any(row) for row in self.directions)
        return has_all and all(math.isfinite(part) for vector in vectors for part in vector)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the header of a `format` says of an image of `shape`, to be carried into labels of the same format.

    `affines` are by the name of the field; `units` are those of lengths, spelt as in the header.
    """

    format: str
    shape: tuple[int, ...]
    affines: Mapping[str, Affine]
    units: tuple[str, ...]

    def along(self, order: Sequence[int]) -> Geometry | None:
        """Of these axes only, in this order; None if one of them has no direction."""
        affines = {name: affine.along(order) for name, affine in self.affines.items()}
        if not all(affine.is_usable for affine in affines.values()):
            return None
        return replace(self, shape=tuple(self.shape[i] for i in order), affines=affines)
