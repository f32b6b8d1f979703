"""Labels under other numbers, read as they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from napari_sparseseg.storage._arrays import shape_of, to_numpy
from napari_sparseseg.storage._derived import DerivedArray, Range


class Renumbered(DerivedArray):
    """An array of whole numbers n as `table[n]`; of chunks like the array's."""

    def __init__(self, array: Any, table: npt.NDArray[np.integer]) -> None:
        self._array, self._table = array, table
        self.shape, self.dtype = shape_of(array, "labels"), table.dtype
        self.chunks = getattr(array, "chunks", None)

    @override
    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._table[to_numpy(self._array[tuple(slice(a, b) for a, b in ranges)], "labels")]
        return found
