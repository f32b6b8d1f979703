"""What a stranger's project says of its images: damaged voxels, places elsewhere, addresses of other computers."""

from __future__ import annotations

import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from napari_sparseseg.errors import InputError, ProjectError, ProjectReadOnlyError
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.reference import (
    ImageOrigin,
    ImageReference,
    ImageState,
    find,
    fingerprint_of,
    origin_of,
)

SHAPE = (1, 4, 30, 20)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    return folder / "cells.sparseseg"


def project_with(path, pixels, reference=None):
    """A project of one image, which is said to lie elsewhere."""
    with Project.create(path) as project:
        image = project.add_image(pixels, shape=SHAPE, time_axis=0)
        if reference is not None:
            fingerprint = image.entry.reference.fingerprint
            image.refer(reference.model_copy(update={"fingerprint": fingerprint}), None)
        else:
            image.store_pixels(pixels)
    return Project.open(path, read_only=True)


class Strict:
    """An array, like tensors of torch and stores of tensorstore: of a dtype of its own, and no slice beyond its end."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape
        self.dtype = "Strict.uint8"

    def __getitem__(self, index):
        if any(part.stop > size for part, size in zip(index, self.shape, strict=True)):
            raise ValueError("out of range")
        return self.array[index]


class TestFingerprint:
    @pytest.mark.parametrize("kind", ["torch", "tensorstore", "strict"])
    def test_it_is_the_same_whatever_library_holds_the_voxels(self, kind, pixels):
        if kind == "tensorstore":
            wrapped = pytest.importorskip("tensorstore", reason="holds arrays").array(pixels)
        else:
            wrapped = Strict(pixels) if kind == "strict" else torch.from_numpy(pixels)
        assert fingerprint_of(wrapped, None) == fingerprint_of(pixels, None)


class TestStoredPixels:
    def chunks(self, path):
        return [file for file in (path / "images" / "0" / "pixels" / "0" / "c").rglob("*") if file.is_file()]

    def test_they_are_read_piece_by_piece_also_in_another_process(self, path, pixels):
        with project_with(path, pixels) as project:
            array = project.images[0].read()
            assert (array.shape, array.dtype) == (SHAPE, np.uint8)
            np.testing.assert_array_equal(array[0, 1:3, 4], pixels[0, 1:3, 4])
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[...], pixels)

    def test_opening_reads_no_voxel(self, path, pixels):
        with project_with(path, pixels) as project:
            (file,) = self.chunks(path)
            file.write_bytes(b"not a shard")
            assert project.images[0].read().shape == SHAPE

    @pytest.mark.parametrize("at", [0, -10])
    def test_damaged_voxels_say_what_to_do(self, path, pixels, at):
        with project_with(path, pixels) as project:
            (file,) = self.chunks(path)
            content = bytearray(file.read_bytes())
            content[at] ^= 0xFF
            file.write_bytes(content)
            with pytest.raises(InputError, match=r"pixels cannot be read as an image .*; it is damaged: use a backup"):
                project.images[0].read()[...]

    def test_what_is_stored_is_not_stored_from_itself(self, path, pixels):
        project_with(path, pixels).close()
        with Project.open(path) as project:
            with pytest.raises(ProjectError, match="holds the image's voxels already"):
                project.images[0].store_pixels(project.images[0].read())
            np.testing.assert_array_equal(project.images[0].read()[...], pixels)

    def test_what_was_stored_before_may_be_where_they_come_from(self, path, pixels):
        project_with(path, pixels).close()
        with Project.open(path) as project:
            (image,) = project.images
            array = image.read()
            image.refer(image.entry.reference, None)
            image.store_pixels(array)
            np.testing.assert_array_equal(image.read()[...], pixels)

    def test_what_cannot_be_read_leaves_what_was_there(self, path, pixels):
        class Unreadable:
            shape, dtype = pixels.shape, pixels.dtype

            def __getitem__(self, index):
                raise OSError("gone")

        project_with(path, pixels).close()
        with Project.open(path) as project:
            (image,) = project.images
            array = image.read()
            image.refer(image.entry.reference, None)
            with pytest.raises(OSError, match="gone"):
                image.store_pixels(Unreadable())
            np.testing.assert_array_equal(array[...], pixels)
            assert not image.entry.is_stored
        assert not list((path / "images" / "0").glob("*.partial"))

    @pytest.mark.parametrize("name", ["pixels.partial", "pixels.0123abcd.partial"])  # the former of older versions
    def test_what_a_crash_left_half_copied_is_removed_when_the_project_is_opened(self, path, pixels, name):
        project_with(path, pixels).close()
        partial = path / "images" / "0" / name
        shutil.copytree(path / "images" / "0" / "pixels", partial)
        Project.open(path, read_only=True).close()
        assert partial.exists()
        with Project.open(path) as project:
            assert not partial.exists()
            np.testing.assert_array_equal(project.images[0].read()[...], pixels)

    def test_what_is_being_copied_stays_while_the_annotation_is_saved(self, path, pixels):
        with Project.create(path) as project:
            image = project.add_image(pixels, shape=SHAPE, time_axis=0)

            class Saving:
                shape, dtype = pixels.shape, pixels.dtype

                def __getitem__(self, index):
                    image.clean()
                    assert list((path / "images" / "0").glob("pixels*.partial"))
                    return pixels[index]

            image.store_pixels(Saving())
            np.testing.assert_array_equal(image.read()[...], pixels)

    def test_one_that_has_let_the_project_go_does_not_touch_what_the_next_one_copies(self, path, pixels):
        reads, may_end = threading.Event(), threading.Event()
        errors = []

        class Slow:
            shape, dtype = pixels.shape, pixels.dtype

            def __getitem__(self, index):
                reads.set()
                may_end.wait(20)
                return pixels[index]

        def store():
            try:
                former.images[0].store_pixels(Slow())
            except (OSError, ProjectError) as error:
                errors.append(error)

        class WhileTheFormerEnds:
            shape, dtype = pixels.shape, pixels.dtype

            def __getitem__(self, index):
                may_end.set()
                storing.join(20)
                return pixels[index]

        former = Project.create(path)
        former.add_image(pixels, shape=SHAPE, time_axis=0)
        storing = threading.Thread(target=store)
        storing.start()
        assert reads.wait(20)
        former.close()
        with Project.open(path) as project:
            (image,) = project.images
            image.store_pixels(WhileTheFormerEnds())
            np.testing.assert_array_equal(image.read()[...], pixels)
        assert list(map(type, errors)) == [ProjectReadOnlyError]
        assert not list((path / "images" / "0").glob("*.partial"))

    def test_they_do_not_lie_elsewhere(self, path, pixels, tmp_path):
        with project_with(path, pixels) as project:
            (file,) = self.chunks(path)
            file.rename(tmp_path / "secret")
            file.symlink_to(tmp_path / "secret")
            with pytest.raises(ProjectError, match="is a link"):
                project.images[0].read()


class TestOrigin:
    def test_of_what_is_stored_or_only_in_memory(self, path, pixels):
        with Project.create(path) as project:
            image = project.add_image(pixels, shape=SHAPE, time_axis=0)
            assert image.origin is ImageOrigin.MEMORY
            image.store_pixels(pixels)
            assert image.origin is ImageOrigin.PROJECT

    def test_of_files(self, path, pixels, tmp_path):
        for file in (path.parent / "near.npy", tmp_path / "far.npy"):
            np.save(file, pixels)
        with Project.create(path) as project:
            for name, origin in ((path.parent / "near.npy", ImageOrigin.NEAR), (tmp_path / "far.npy", ImageOrigin.FAR)):
                image = project.add_image(pixels, shape=SHAPE, time_axis=0, path=name)
                assert image.origin is origin

    def test_it_is_that_of_the_file_that_would_be_opened(self, path, pixels, tmp_path):
        np.save(tmp_path / "far.npy", pixels)
        near = str(path.parent / "is not there.npy")
        with project_with(path, pixels, ImageReference(path=near, relative="../../far.npy")) as project:
            assert project.images[0].check().path == str(tmp_path / "far.npy")
            assert project.images[0].origin is ImageOrigin.FAR

    @pytest.mark.parametrize(
        ("name", "origin"),
        [
            ("https://host/a.zarr", ImageOrigin.NETWORK),
            ("file:///etc/passwd", ImageOrigin.NETWORK),
            ("simplecache::https://host/a.zarr", ImageOrigin.NETWORK),
            ("\\\\host\\share\\a.tif", ImageOrigin.NETWORK),
            ("//host/share/a.tif", ImageOrigin.NETWORK),
            ("{folder}/../a.tif", ImageOrigin.FAR),
            ("{folder}-2/a.tif", ImageOrigin.FAR),
            ("{folder}/b/a.tif", ImageOrigin.NEAR),
            ("{folder}/link/a.tif", ImageOrigin.FAR),
        ],
    )
    def test_of_paths(self, path, tmp_path, name, origin):
        (path.parent / "link").symlink_to(tmp_path)
        assert origin_of(name.format(folder=path.parent), path) is origin


class TestNetwork:
    @pytest.fixture(params=["https://host.invalid/a.zarr", "\\\\host\\share\\a.tif", "//host/share/a.tif"])
    def address(self, request):
        return request.param

    def test_nothing_is_opened_or_looked_for_before_the_user_agreed(self, path, pixels, address, monkeypatch):
        with project_with(path, pixels, ImageReference(path=address)) as project:
            image = project.images[0]
            monkeypatch.setattr(Path, "stat", lambda *args, **kwargs: pytest.fail("looked at a file"))
            found = image.check()
            assert (found.state, found.path) == (ImageState.UNASKED, None)
            assert image.origin is ImageOrigin.NETWORK
            with pytest.raises(ProjectError, match=r"lies on the network, at .*host.*; it is opened only if you agree"):
                image.read()

    def test_what_the_user_opened_by_hand_is_compared(self, path, pixels, address):
        with project_with(path, pixels, ImageReference(path=address)) as project:
            assert project.images[0].check(pixels).state is ImageState.SAME
            assert project.images[0].check(pixels + 1).state is ImageState.CHANGED

    def test_a_url_that_the_user_agreed_to_is_opened(self, path, pixels, tmp_path):
        zarr.save(tmp_path / "a.zarr", pixels)
        address = (tmp_path / "a.zarr").as_uri()
        with project_with(path, pixels, ImageReference(path=address, axes="TZYX")) as project:
            image = project.images[0]
            assert image.check(may_connect=True).path == address
            np.testing.assert_array_equal(image.read(may_connect=True)[...], pixels[0])

    @pytest.mark.parametrize(
        "relative", ["//host/share/a.tif", "\\\\host\\share\\a.tif", "C:\\a.tif", "C:a.tif", "/a.tif"]
    )
    def test_a_relative_path_is_relative(self, path, relative, monkeypatch):
        looked_at = []
        monkeypatch.setattr(Path, "exists", lambda self: looked_at.append(self))
        reference = ImageReference(path=str(path.parent / "a.tif"), relative=relative)
        assert find(reference, path).state is ImageState.MISSING
        assert looked_at == [path.parent / "a.tif"]
