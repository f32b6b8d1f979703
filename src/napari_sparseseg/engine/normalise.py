"""Intensity normalisation: one affine map per channel, fixed before the first tile is computed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Volume
from napari_sparseseg.errors import InputWarning

_LOW, _HIGH = 0.5, 99.5
_LIMIT = 12.0  # in units of the range's standard deviation; keeps a stray voxel of 1e30 finite
_SAMPLE_SLABS = 24


@dataclass(frozen=True, slots=True)
class IntensityRange:
    """Offset and scale of each channel: `(image - offset) / scale` has mean about 0 and spread about 1."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, volume: Volume) -> IntensityRange:
        """Measure a volume on a fixed subsample: slabs spread over z, every voxel of small volumes.

        Warns with `InputWarning` if a channel is constant.
        """
        sample = _subsample(volume)
        offsets, scales = [], []
        for number, values in enumerate(sample):
            low, high = np.percentile(values, [_LOW, _HIGH])
            if high <= low:  # nearly all voxels are equal: the few others carry the structure
                low, high = values.min(), values.max()
            if high <= low:
                warnings.warn(
                    f"channel {number} of the image is constant ({low:g} everywhere looked at): nothing can be "
                    "learnt from it; is this the right image?",
                    InputWarning,
                    stacklevel=2,
                )
            clipped = np.clip(values, low, high)
            spread = float(clipped.std())
            offsets.append(float(clipped.mean()))
            scales.append(spread if spread > 0 else max(1.0, abs(float(low))))
        return cls(tuple(offsets), tuple(scales))

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Normalise intensities, shape (channels, z, y, x); far outliers are cut at 12 times the spread."""
        # float64 first: uint64 and values near 1e30 would lose their differences in float32
        is_small = image.dtype in (np.uint8, np.uint16, np.int8, np.int16)
        exact: npt.NDArray[Any] = image.astype(np.float32 if is_small else np.float64)
        offset = np.asarray(self.offset, exact.dtype).reshape(-1, 1, 1, 1)
        scale = np.asarray(self.scale, exact.dtype).reshape(-1, 1, 1, 1)
        normalised: npt.NDArray[np.float32] = np.clip((exact - offset) / scale, -_LIMIT, _LIMIT).astype(np.float32)
        return normalised


def _subsample(volume: Volume) -> npt.NDArray[np.float64]:
    """Voxels spread over the volume, shape (channels, n)."""
    depth, height, width = volume.shape
    slabs = np.unique(np.linspace(0, depth - 1, min(depth, _SAMPLE_SLABS)).round().astype(int))
    step = max(1, int(np.sqrt(height * width / 65536)))
    parts = []
    for z in slabs.tolist():
        plane = volume.read(Box((z, 0, 0), (z + 1, height, width)))
        parts.append(plane[:, :, ::step, ::step].reshape(volume.n_channels, -1).astype(np.float64))
    return np.concatenate(parts, axis=1)
