"""Volumes around arrays of every kind."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.volume import ArrayVolume, Frame, ImageVolume
from napari_sparseseg.testing import VolumeContract


class Recorder:
    """Has shape, dtype and slicing, nothing else, and remembers what was read."""

    def __init__(self, array):
        self.shape = list(array.shape)
        self.dtype = array.dtype.str
        self.indices = []
        self._array = array

    def __getitem__(self, index):
        assert type(index) is tuple
        assert all(type(part) is slice and part.step is None for part in index)
        self.indices.append(index)
        return self._array[index]


class TestNumpy(VolumeContract):
    def make_volume(self, image):
        return ArrayVolume(image, channel_axis=0)


class TestImage(VolumeContract):
    def make_volume(self, image):
        return ImageVolume(image, 0)


class TestReadOnlyNumpy(VolumeContract):
    def make_volume(self, image):
        image.flags.writeable = False
        return ArrayVolume(image, channel_axis=0)


class TestChannelsLastNumpy(VolumeContract):
    def make_volume(self, image):
        return ArrayVolume(np.moveaxis(image, 0, -1), channel_axis=-1)


class TestStridedNumpy(VolumeContract):
    def make_volume(self, image):
        wide = np.zeros([2 * size for size in image.shape], image.dtype)
        strided = wide[::2, ::-2, ::2, 1::2]
        strided[...] = image
        return ArrayVolume(strided, channel_axis=0)


class TestBigEndianNumpy(VolumeContract):
    def make_volume(self, image):
        return ArrayVolume(image.astype(image.dtype.newbyteorder(">")), channel_axis=0)


class TestMemmap(VolumeContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.path = tmp_path / "image.npy"

    def make_volume(self, image):
        np.save(self.path, image)
        return ArrayVolume(np.load(self.path, mmap_mode="r"), channel_axis=0)


class TestZarr(VolumeContract):
    def make_volume(self, image):
        array = zarr.create_array(store={}, data=np.moveaxis(image, 0, 1), chunks=(2, 1, 3, 4))
        return ArrayVolume(array, channel_axis=1)


class TestDask(VolumeContract):
    def make_volume(self, image):
        return ArrayVolume(da.from_array(image, chunks=(1, 2, 3, 4)), channel_axis=0)


class TestAnythingWithSlicing(VolumeContract):
    def make_volume(self, image):
        return ArrayVolume(Recorder(image), channel_axis=0)


class TestTorch(VolumeContract):
    dtypes = tuple(pair for pair in VolumeContract.dtypes if pair[0] != "uint64")

    def make_volume(self, image):
        torch = pytest.importorskip("torch")
        return ArrayVolume(torch.from_numpy(image.astype(image.dtype.newbyteorder("="))), channel_axis=0)


@st.composite
def images_with_axes(draw):
    """An array, its channel axis, and a box in its (z, y, x)."""
    spatial = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
    axis = draw(st.none() | st.integers(-len(spatial) - 1, len(spatial)))
    shape = list(spatial)
    if axis is not None:
        shape.insert(axis % (len(spatial) + 1), draw(st.integers(1, 3)))
    dtypes = hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?") | hnp.boolean_dtypes()
    array = draw(hnp.arrays(draw(dtypes), shape))
    bounds = [sorted((draw(st.integers(0, size)), draw(st.integers(0, size)))) for size in ([1, *spatial][-3:])]
    return array, axis, Box(tuple(low for low, _ in bounds), tuple(high for _, high in bounds))


@given(images_with_axes())
def test_any_layout_reads_the_same_voxels(drawn):
    array, axis, box = drawn
    expected = array[np.newaxis] if axis is None else np.moveaxis(array, axis, 0)
    if expected.ndim == 3:
        expected = expected[:, np.newaxis]
    volume = ArrayVolume(array, axis)
    block = volume.read(box)
    assert (volume.n_channels, *volume.shape) == expected.shape
    assert block.dtype.isnative
    assert block.dtype == volume.dtype
    np.testing.assert_array_equal(block, expected[(slice(None), *box.slices)])


class TestShapes:
    def test_2d_stays_2d_for_the_user(self):
        volume = ArrayVolume(np.zeros((7, 8)))
        assert (volume.shape, volume.spatial_shape, volume.channel_axis) == ((1, 7, 8), (7, 8), None)

    @pytest.mark.parametrize("axis", [1, -3, np.int64(1)])
    def test_channel_axis_is_counted_from_the_front(self, axis):
        volume = ArrayVolume(np.zeros((4, 2, 7, 8)), axis)
        assert (volume.shape, volume.n_channels, volume.channel_axis) == ((4, 7, 8), 2, 1)
        assert volume.array_shape == (4, 2, 7, 8)

    def test_repr_tells_what_it_is(self):
        assert repr(ArrayVolume(np.zeros((4, 5), "u2"))) == "ArrayVolume(image: (4, 5) uint16)"
        assert "channel_axis=0" in repr(ArrayVolume(np.zeros((3, 4, 5)), 0))

    def test_can_be_sent_to_another_process(self):
        volume = pickle.loads(pickle.dumps(ArrayVolume(np.arange(24).reshape(2, 3, 4))))
        np.testing.assert_array_equal(volume.read(Box.whole((2, 3, 4)))[0], np.arange(24).reshape(2, 3, 4))


class TestReading:
    def test_reads_nothing_but_the_box(self):
        recorder = Recorder(np.zeros((10, 3, 20, 30)))
        volume = ArrayVolume(recorder, 1)
        assert recorder.indices == []
        volume.read(Box((1, 2, 3), (4, 5, 6)))
        assert recorder.indices == [(slice(1, 4), slice(0, 3), slice(2, 5), slice(3, 6))]

    def test_dask_computes_only_the_chunks_of_the_box(self):
        computed = []

        def plane(block_info=None):
            computed.append(block_info[None]["chunk-location"])
            return np.zeros((1, 4, 4), np.float32)

        image = da.map_blocks(plane, chunks=((1,) * 9, (4,), (4,)), dtype=np.float32, meta=np.zeros((0, 0, 0), "f4"))
        volume = ArrayVolume(image)
        assert computed == []
        volume.read(Box((2, 0, 0), (3, 4, 4)))
        assert computed == [(2, 0, 0)]

    @pytest.mark.parametrize("value", [2**64 - 1, 2**53 + 1])
    def test_large_integers_stay_exact(self, value):
        assert ArrayVolume(np.full((1, 1, 1), value, np.uint64)).read(Box.whole((1, 1, 1))).item() == value

    def test_large_floats_stay_exact(self):
        image = np.array([[[1e30, np.nextafter(1e30, 2e30), -1e300]]])
        np.testing.assert_array_equal(ArrayVolume(image).read(Box.whole((1, 1, 3)))[0], image, strict=True)

    def test_long_double_becomes_float64(self):
        block = ArrayVolume(np.full((1, 2, 2), 1 / np.longdouble(3))).read(Box.whole((1, 2, 2)))
        assert block.dtype == np.float64
        assert block[0, 0, 0, 0] == 1 / 3

    @pytest.mark.skipif(np.finfo(np.longdouble).max <= np.finfo(np.float64).max, reason="long double is float64 here")
    def test_long_double_beyond_float64_is_refused(self):
        image = np.full((1, 2, 2), np.longdouble("1e4000"))
        with pytest.raises(InputError, match="4 voxels that are not finite"):
            ArrayVolume(image).read(Box.whole((1, 2, 2)))


class TestNonFiniteVoxels:
    def test_says_how_many_where_and_what_to_do(self):
        image = np.zeros((5, 6, 7, 2), ">f4")
        image[3, 4, 5, 1] = np.nan
        image[4, 0, 0, 0] = np.inf
        image[0] = np.nan  # outside of the box that is read
        with pytest.raises(InputError) as caught:
            ArrayVolume(image, -1).read(Box((2, 1, 0), (5, 6, 7)))
        assert "image has 1 voxel that is not finite" in str(caught.value)
        assert "the first is nan at index (3, 4, 5, 1)" in str(caught.value)
        assert "numpy.nan_to_num" in str(caught.value)

    def test_counts_in_the_axes_of_a_2d_image(self):
        image = np.zeros((6, 7), np.float16)
        image[2, 3:5] = -np.inf
        with pytest.raises(InputError, match=r"2 voxels that are not finite .* first is -inf at index \(2, 3\)"):
            ArrayVolume(image).read(Box.whole((1, 6, 7)))

    @pytest.mark.parametrize("dtype", ["<f2", ">f4", "f8"])
    def test_are_missing_in_an_image(self, dtype):
        image = np.zeros((2, 3, 4), dtype)
        image[0, 1, 2], image[1, 2, 3], image[1, 0, 0] = np.inf, -np.inf, np.nan
        block = ImageVolume(image).read(Box.whole((2, 3, 4)))
        assert block.dtype == ImageVolume(image).dtype
        np.testing.assert_array_equal(block[0], np.where(np.isfinite(image), image, np.nan))

    def test_elsewhere_do_no_harm(self):
        image = np.zeros((5, 6, 7))
        image[4] = np.nan
        assert ArrayVolume(image).read(Box((0, 0, 0), (4, 6, 7))).shape == (1, 4, 6, 7)


class TestRefusals:
    @pytest.mark.parametrize(
        ("image", "said"),
        [
            (None, "image is of type NoneType"),
            ([[1, 2], [3, 4]], "image is of type list, .* numpy.asarray"),
            (((1, 2), (3, 4)), "image is of type tuple"),
            ({"image": 1}, "image is of type dict"),
            (3.5, "image is of type float"),
            ("cells.tif", r"image is a path \('cells.tif'\).*tifffile.imread"),
            (np.zeros((2, 3, 4), complex), "image has dtype complex128, .* numpy.abs"),
            (np.zeros((2, 3, 4), object), "image has dtype object"),
            (np.full((2, 3, 4), "a"), "image has dtype <U1, but real numbers are needed"),
            (np.zeros((2, 3, 4), "M8[s]"), r"image has dtype datetime64\[s\]"),
            (np.zeros((2, 3, 4), "u1,u1"), "image has dtype"),
            (np.ma.masked_equal(np.zeros((2, 3, 4)), 0), r"image is a masked array.*image.filled\(0\)"),
        ],
    )
    def test_of_what_is_no_image(self, image, said):
        with pytest.raises(InputTypeError, match=said):
            ArrayVolume(image)

    def test_of_a_path(self, tmp_path):
        with pytest.raises(InputTypeError, match="image is a path"):
            ArrayVolume(tmp_path / "cells.tif")

    def test_of_a_masked_array_behind_dask(self):
        masked = np.ma.masked_equal(np.arange(24).reshape(2, 3, 4), 3)
        with pytest.raises(InputTypeError, match="masked array"):
            ArrayVolume(da.from_array(masked, chunks=2)).read(Box.whole((2, 3, 4)))

    def test_of_tensors_that_numpy_cannot_read(self):
        torch = pytest.importorskip("torch")
        for tensor in (torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 3, 4, dtype=torch.bfloat16)):
            with pytest.raises(InputTypeError, match=r"image is a Tensor of dtype torch\..*\.detach\(\)\.cpu\(\)"):
                ArrayVolume(tensor)

    def test_of_unknown_sizes(self):
        image = da.zeros((4, 5), chunks=2)
        with pytest.raises(InputError, match="compute_chunk_sizes"):
            ArrayVolume(image[image.sum(axis=1) > 0])

    @pytest.mark.parametrize(
        ("shape", "channel_axis", "said"),
        [
            (
                (3, 20, 64, 64),
                None,
                "image has 4 axes (shape (3, 20, 64, 64)), but 3 (Z, Y, X) or 2 (Y, X) are needed; if axis 0 holds",
            ),
            (
                (3, 20, 64, 64),
                None,
                "if axis 0 holds channels, pass channel_axis=0",
            ),
            (
                (20, 64, 64, 3),
                None,
                "pass channel_axis=3; if it holds time points, take one of them, e.g. image[:, :, :, 0]",
            ),
            ((3, 4, 64, 64), None, "if axis 0 or axis 1 holds channels, pass channel_axis=0 or channel_axis=1"),
            ((100, 8, 512, 512), None, "if axis 1 holds channels, pass channel_axis=1"),
            ((30, 20, 64, 64), None, "say which with channel_axis; of time points take one, e.g. image[0]"),
            ((9, 3, 20, 64, 64), None, "image has 5 axes (shape (9, 3, 20, 64, 64))"),
            ((9, 3, 20, 64, 64), None, "take one time point first, e.g. image[0]"),
            ((9, 3, 20, 64, 64), 1, "image has 4 axes besides the channel axis 1"),
            ((9, 3, 20, 64, 64), 1, "take one time point first, e.g. image[0] with channel_axis=0"),
            ((3, 9, 20, 64, 64), 0, "take one time point first, e.g. image[:, 0]"),
            ((64,), None, "image has 1 axis (shape (64,)), but 3 (Z, Y, X) or 2 (Y, X) are needed"),
            ((), None, "image has 0 axes (shape ())"),
            ((3, 64), 0, "image has 1 axis besides the channel axis 0 (shape (3, 64))"),
            ((3, 64), 0, "pass channel_axis=None if no axis holds channels"),
            ((4, 0, 5), None, "image is empty: axis 1 of its shape (4, 0, 5) has size 0"),
            ((4, 5, 6), 3, "channel_axis=3 does not exist: image has 3 axes (shape (4, 5, 6)); use -3 to 2, or None"),
            ((4, 5, 6), -4, "channel_axis=-4 does not exist"),
            ((), 0, "channel_axis=0 does not exist: image has 0 axes (shape ()); use None"),
        ],
    )
    def test_of_shapes_names_the_remedy(self, shape, channel_axis, said):
        with pytest.raises(InputError) as caught:
            ArrayVolume(np.zeros(shape), channel_axis)
        assert said in str(caught.value)

    @pytest.mark.parametrize("axis", ["0", 1.0, True, (0,)])
    def test_of_a_channel_axis_that_is_no_integer(self, axis):
        with pytest.raises(InputTypeError, match="channel_axis must be an integer, not"):
            ArrayVolume(np.zeros((3, 4, 5)), axis)

    def test_uses_the_name_that_was_given(self):
        with pytest.raises(InputError, match=r"^image 2 has 1 axis"):
            ArrayVolume(np.zeros(3), name="image 2")


class TestFrame(VolumeContract):
    """One time point of a series is a volume like any other."""

    def make_volume(self, image):
        series = np.stack([np.zeros_like(image), image, np.zeros_like(image)], axis=2)
        return ArrayVolume(Frame(series, 2, 1), channel_axis=0)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_a_frame_lacks_the_axis_it_was_taken_along(axis):
    series = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    frame = Frame(series, axis, 2)
    wanted = np.take(series, 2, axis)
    assert (frame.shape, frame.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(ArrayVolume(frame).read(Box.whole(wanted.shape))[0], wanted)


def test_of_other_frames_nothing_is_read():
    array = np.zeros((3, 4, 5, 6))
    indices = []

    class Series:
        shape, dtype = array.shape, array.dtype

        def __getitem__(self, index):
            indices.append(index)
            return array[index]

    ArrayVolume(Frame(Series(), 0, 1)).read(Box((1, 2, 3), (2, 4, 6)))
    assert indices == [(1, slice(1, 2), slice(2, 4), slice(3, 6))]
