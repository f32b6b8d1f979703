"""A region at a scale equals cropping and averaging; nothing is read but what is asked for."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.volume import ArrayVolume
from napari_sparseseg.storage.working import StackedChannels, WorkingArray
from napari_sparseseg.testing import VolumeContract, make_image


class RecordingArray:
    """Remembers the shape of each block that was read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read: list[tuple[int, ...]] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        block = self.array[index]
        self.read.append(block.shape)
        return block


def mean_of_blocks(image: np.ndarray, box: Box, step: tuple[int, int, int]) -> np.ndarray:
    """Voxel by voxel, for an image (z, y, x)."""
    crop = image[box.slices].astype(np.float64)
    shape = [-(-n // s) for n, s in zip(crop.shape, step, strict=True)]
    means = np.empty(shape)
    for index in np.ndindex(*shape):
        means[index] = crop[tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, step, strict=True))].mean()
    return means


@st.composite
def boxes_and_steps(draw: st.DrawFn) -> tuple[tuple[int, int, int], Box, tuple[int, int, int]]:
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return shape, Box(start, stop), draw(st.tuples(*[st.integers(1, 4)] * 3))


class TestMeans:
    @settings(max_examples=60, deadline=None)
    @given(case=boxes_and_steps(), dtype=st.sampled_from(["uint8", "uint16", "int32", "float32", "bool", ">u2"]))
    def test_equals_crop_and_block_mean(self, case: tuple[Any, Box, Any], dtype: str) -> None:
        shape, box, step = case
        image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
        working = WorkingArray(image, region=box, step=step)
        np.testing.assert_allclose(np.asarray(working), mean_of_blocks(image, box, step), rtol=1e-6)
        assert working.shape == np.asarray(working).shape
        assert working.dtype == np.asarray(working).dtype

    @settings(max_examples=60, deadline=None)
    @given(case=boxes_and_steps(), data=st.data())
    def test_any_index_gives_what_it_gives_in_the_dense_array(
        self, case: tuple[Any, Box, Any], data: st.DataObject
    ) -> None:
        shape, box, step = case
        working = WorkingArray(make_image(1, shape)[0], region=box, step=step)
        dense = np.asarray(working)
        index = tuple(
            data.draw(
                st.one_of(
                    st.integers(-n, n - 1),
                    st.slices(n),
                )
            )
            for n in dense.shape[: data.draw(st.integers(1, 3))]
        )
        np.testing.assert_array_equal(working[index], dense[index], strict=True)

    def test_without_a_step_voxels_and_dtype_stay(self) -> None:
        image = make_image(1, (4, 6, 5), "uint64")[0]
        working = WorkingArray(image, region=Box((1, 0, 2), (3, 6, 5)))
        np.testing.assert_array_equal(np.asarray(working), image[1:3, :, 2:5], strict=True)

    def test_wide_numbers_are_averaged_in_double_precision(self) -> None:
        image = np.full((2, 2, 2), 2**40, np.int64)
        image[0, 0, 0] += 8
        assert np.asarray(WorkingArray(image, step=(2, 2, 2))).item() == 2**40 + 1

    def test_what_is_not_finite_stays_so_and_warns_nobody(self) -> None:
        image = np.ones((2, 2, 4), np.float32)
        image[0, 0, 0], image[0, 0, 1] = np.inf, -np.inf
        means = np.asarray(WorkingArray(image, step=(2, 2, 2)))
        assert not np.isfinite(means[0, 0, 0])
        assert means[0, 0, 1] == 1


class TestAxes:
    def test_channels_and_time_stay_as_they_are(self) -> None:
        image = np.random.default_rng(0).random((3, 8, 2, 8, 8)).astype(np.float32)
        working = WorkingArray(image, time_axis=0, channel_axis=2, region=Box((2, 0, 4), (6, 8, 8)), step=(2, 4, 1))
        assert working.shape == (3, 2, 2, 2, 4)
        expected = mean_of_blocks(image[1, :, 1], Box((2, 0, 4), (6, 8, 8)), (2, 4, 1))
        np.testing.assert_allclose(working[1, :, 1], expected, rtol=1e-6)

    def test_an_image_of_two_axes_takes_the_last_two_of_box_and_step(self) -> None:
        image = np.arange(48, dtype=np.uint8).reshape(6, 8)
        working = WorkingArray(image, region=Box((0, 2, 0), (1, 6, 8)), step=(9, 2, 4))
        np.testing.assert_array_equal(working[:], image[2:6].reshape(2, 2, 2, 4).mean((1, 3)))

    def test_channels_at_the_end(self) -> None:
        image = make_image(3, (1, 6, 8), "uint8")[:, 0].transpose(1, 2, 0)
        assert WorkingArray(image, channel_axis=-1, step=(1, 3, 3)).shape == (2, 3, 3)


