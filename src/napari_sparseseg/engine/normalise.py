"""Intensity normalisation: one map per channel, fixed before the first tile is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Volume
from napari_sparseseg.errors import InputWarning

_LOW, _HIGH = 0.5, 99.5
_QUARTILES_OF_NORMAL = 1.349  # distance of the quartiles of a normal distribution of spread 1
_LINEAR = 3.0  # spreads from the median up to which contrast is about linear
_LIMIT = 30.0  # keeps a stray voxel of 1e30 finite
_SINGLE = tuple(map(np.dtype, ("u1", "u2", "i1", "i2", "f2", "f4")))  # what float32 holds exactly
_SAMPLE_SLABS = 24
_LARGE_PLANE = 1 << 22  # voxels; of larger planes windows are read, spread over them
_WINDOWS, _WINDOW = 200, 64  # about so many in all; voxels along y and x
_SHIFTS = (0.6180339887, 0.7548776662)  # windows of other planes lie elsewhere, spread evenly along y and x


def warn_of_image(text: str) -> None:
    """Warn with `InputWarning`, at the place where `IntensityRange.of` was called."""
    warnings.warn(text, InputWarning, stacklevel=4)


@dataclass(frozen=True, slots=True)
class IntensityRange:
    """Median and spread of each channel.

    Normalised intensities count spreads from the median; beyond three spreads they grow with the logarithm only
    (an inverse hyperbolic sine), so that one bright nucleus does not dwarf the dim ones beside it.

    Voxels that are missing (NaN) do not count, and are taken for the median.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, volume: Volume, warn: Callable[[str], None] = warn_of_image) -> IntensityRange:
        """Measure a volume on a fixed subsample: planes spread over z, windows of them where they are large.

        Every voxel of small volumes.

        Warns if a channel is constant or voxels are missing: with `InputWarning`, or as `warn` does.
        """
        offsets, scales = [], []
        for number, looked_at in enumerate(_subsample(volume)):
            values = _present(looked_at, number, warn)
            base = int(values.min()) if _is_wide(values.dtype) else 0
            offset, scale = _measure(_minus(values, base), number, warn, base)
            offsets.append(base + round(offset) if base else offset)
            scales.append(scale)
        return cls(tuple(offsets), tuple(scales))

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Normalise intensities, shape (channels, z, y, x)."""
        normalised = np.empty(image.shape, np.float32)
        for channel, target, low, scale in zip(image, normalised, self.offset, self.scale, strict=True):
            if image.dtype in _SINGLE:
                np.subtract(channel, low, out=target, dtype=np.float64, casting="same_kind")
                _compress(target, np.float32(scale))
            else:  # float32 would lose the differences of uint64 and of values near 1e30
                differences = _minus(channel, low)
                _compress(differences, scale)
                target[...] = differences
        if image.dtype.kind == "f":
            np.copyto(normalised, 0.0, where=np.isnan(normalised))
        return normalised


def _compress(differences: npt.NDArray[Any], scale: float | np.float32) -> None:
    """From differences to normalised intensities, in place: this is on every hot path."""
    differences /= _LINEAR * scale
    np.arcsinh(differences, out=differences)
    differences *= _LINEAR
    np.clip(differences, -_LIMIT, _LIMIT, out=differences)


def _present(values: npt.NDArray[Any], channel: int, warn: Callable[[str], None]) -> npt.NDArray[Any]:
    """Those values of a channel that are not missing; a single 0 if all are."""
    if values.dtype.kind != "f" or not (missing := np.isnan(values)).any():
        return values
    share = float(missing.mean())
    told = "less than 0.1 %" if share < 1e-3 else f"{100 * share:.1f} %"
    warn(
        f"{told} of the voxels of channel {channel} of the image are not finite (NaN or infinite): they count as "
        "missing, and get no class (0)"
    )
    return np.zeros(1, values.dtype) if missing.all() else values[~missing]


def _is_wide(dtype: np.dtype[Any]) -> bool:
    """Integers that float64 cannot hold."""
    return dtype.kind in "iu" and dtype.itemsize == 8


def _minus(values: npt.NDArray[Any], offset: float) -> npt.NDArray[np.float64]:
    """Differences as float64; exact for 64-bit integers and a whole offset, however far from zero both are."""
    rough: npt.NDArray[np.float64] = values.astype(np.float64) - float(offset)
    if not _is_wide(values.dtype) or offset != int(offset):
        return rough
    wrapped = values.astype(np.uint64) - np.uint64(int(offset) % 2**64)
    return np.where(np.abs(rough) < 2.0**62, wrapped.astype(np.int64).astype(np.float64), rough)


def _measure(
    values: npt.NDArray[np.float64], channel: int, warn: Callable[[str], None], base: int = 0
) -> tuple[float, float]:
    """Median and spread; where the quartiles are equal, what lies outside them gives the spread."""
    lower, median, upper = np.percentile(values, [25, 50, 75])
    spread = (upper - lower) / _QUARTILES_OF_NORMAL
    if spread <= 0:
        spread = np.clip(values, *np.percentile(values, [_LOW, _HIGH])).std()
    if spread <= 0:  # nearly all voxels are equal: the few others carry the structure
        spread = np.abs(values - median).max()
    if spread <= 0:
        warn(
            f"channel {channel} of the image is constant ({base + median:g} everywhere looked at): nothing can be "
            "learnt from it; is this the right image?"
        )
        spread = max(1.0, abs(base + median))
    return float(median), float(spread)


def _subsample(volume: Volume) -> npt.NDArray[Any]:
    """Voxels spread over the volume, shape (channels, n)."""
    depth, height, width = volume.shape
    slabs = np.unique(np.linspace(0, depth - 1, min(depth, _SAMPLE_SLABS)).round().astype(int))
    if height * width > _LARGE_PLANE:
        n = round(np.sqrt(_WINDOWS / len(slabs)))
        boxes = [box for number, z in enumerate(slabs.tolist()) for box in _windows(z, number, n, (height, width))]
        return np.concatenate([volume.read(box).reshape(volume.n_channels, -1) for box in boxes], axis=1)
    step = max(1, int(np.sqrt(height * width / 65536)))
    parts = []
    for z in slabs.tolist():
        plane = volume.read(Box((z, 0, 0), (z + 1, height, width)))
        parts.append(plane[:, :, ::step, ::step].reshape(volume.n_channels, -1))
    return np.concatenate(parts, axis=1)


def _windows(z: int, number: int, n: int, shape: tuple[int, int]) -> Iterator[Box]:
    """Squares of a plane, n along each axis, aligned to chunks: a whole plane would read every chunk in its way."""
    rows, columns = (
        [int((k + number * shift % 1) * size / n) // _WINDOW * _WINDOW for k in range(n)]
        for size, shift in zip(shape, _SHIFTS, strict=True)
    )
    for y, x in product(dict.fromkeys(rows), dict.fromkeys(columns)):
        yield Box((z, y, x), (z + 1, min(y + _WINDOW, shape[0]), min(x + _WINDOW, shape[1])))
