"""Levels of resolution: which one to work at, and paint of the finest level brought to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import full_index, real_dtype_of, to_numpy

if TYPE_CHECKING:
    from napari_sparseseg._types import Annotation, ArrayLike

_MANY_VOXELS = 10**9  # what a processor predicts within minutes, not hours
_ENOUGH_CELLS = 100
_MOST_MIXED = 0.1


def suggested_level(
    shapes: Sequence[Sequence[int]], paint: Annotation | None = None, *, max_voxels: float = _MANY_VOXELS
) -> int:
    """The level to work at, of those with the spatial `shapes` given, finest first: (z, y, x) or (y, x) in voxels.

    The finest one with at most `max_voxels`; a finer one still if the strokes of `paint`, which lies on the finest
    level, would run together there: if more than a tenth of a class's voxels held another class too, or if fewer than
    a hundred were left of it.
    """
    small = next((n for n, shape in enumerate(shapes) if math.prod(shape) <= max_voxels), len(shapes) - 1)
    if paint is None or not len(paint):
        return small
    keeping = (n for n in range(small, 0, -1) if _keeps(paint, reduction(shapes[0], shapes[n])))
    return next(keeping, 0)


def matching_level(spacings: Sequence[Sequence[float] | None], wanted: Sequence[float]) -> int:
    """The level whose voxels are most nearly of the size `wanted`, along the last axes that both have; 0 if unknown."""

    def distance(spacing: Sequence[float] | None) -> float:
        if spacing is None:
            return math.inf
        n = min(len(spacing), len(wanted))
        return sum(math.log(a / b) ** 2 for a, b in zip(spacing[-n:], wanted[-n:], strict=True))

    return min(range(len(spacings)), key=lambda n: (distance(spacings[n]), n))


def reduction(fine: Sequence[int], coarse: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the finest level per voxel of a coarser one, along each axis.

    Raises `InputError` if no whole numbers lead from one shape to the other.
    """
    factors = [_factor(a, b) for a, b in zip(fine, coarse, strict=True)]
    if None in factors:
        raise InputError(
            f"shape {tuple(fine)} is no whole multiple of {tuple(coarse)}, so voxels of one cannot be taken for those "
            "of the other; give both at the same level of resolution"
        )
    return tuple(factor for factor in factors if factor is not None)


def _factor(fine: int, coarse: int) -> int | None:
    """The whole number nearest to the ratio by which a size becomes the other; None if there is none."""
    likely = (round(fine / coarse), -(-fine // coarse), fine // coarse)
    # some writers drop an incomplete last cell, others keep it
    return next((f for f in likely if f > 0 and coarse in (fine // f, -(-fine // f))), None)


class ReducedPaint:
    """Paint of the finest level as it is at a coarser one, of the given shape; nothing is read before slicing.

    A voxel holds the code of the paint in it, and none if there is more than one: where classes meet, no voxel of the
    coarser level belongs to either.

    Raises `InputError` for shapes that do not fit (`reduction`) and, where it is read, for fractions, `InputTypeError`
    for what are no real numbers.
    """

    def __init__(self, paint: ArrayLike, shape: Sequence[int]) -> None:
        self._paint = paint
        self._factors = reduction(paint.shape, shape)
        self.shape = tuple(shape)
        self.source_name: str = getattr(paint, "source_name", None) or "annotation"
        self.dtype = real_dtype_of(paint, self.source_name)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Sizes of what is best read at once, one for each axis; None if that is not known."""
        chunks = getattr(self._paint, "chunks", None)
        if not chunks:
            return None
        sizes = (max(size) if isinstance(size, tuple) else size for size in chunks)
        return tuple(max(1, size // factor) for size, factor in zip(sizes, self._factors, strict=True))

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        """Read a box, one slice for each axis."""
        parts = full_index(index, self.shape)
        bounds = [part.indices(size)[:2] for part, size in zip(parts, self.shape, strict=True)]
        finer = tuple(
            slice(a * factor, min(b * factor, size))
            for (a, b), factor, size in zip(bounds, self._factors, self._paint.shape, strict=True)
        )
        block = to_numpy(self._paint[finer], self.source_name)
        self._check_whole(block)
        margins = [
            (0, (b - a) * factor - size)
            for (a, b), factor, size in zip(bounds, self._factors, block.shape, strict=True)
        ]
        return _one_code(np.pad(block, margins), self._factors)

    def _check_whole(self, block: npt.NDArray[Any]) -> None:
        """Refuse fractions here: where they differ within a cell, nobody would see them later."""
        if block.dtype.kind != "f":
            return
        fractions = block[block != np.trunc(block)]
        if len(fractions):
            raise InputError(
                f"{self.source_name} holds {fractions[0].item()}, but codes are whole numbers: round them, e.g. with "
                "numpy.rint (or is this the image?)"
            )


def _one_code(block: npt.NDArray[Any], factors: Sequence[int]) -> npt.NDArray[Any]:
    """Of each cell of voxels the only code but 0 in it, else 0."""
    split = [n for size, factor in zip(block.shape, factors, strict=True) for n in (size // factor, factor)]
    cells = block.reshape(split)
    within = tuple(range(1, 2 * block.ndim, 2))
    highest: npt.NDArray[Any] = cells.max(within)
    kind = block.dtype.kind
    beyond = True if kind == "b" else np.inf if kind == "f" else np.iinfo(block.dtype).max
    lowest = np.where(cells == 0, np.asarray(beyond, block.dtype), cells).min(within)
    return np.where(highest == lowest, highest, np.zeros((), block.dtype))


def _keeps(paint: Annotation, factors: Sequence[int]) -> bool:
    """Whether every class keeps enough voxels, and most of them for itself, in cells of the finest voxels."""
    cells = paint.coordinates // np.asarray((1, *factors)[-3:], np.int32)
    pairs = np.unique(np.column_stack([cells, paint.codes.astype(np.int32)]), axis=0)
    _, inverse, n_codes = np.unique(pairs[:, :3], axis=0, return_inverse=True, return_counts=True)
    is_mixed = n_codes[inverse.ravel()] > 1
    for code in np.unique(paint.codes):
        own = pairs[:, 3] == code
        n_painted = np.count_nonzero(paint.codes == code)
        if own.sum() < min(n_painted, _ENOUGH_CELLS) or is_mixed[own].mean() > _MOST_MIXED:
            return False
    return True
