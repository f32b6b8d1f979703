"""ShadowedArray: voxels of a layer that the user paints into while the program writes into it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box
from napari_sparseseg.storage.sparse import clear, forget, is_large, zeros
from napari_sparseseg.widgets.axes import AxisMap

_FEW = 0.1  # of the values that are written, below which it is worth while to give memory back

Values = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class ShadowedArray:
    """The array of a layer, and a copy of what the program wrote into it.

    Where the two differ the user has painted, and the program leaves the voxel alone until it has taken the paint in
    (`release`). So a stroke in progress survives whatever is written meanwhile. GUI thread only.
    """

    def __init__(self, axes: AxisMap) -> None:
        self.axes = axes
        self.data: Values = zeros(axes.shape, np.uint8)
        """The layer's array, in the layer's axes."""
        self._frames: Values = axes.as_frames(self.data)
        self._shadow: Values = zeros(axes.frames_shape, np.uint8)

    @property
    def is_large(self) -> bool:
        """Whether nothing should look at all of it at once."""
        return is_large(self.data)

    def clear(self) -> None:
        """Make everything zero, what the user has painted as well."""
        clear(self.data)
        clear(self._shadow)

    def write(self, frame: int, box: Box, values: Values) -> None:
        """Write values (z, y, x) into a box, except where the user has painted."""
        data, shadow = self._at(frame, box)
        free = data == shadow
        if free.all() and self.is_large and np.count_nonzero(values) < _FEW * values.size:
            where = np.nonzero(values)
            for array in (data, shadow):
                forget(array)
                array[where] = values[where]
        elif free.all():
            data[...] = values
            shadow[...] = values
        else:
            np.copyto(data, values, where=free)
            np.copyto(shadow, values, where=free)

    def shown(self, frame: int, box: Box) -> Values:
        """What the program had written in a box, that is what was shown before the user painted there; a copy."""
        return self._at(frame, box)[1].copy()

    def current(self, frame: int, box: Box) -> Values:
        """What the layer holds now; a view."""
        return self._at(frame, box)[0]

    def user_mask(self, frame: int, box: Box) -> Mask:
        """Voxels of a box that the user has painted and that were not taken in yet."""
        data, shadow = self._at(frame, box)
        mask: Mask = data != shadow
        return mask

    def release(self, frame: int, box: Box, mask: Mask | None = None) -> None:
        """Let the program write the voxels of a box again, all or those of a mask."""
        data, shadow = self._at(frame, box)
        np.copyto(shadow, data, where=True if mask is None else mask)

    def put(self, frames: Values) -> None:
        """Fill the layer with (frames, z, y, x) as a user would, to be taken in."""
        self._frames[...] = frames

    def revert(self) -> None:
        """Take back whatever the user has painted that was not taken in."""
        if not self.is_large:  # there, the stroke that is going on stays in the layer that is left behind
            self._frames[...] = self._shadow

    def _at(self, frame: int, box: Box) -> tuple[Values, Values]:
        return self._frames[frame][box.slices], self._shadow[frame][box.slices]
