"""Labels of a time series: whole or not at all, one time point at a time."""

from __future__ import annotations

import os

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_annotation
from napari_sparseseg.storage.series import check_series_output, time_points, write_series

NAMES = ["labels.ome.zarr", "labels.ome.tif", "labels.tif", "labels.npy"]
SERIES = np.random.default_rng(0).integers(0, 5, (3, 4, 40, 30)).astype(np.uint8)


def read(path, axes=None):
    found = open_annotation(path, axes=axes)
    return found, np.asarray(found.array[(slice(None),) * len(found.array.shape)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [SERIES, SERIES[:, 0]], ids=["3d", "2d"])
def test_what_was_written_comes_back(tmp_path, name, labels):
    spacing = (2.0, 0.5, 0.25)[-(labels.ndim - 1) :]
    write_series(tmp_path / name, iter(labels), len(labels), spacing=spacing)
    axes = "TZYX" if labels.ndim == 4 else "TYX"
    found, values = read(tmp_path / name, axes if name.endswith("npy") else None)
    np.testing.assert_array_equal(values, labels)
    assert found.axes == axes
    if not name.endswith("npy"):
        assert found.spacing == pytest.approx(spacing)
        assert found.unit == "micrometer"


@pytest.mark.parametrize("name", NAMES[1:3])
@pytest.mark.parametrize("limit", [SERIES.nbytes, SERIES.nbytes + 1])
def test_tifffile_sees_a_bigtiff_where_it_is_large(tmp_path, name, limit, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.storage.formats.tiff._CLASSIC_BYTES", limit)
    write_series(tmp_path / name, iter(SERIES), len(SERIES))
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_bigtiff == (limit == SERIES.nbytes)
    np.testing.assert_array_equal(read(tmp_path / name)[1], SERIES)


@pytest.mark.parametrize("name", NAMES[:2])
def test_without_voxel_size_none_is_written(tmp_path, name):
    write_series(tmp_path / name, iter(SERIES), len(SERIES))
    assert read(tmp_path / name)[0].spacing is None


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_unit_is_kept(tmp_path, name):
    write_series(tmp_path / name, iter(SERIES), len(SERIES), spacing=(2, 1, 1), unit="nanometer")
    found = read(tmp_path / name)[0]
    assert (found.spacing, found.unit) == ((2, 1, 1), "nanometer")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_told(tmp_path, name, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="could not be written"):
        write_series(tmp_path / name, iter(SERIES), len(SERIES))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_time_points_are_asked_for_one_after_the_other(tmp_path, name):
    alive = []

    def frames():
        for frame in SERIES:
            alive.append(frame.copy())
            yield alive[-1]

    write_series(tmp_path / name, frames(), len(SERIES))
    assert len(alive) == len(SERIES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_a_failure_midway_leaves_what_was_there(tmp_path, name, error):
    def frames():
        yield SERIES[0]
        raise error

    with pytest.raises(error):
        write_series(tmp_path / name, frames(), len(SERIES))
    assert not list(tmp_path.iterdir())
    write_series(tmp_path / name, iter(SERIES), len(SERIES))
    with pytest.raises(error):
        write_series(tmp_path / name, frames(), len(SERIES), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(read(tmp_path / name, "TZYX" if name.endswith("npy") else None)[1], SERIES)


def test_nothing_is_overwritten_unasked(tmp_path):
    write_series(tmp_path / "a.npy", iter(SERIES), 3)
    with pytest.raises(InputError, match="exists"):
        write_series(tmp_path / "a.npy", iter(SERIES), 3)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a", "a.npz"])
def test_formats_without_time_are_refused(name):
    with pytest.raises(InputError, match="cannot hold the time points"):
        check_series_output(name)


class TestTimePoints:
    @given(st.permutations("TCZYX"), st.integers(0, 5))
    def test_any_order_of_axes_gives_the_same_volumes(self, letters, n_dropped):
        sizes = {"T": 3, "C": 2, "Z": 4, "Y": 5, "X": 6}
        dropped = ["", "T", "C", "Z", "TC", "CZ"][n_dropped]
        plain = "".join(letter for letter in "TCZYX" if letter not in dropped)
        axes = "".join(letter for letter in letters if letter not in dropped)
        array = np.arange(np.prod([sizes[a] for a in plain])).reshape([sizes[a] for a in plain])
        turned = array.transpose([plain.index(letter) for letter in axes])
        found = time_points(turned, axes.lower())
        wanted = array if "T" in plain else array[np.newaxis]
        assert len(found) == len(wanted)
        for volume, frame in zip(found, wanted, strict=True):
            assert volume.shape == frame.shape
            np.testing.assert_array_equal(volume[...], frame)
            part = (slice(0, 2), slice(1, 3))
            np.testing.assert_array_equal(volume[part], frame[part])

    def test_nothing_is_read_before_slicing(self):
        class Counted:
            shape, dtype, asked = (3, 4, 5, 6), np.dtype(np.uint8), 0

            def __getitem__(self, index):
                self.asked += 1
                return np.zeros(self.shape, np.uint8)[index]

        array = Counted()
        volumes = time_points(array, "ZTYX")
        assert [volume.shape for volume in volumes] == [(3, 5, 6)] * 4
        assert array.asked == 0
        assert volumes[1][0:1, 0:2, 0:3].shape == (1, 2, 3)
        assert array.asked == 1

    def test_dask_arrays_stay_lazy_and_keep_their_chunks(self):
        array = da.from_array(SERIES, chunks=(1, 2, 40, 30))
        volume = time_points(array, "TZYX")[2]
        assert volume.chunks[0] == (2, 2)
        np.testing.assert_array_equal(volume[:, 3:9], SERIES[2, :, 3:9])

    @pytest.mark.parametrize("axes", ["ZYX", "TZYY", "TZYQ", "TCZY"])
    def test_letters_that_do_not_fit_are_refused(self, axes):
        with pytest.raises(InputError, match=f"axes='{axes}'"):
            time_points(SERIES, axes)


def test_the_position_is_kept_by_ome_zarr(tmp_path):
    write_series(tmp_path / "a.ome.zarr", iter(SERIES), len(SERIES), spacing=(2, 1, 1), offset=(0, 0.5, 0.25))
    assert read(tmp_path / "a.ome.zarr")[0].offset == (0, 0.5, 0.25)
