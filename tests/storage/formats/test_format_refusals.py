"""Whatever is wrong with a file is one sentence that names it and says what to do; nothing is half written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import make_image

from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.formats import (
    annotation_suffixes,
    check_output,
    image_suffixes,
    label_suffixes,
    open_annotation,
    open_image,
    write_labels,
)

LIBRARIES = [(".nii", "nibabel", "nifti"), (".nii.gz", "nibabel", "nifti"), (".nrrd", "nrrd", "nrrd")]


class TestDamage:
    @pytest.mark.parametrize("suffix", [s for s in annotation_suffixes() if s != ".zarr"])
    @pytest.mark.parametrize(
        "content", [b"just text, long enough to hold a header" * 30, b"\x00", bytes(1000), b"II*\x00"]
    )
    def test_of_any_kind_is_one_sentence(self, tmp_path, suffix, content):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            np.asarray(open_annotation(path).array)
        message = str(error.value)
        assert str(path) in message
        assert "\n" not in message
        assert ";" in message
        assert error.value.__cause__ is not None

    @pytest.mark.parametrize("suffix", [s for s in annotation_suffixes() if s != ".zarr"])
    def test_no_bytes_are_told(self, tmp_path, suffix):
        (tmp_path / f"image{suffix}").touch()
        with pytest.raises(InputError, match=r"is empty \(0 bytes\); copy it again from its source"):
            open_annotation(tmp_path / f"image{suffix}")


class TestPaths:
    def test_missing_files(self, tmp_path):
        with pytest.raises(InputError, match=r"image.tif does not exist; check the path"):
            open_image(tmp_path / "image.tif")
        with pytest.raises(InputError, match=rf"\(nor does {tmp_path / 'a'}\); check the path"):
            open_image(tmp_path / "a" / "b" / "image.tif")

    def test_unknown_names_list_the_known(self, tmp_path):
        (tmp_path / "image.jpg").write_bytes(b"a")
        with pytest.raises(InputError) as error:
            open_image(tmp_path / "image.jpg")
        for suffix in image_suffixes():
            assert suffix in str(error.value)

    def test_folders_are_no_images(self, tmp_path):
        (tmp_path / "a.tif").mkdir()
        with pytest.raises(InputError, match=r"a.tif is a folder and no zarr; give the path of an image file in it"):
            open_image(tmp_path / "a.tif")

    @pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
    def test_pipes_are_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.tif")
        with pytest.raises(InputError, match=r"a.tif is a pipe or a device, .*; save it as a file first"):
            open_image(tmp_path / "a.tif")

    @pytest.mark.parametrize("name", ["a.zarr", "a.ome.zarr", "a.zarr.zip"])
    def test_packed_zarrs_are_to_be_unpacked(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"PK\3\4")
        with pytest.raises(InputError, match=r"is a file, but a zarr is a folder; if it is an archive, unpack it"):
            open_image(tmp_path / name)

    @pytest.mark.parametrize("path", ["a\0b.tif", "a" * 5000 + ".tif"])
    def test_impossible_names(self, path):
        with pytest.raises(InputError, match=r"cannot be the name of a file|does not exist"):
            open_image(path)

    @pytest.mark.parametrize("path", [3, None, b"a.tif"])
    def test_other_kinds(self, path):
        with pytest.raises(InputTypeError, match=r"a str or pathlib.Path is needed"):
            open_image(path)

    def test_numbers_are_integers(self, tmp_path):
        np.save(tmp_path / "a.npy", make_image())
        with pytest.raises(InputTypeError, match="level must be an integer"):
            open_image(tmp_path / "a.npy", level=0.5)

    @pytest.mark.parametrize("name", ["image.tif", "image.npy"])
    def test_what_may_not_be_read(self, tmp_path, monkeypatch, name):
        write_labels(tmp_path / name, make_image(dtype=np.uint8))

        def denied(self, *arguments, **options):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", denied)
        with pytest.raises(InputError, match=f"{name} may not be read; change its permissions"):
            open_image(tmp_path / name)

    def test_folders_that_may_not_be_listed(self, tmp_path, monkeypatch):
        write_labels(tmp_path / "a.zarr", make_image(dtype=np.uint8))

        def denied(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "iterdir", denied)
        with pytest.raises(InputError, match=r"a.zarr may not be read"):
            open_image(tmp_path / "a.zarr")

    def test_folders_that_may_not_be_entered(self, tmp_path, monkeypatch):
        def denied(self, **options):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "exists", denied)
        with pytest.raises(InputError, match=r"a.tif may not be read; change its permissions"):
            open_image(tmp_path / "a.tif")

    def test_libraries_that_libraries_need(self, tmp_path, monkeypatch):
        np.save(tmp_path / "a.npy", make_image())

        def lacks(*arguments, **options):
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr(np, "load", lacks)
        with pytest.raises(InputError, match=r"a library that is not installed \(Install s3fs to access S3\); get it"):
            open_image(tmp_path / "a.npy")

    def test_what_does_not_fit_into_memory(self, tmp_path, monkeypatch):
        np.save(tmp_path / "a.npy", make_image())

        def full(*arguments, **options):
            raise MemoryError

        monkeypatch.setattr(np, "load", full)
        with pytest.raises(InputError, match=r"a.npy does not fit into memory; convert it to OME-Zarr"):
            open_image(tmp_path / "a.npy")


@pytest.mark.parametrize(("suffix", "module", "extra"), [*LIBRARIES, (".ilp", "h5py", "ilastik")])
def test_missing_libraries_are_named_with_their_extra(tmp_path, monkeypatch, suffix, module, extra):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"content")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf'{module}, which is not installed; .* "napari-sparseseg\[{extra}\]"'):
        open_annotation(path)


def test_missing_libraries_are_noticed_before_work_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"napari-sparseseg\[nifti\]"):
        check_output(tmp_path / "a.nii.gz", overwrite=False)
    check_output(tmp_path / "a.nrrd", overwrite=False)


def test_importing_loads_no_libraries():
    code = "import sys, napari_sparseseg.storage.formats; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"zarr", "tifffile", "nibabel", "nrrd", "h5py", "dask", "ome_zarr_models", "torch", "qtpy"}
    assert not heavy & set(loaded)


class TestCheckOutput:
    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_passes_what_can_be_written(self, tmp_path, suffix):
        check_output(tmp_path / f"a{suffix}", overwrite=False)
        check_output(str(tmp_path / f"A{suffix.upper()}"), overwrite=True)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["labels", "labels.jpg", "labels.h5", ""])
    def test_of_unknown_names_lists_the_known(self, tmp_path, name):
        with pytest.raises(
            InputError, match=r"does not say in which format to write; end its name with .ome.zarr, .zarr"
        ):
            check_output(f"{tmp_path}/{name}", overwrite=False)

    def test_of_missing_folders(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no folder .*missing; make it first"):
            check_output(tmp_path / "missing" / "a.tif", overwrite=False)

    def test_of_folders_that_may_not_be_written_to(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(InputError, match=r"may not be written to; choose another folder"):
            check_output(tmp_path / "a.tif", overwrite=False)

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_of_what_exists(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        write_labels(path, make_image(dtype=np.uint8))
        with pytest.raises(InputError, match=r"exists; pass overwrite=True to replace it"):
            check_output(path, overwrite=False)
        check_output(path, overwrite=True)

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_of_what_is_of_another_kind(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        path.write_text("my notes")
        with pytest.raises(InputError, match=r"exists and is not a .*, so it is not replaced; choose another path"):
            check_output(path, overwrite=True)
        path.unlink()
        path.mkdir()
        with pytest.raises(InputError, match=r"exists and is not a "):
            check_output(path, overwrite=True)

    @pytest.mark.parametrize("path", [3, None])
    def test_of_what_is_no_path(self, path):
        with pytest.raises(InputTypeError, match=r"a str or pathlib.Path is needed"):
            check_output(path, overwrite=False)

    def test_of_urls(self):
        with pytest.raises(InputError, match="is a URL; write to a local folder"):
            check_output("s3://bucket/a.tif", overwrite=False)


class TestWrittenWhole:
    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_replaces_when_asked(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        write_labels(path, make_image(dtype=np.uint8))
        with pytest.raises(InputError, match="exists; pass overwrite=True"):
            write_labels(path, make_image(dtype=np.uint8))
        new = make_image((3, 6, 7), np.uint8, seed=1)
        write_labels(path, new, overwrite=True)
        np.testing.assert_array_equal(open_annotation(path).array[...], new)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_a_failure_leaves_the_old_one_and_nothing_else(self, tmp_path, suffix, monkeypatch):
        path = tmp_path / f"a{suffix}"
        old = make_image(dtype=np.uint8)
        write_labels(path, old)
        monkeypatch.setattr("napari_sparseseg.storage.formats._stack._SLAB_VOXELS", 4)

        class FailsLate:
            shape, dtype = (130, 4, 4), np.dtype(np.uint8)

            def __getitem__(self, index):
                if index[0].start > 0:
                    raise ArithmeticError
                return np.ones([part.stop - part.start for part in index], np.uint8)

        with pytest.raises(ArithmeticError):
            write_labels(path, FailsLate(), overwrite=True)
        np.testing.assert_array_equal(open_annotation(path).array[...], old)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_a_full_disk_is_told(self, tmp_path, suffix, monkeypatch):
        def full(handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"could not be written \(.*No space left on device.*; check the room"):
            write_labels(tmp_path / f"a{suffix}", make_image(dtype=np.uint8))
        assert list(tmp_path.iterdir()) == []

    def test_is_on_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        path = tmp_path / "a.tif"
        synced = []
        sync = os.fsync

        def listen(handle):
            synced.append(path.exists())
            sync(handle)

        monkeypatch.setattr(os, "fsync", listen)
        write_labels(path, make_image(dtype=np.uint8))
        assert synced == [False, True]  # the file, then its folder

    def test_follows_links(self, tmp_path):
        (tmp_path / "far").mkdir()
        (tmp_path / "a.npy").symlink_to(tmp_path / "far" / "b.npy")
        write_labels(tmp_path / "a.npy", make_image(dtype=np.uint8))
        assert (tmp_path / "far" / "b.npy").is_file()
        assert (tmp_path / "a.npy").is_symlink()

    def test_replaces_links_that_lead_nowhere(self, tmp_path):
        (tmp_path / "a.npy").symlink_to(tmp_path / "a.npy")
        write_labels(tmp_path / "a.npy", make_image(dtype=np.uint8))
        assert (tmp_path / "a.npy").is_file()

    def test_a_source_may_replace_itself(self, tmp_path):
        path = tmp_path / "a.tif"
        labels = make_image(dtype=np.uint8)
        write_labels(path, labels)
        write_labels(path, open_annotation(path).array, spacing=(2, 1, 1), overwrite=True)
        np.testing.assert_array_equal(open_annotation(path).array[...], labels)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"spacing": (1, 2)}, "has 2 numbers; 3 are needed"),
            ({"spacing": (0, 1, 1)}, "contains 0.0; voxel sizes are positive"),
            ({"spacing": (1, 1, 1), "unit": "parsec"}, r"'parsec' is (not|no) known"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".tif", ".nii"])
    def test_unusable_voxel_sizes_are_refused(self, tmp_path, suffix, options, said):
        with pytest.raises(InputError, match=said):
            write_labels(tmp_path / f"a{suffix}", make_image(dtype=np.uint8), **options)
        assert list(tmp_path.iterdir()) == []