class TestSources:
    @pytest.mark.parametrize("kind", ["numpy", "zarr", "dask", "memmap", "another working array"])
    def test_reads_whatever_can_be_sliced(self, kind: str, tmp_path: Any) -> None:
        image = make_image(1, (6, 7, 8), "uint16")[0]
        array: Any = image
        if kind == "zarr":
            array = zarr.array(image, chunks=(3, 3, 3))
        elif kind == "dask":
            array = da.from_array(image, chunks=(3, 3, 3))
        elif kind == "memmap":
            array = np.memmap(tmp_path / "image", np.uint16, "w+", shape=image.shape)
            array[:] = image
        elif kind == "another working array":
            array = WorkingArray(image)
        box, step = Box((1, 0, 2), (6, 7, 8)), (2, 3, 2)
        np.testing.assert_allclose(
            np.asarray(WorkingArray(array, region=box, step=step)), mean_of_blocks(image, box, step)
        )

    def test_reads_only_what_is_asked_for(self) -> None:
        source = RecordingArray(make_image(1, (20, 20, 20))[0])
        working = WorkingArray(source, region=Box((0, 0, 0), (20, 20, 19)), step=(1, 2, 2))
        assert not source.read
        _ = working[3, 2:4, -2:]
        _ = working[0:0]
        assert source.read == [(1, 4, 3), (0, 20, 19)]

    def test_looks_like_an_array(self) -> None:
        working = WorkingArray(np.zeros((4, 4, 4), np.uint8), step=(2, 2, 2))
        assert working.ndim == 3
        assert np.asarray(working, np.float64).dtype == np.float64
        assert repr(working) == "WorkingArray((2, 2, 2) float32)"
        with pytest.raises(ValueError, match="copies"):
            np.array(working, copy=False)

    def test_can_be_opened_as_a_volume(self) -> None:
        image = make_image(2, (8, 8, 8), "uint8")
        volume = ArrayVolume(WorkingArray(image, channel_axis=0, step=(2, 2, 2)), channel_axis=0)
        assert volume.shape == (4, 4, 4)
        assert volume.read(Box.whole((4, 4, 4))).shape == (2, 4, 4, 4)


class TestRefusals:
    @pytest.mark.parametrize(
        "region",
        [Box((0, 0, 0), (4, 5, 7)), Box((-1, 0, 0), (4, 5, 6)), Box((0, 2, 0), (4, 2, 6)), Box((3, 0, 0), (2, 5, 6))],
    )
    def test_region_beyond_the_image(self, region: Box) -> None:
        with pytest.raises(InputError, match="region"):
            WorkingArray(np.zeros((4, 5, 6)), region=region)

    def test_step_below_one(self) -> None:
        with pytest.raises(InputError, match="step"):
            WorkingArray(np.zeros((4, 5, 6)), step=(1, 0, 1))

    @pytest.mark.parametrize(("shape", "channel"), [((4,), None), ((2, 3, 4, 5), None), ((3, 4), 0)])
    def test_wrong_number_of_axes(self, shape: tuple[int, ...], channel: int | None) -> None:
        with pytest.raises(InputError, match="axes"):
            WorkingArray(np.zeros(shape), channel_axis=channel)

    def test_no_array(self) -> None:
        with pytest.raises(InputTypeError, match="path"):
            WorkingArray("image.tif")  # type: ignore[arg-type]

    @pytest.mark.parametrize("index", [(0, 0, 0, 0), (..., ...), 4, (0, -6)])
    def test_index_that_numpy_would_refuse(self, index: Any) -> None:
        with pytest.raises(IndexError):
            WorkingArray(np.zeros((4, 5, 6)))[index]


class TestStackedChannels(VolumeContract):
    def make_volume(self, image: np.ndarray) -> ArrayVolume:
        return ArrayVolume(StackedChannels(list(image)), channel_axis=0)

    def test_channels_of_different_dtypes_take_the_one_that_holds_both(self) -> None:
        stacked = StackedChannels([np.full((2, 3), 255, np.uint8), np.full((2, 3), -1, np.int16)])
        assert stacked.dtype == np.int16
        assert stacked[:, 0, 0].tolist() == [255, -1]

    def test_only_the_channels_that_are_asked_for_are_read(self) -> None:
        channels = [RecordingArray(make_image(1, (4, 5, 6))[0]) for _ in range(3)]
        stacked = StackedChannels(channels)
        assert stacked[1, 2:4].shape == (2, 5, 6)
        assert [channel.read for channel in channels] == [[], [(2, 5, 6)], []]

    def test_different_shapes_are_refused_by_name(self) -> None:
        with pytest.raises(InputError, match=r"dapi has shape \(4, 5\)"):
            StackedChannels([np.zeros((4, 6)), np.zeros((4, 5))], names=["actin", "dapi"])

    def test_no_channel_is_refused(self) -> None:
        with pytest.raises(InputError, match="no channel"):
            StackedChannels([])
