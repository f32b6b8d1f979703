"""Labels of a time series: whole or not at all, one time point at a time."""

from __future__ import annotations

import os

import numpy as np
import pytest

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_annotation
from napari_sparseseg.storage.series import check_series_output, write_series

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
