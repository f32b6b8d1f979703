"""Contract tests that each volume must pass: subclass, say how to make one, and let pytest collect it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    from napari_sparseseg._types import Volume

_N_BOXES = 20


class VolumeContract(ABC):
    """What every `Volume` promises; `make_volume` tells how to get one from an array of shape (channels, z, y, x).

    `dtypes` are those that the volume can hold, and what reading must give for each.
    """

    dtypes: tuple[tuple[str, str], ...] = (
        ("bool", "uint8"),
        ("uint8", "uint8"),
        ("int8", "int8"),
        ("uint16", "uint16"),
        ("int32", "int32"),
        ("uint64", "uint64"),
        ("int64", "int64"),
        ("float16", "float16"),
        ("float32", "float32"),
        ("float64", "float64"),
    )

    @abstractmethod
    def make_volume(self, image: npt.NDArray[Any]) -> Volume:
        """Make a volume that holds these voxels, shape (channels, z, y, x)."""

    def test_tells_its_shape_and_channels(self) -> None:
        """`shape` is along z, y, x; `n_channels` counts the channels."""
        for n_channels, shape in ((1, (4, 5, 6)), (3, (4, 5, 6)), (2, (1, 1, 7))):
            volume = self.make_volume(make_image(n_channels, shape))
            np.testing.assert_equal(volume.shape, shape)
            np.testing.assert_equal(volume.n_channels, n_channels)

    def test_reads_the_whole_volume(self) -> None:
        """The whole box gives every voxel, channels first."""
        image = make_image(2, (4, 5, 6))
        np.testing.assert_array_equal(self.make_volume(image).read(Box.whole((4, 5, 6))), image, strict=True)

    def test_reading_a_box_equals_slicing(self) -> None:
        """Any box within the volume gives what slicing an array gives."""
        image = make_image(2, (5, 9, 7))
        volume = self.make_volume(image)
        for box in random_boxes((5, 9, 7), _N_BOXES):
            np.testing.assert_array_equal(volume.read(box), image[(slice(None), *box.slices)], strict=True)

    def test_reads_an_empty_box(self) -> None:
        """A box without voxels is no error."""
        volume = self.make_volume(make_image(2, (4, 5, 6)))
        np.testing.assert_equal(volume.read(Box((4, 0, 0), (4, 5, 6))).shape, (2, 0, 5, 6))

    def test_keeps_each_dtype_and_every_value(self) -> None:
        """No value is rounded; dtypes stay as `dtypes` says."""
        for stored, read in self.dtypes:
            image = make_image(1, (2, 3, 4), stored)
            block = self.make_volume(image).read(Box.whole((2, 3, 4)))
            np.testing.assert_equal(block.dtype, np.dtype(read))
            np.testing.assert_array_equal(block, image.astype(read))

    def test_reads_in_native_byte_order(self) -> None:
        """Whatever the order in which voxels are stored."""
        for order in "<>":
            image = make_image(1, (2, 3, 4), f"{order}u2")
            block = self.make_volume(image).read(Box.whole((2, 3, 4)))
            np.testing.assert_equal(block.dtype.isnative, True)
            np.testing.assert_array_equal(block, image)

    def test_what_was_read_may_be_changed(self) -> None:
        """Each read gives a new array in C order: writing to it does not reach the image."""
        image = make_image(2, (4, 5, 6))
        volume = self.make_volume(image.copy())
        block = volume.read(Box.whole((4, 5, 6)))
        block += 1
        np.testing.assert_equal(block.flags.c_contiguous, True)
        np.testing.assert_array_equal(volume.read(Box.whole((4, 5, 6))), image)

    def test_refuses_boxes_beyond_the_volume(self) -> None:
        """Instead of handing out fewer voxels than asked for."""
        volume = self.make_volume(make_image(1, (4, 5, 6)))
        for box in (
            Box((-1, 0, 0), (2, 5, 6)),
            Box((0, 0, 0), (5, 5, 6)),
            Box((0, 3, 0), (4, 2, 6)),
            Box((0, 0, 7), (4, 5, 8)),
        ):
            np.testing.assert_raises(InputError, volume.read, box)


def make_image(n_channels: int, shape: Shape3D, dtype: str = "uint16") -> npt.NDArray[Any]:
    """Random voxels of shape (channels, z, y, x) that use the whole range of the dtype."""
    generator = np.random.default_rng(0)
    native = np.dtype(dtype).newbyteorder("=")
    size = (n_channels, *shape)
    if native.kind == "b":
        return generator.random(size) < 0.5
    if native.kind == "f":
        return (generator.standard_normal(size) * (float(np.finfo(native).max) / 10)).astype(dtype)
    limits = np.iinfo(native)
    return generator.integers(limits.min, limits.max, size, dtype=native, endpoint=True).astype(dtype)


def random_boxes(shape: Shape3D, n_boxes: int) -> list[Box]:
    """Boxes of at least one voxel within a volume, the same ones each time."""
    generator = np.random.default_rng(0)
    corners = [np.sort(generator.choice(size + 1, 2, replace=False)) for _ in range(n_boxes) for size in shape]
    pairs = [(int(low), int(high)) for low, high in corners]
    return [Box((z[0], y[0], x[0]), (z[1], y[1], x[1])) for z, y, x in zip(*[iter(pairs)] * 3, strict=True)]
