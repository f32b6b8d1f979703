"""Axes are named by the file, by the user, or guessed where there is one way only."""

from __future__ import annotations

import itertools
import pickle

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from image_files import make_image

from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.formats import ImageFile, open_annotation, open_image
from napari_sparseseg.storage.formats._axes import named_axes, reading_order
from napari_sparseseg.storage.formats._lazy import LazyArray, LoadedOnce, Source
from napari_sparseseg.storage.units import factor, in_one_unit, unit_name


def saved(tmp_path, image):
    np.save(tmp_path / "image.npy", image)
    return tmp_path / "image.npy"


@pytest.mark.parametrize(
    ("axes", "shape", "found"),
    [
        ("??", (30, 40), "YX"),
        ("???", (20, 30, 40), "ZYX"),
        ("???", (3, 30, 40), "ZYX"),
        ("????", (2, 20, 30, 40), "CZYX"),
        ("????", (20, 2, 30, 40), "ZCYX"),
        ("????", (20, 30, 40, 3), "ZYXC"),
        ("?YX", (20, 30, 40), "ZYX"),
        ("??YX", (3, 20, 30, 40), "CZYX"),
        ("?YXC", (20, 30, 40, 3), "ZYXC"),
        ("TCYX", (20, 3, 30, 40), "TCYX"),
    ],
)
def test_guesses(axes, shape, found):
    assert named_axes(axes, shape, None, "a.npy") == found


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("????", (20, 30, 40, 50)),
        ("????", (2, 3, 40, 50)),
        ("?????", (2, 20, 30, 40, 50)),
        ("?", (20,)),
        ("??YXC", (9, 20, 30, 40, 3)),
    ],
)
def test_does_not_guess_where_there_are_several_ways(axes, shape):
    with pytest.raises(InputError, match=r'a.npy has \d axes? of sizes .*axes="CZYX"|lack Y or X'):
        named_axes(axes, shape, None, "a.npy")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("ZY", r"axes 'ZY' name 2 axes, but .*image.npy has 3 axes of sizes \(5, 24, 18\)"),
        ("ZYY", "axes 'ZYY' are not usable"),
        ("QYX", "axes 'QYX' are not usable"),
        ("", "axes '' are not usable"),
        ("TZX", "axes 'TZX' lack Y or X"),
        (3, "axes 3 are not usable"),
    ],
)
def test_users_axes_are_checked(tmp_path, wanted, said):
    with pytest.raises(InputError, match=said):
        open_image(saved(tmp_path, make_image()), axes=wanted)


def test_users_axes_may_be_small_letters(tmp_path):
    assert open_image(saved(tmp_path, make_image()), axes="cyx").axes == "CYX"


@pytest.mark.parametrize("letters", ["".join(p) for p in itertools.permutations("ZYX")])
def test_spatial_axes_are_presented_in_one_order(tmp_path, letters):
    image = make_image((4, 5, 6))
    on_disk = image.transpose(["ZYX".index(letter) for letter in letters])
    found = open_image(saved(tmp_path, on_disk), axes=letters)
    assert found.axes == "ZYX"
    np.testing.assert_array_equal(found.array[...], image)
    np.testing.assert_array_equal(found.array[1:3, 2, 1:], image[1:3, 2, 1:])


def test_a_single_time_point_is_left_out(tmp_path):
    image = make_image((1, 2, 5, 6, 7))
    found = open_image(saved(tmp_path, image), axes="TCZYX")
    assert (found.axes, found.channel_axis, found.time_axis, found.n_frames) == ("CZYX", 0, None, 1)
    np.testing.assert_array_equal(found.array[...], image[0])


@given(st.permutations("TCZYX"), st.tuples(*[st.integers(1, 3)] * 5))
def test_the_reading_order_keeps_every_axis_but_a_single_time_point(letters, shape):
    axes = "".join(letters)
    order = reading_order(axes, shape)
    shown = "".join(axes[i] for i in order)
    expected = set("CZYX") | ({"T"} if shape[axes.index("T")] > 1 else set())
    assert set(shown) == expected
    assert len(order) == len(set(order))
    assert "".join(letter for letter in shown if letter in "ZYX") == "ZYX"


class TestFrames:
    def test_are_lazy_images_without_time(self, tmp_path):
        image = make_image((2, 4, 5, 6, 7))
        found = open_image(saved(tmp_path, image), axes="CTZYX")
        frame = found.frame(3)
        assert (frame.axes, frame.time_axis, frame.channel_axis, found.n_frames) == ("CZYX", None, 0, 4)
        assert isinstance(frame.array, LazyArray)
        np.testing.assert_array_equal(frame.array[:, 1:3], image[:, 3, 1:3])
        np.testing.assert_array_equal(found.frame(-1).array[...], image[:, 3])

    def test_of_a_still_image_are_itself(self, tmp_path):
        found = open_image(saved(tmp_path, make_image()))
        assert found.frame(0) is found

    @pytest.mark.parametrize("t", [4, -5])
    def test_that_do_not_exist_are_refused(self, tmp_path, t):
        found = open_image(saved(tmp_path, make_image((4, 5, 6, 7))), axes="TZYX")
        with pytest.raises(InputError, match=rf"has no time point {t}; it has 4, counted from 0 to 3"):
            found.frame(t)
        with pytest.raises(InputTypeError, match="a time point must be an integer"):
            found.frame(1.5)

    def test_work_on_arrays_in_memory(self):
        image = make_image((3, 5, 6, 7))
        found = ImageFile("a", image, "TZYX", None, None, (), "NPY").frame(2)
        np.testing.assert_array_equal(found.array, image[2])


class TestAnnotations:
    def test_lose_a_single_channel(self, tmp_path):
        found = open_annotation(saved(tmp_path, make_image((1, 5, 6, 7))), axes="CZYX")
        assert found.axes == "ZYX"
        assert found.array.shape == (5, 6, 7)

    def test_of_several_channels_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"image.npy has 2 channels, but painted labels need one value"):
            open_annotation(saved(tmp_path, make_image((2, 7, 8, 9))))


class TestLazyArrays:
    image = make_image((4, 5, 6))

    @pytest.fixture
    def lazy(self, tmp_path):
        return open_image(saved(tmp_path, self.image)).array

    @pytest.mark.parametrize(
        "index",
        [
            np.s_[...],
            np.s_[1],
            np.s_[-1, 2:, ::2],
            np.s_[..., 3],
            np.s_[1:3, ..., -2],
            np.s_[3:1],
            np.s_[np.int64(2), 1:2],
            np.s_[:, :, 5:99],
        ],
    )
    def test_are_indexed_like_numpy(self, lazy, index):
        np.testing.assert_array_equal(lazy[index], self.image[index], strict=True)

    @pytest.mark.parametrize(
        ("index", "error"),
        [
            (np.s_[::-1], IndexError),
            (np.s_[4], IndexError),
            (np.s_[0, 0, 0, 0], IndexError),
            (np.s_[..., ...], IndexError),
            ([1, 2], InputTypeError),
        ],
    )
    def test_refuse_other_indices(self, lazy, index, error):
        with pytest.raises(error):
            lazy[index]

    def test_behave_as_arrays(self, lazy):
        assert (lazy.shape, lazy.ndim, len(lazy), lazy.dtype) == ((4, 5, 6), 3, 4, np.uint16)
        assert "image.npy: (4, 5, 6) uint16" in repr(lazy)
        np.testing.assert_array_equal(np.asarray(lazy, np.float32), self.image)
        assert da.from_array(lazy, chunks=2).sum().compute() == self.image.sum()

    def test_are_pickled_by_their_path(self, tmp_path):
        image = make_image((3, 200, 300))
        found = open_image(saved(tmp_path, image), axes="TYX").frame(1)
        pickled = pickle.dumps(found.array)
        assert len(pickled) < 2000
        np.testing.assert_array_equal(pickle.loads(pickled)[...], image[1])

    def test_of_compressed_tiff_are_pickled_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.storage.formats.tiff._HELD_BYTES", 0)
        tifffile.imwrite(tmp_path / "a.tif", self.image, compression="zlib", photometric="minisblack")
        again = pickle.loads(pickle.dumps(open_image(tmp_path / "a.tif").array))
        np.testing.assert_array_equal(again[1:3], self.image[1:3])

    def test_know_the_chunks_of_zarr(self, tmp_path):
        zarr.create_array(tmp_path / "a.zarr", shape=(4, 6, 8), chunks=(1, 2, 4), dtype="u1")
        assert open_image(tmp_path / "a.zarr", axes="XYZ").array.chunks == (4, 2, 1)

    def test_tell_a_damaged_file_when_it_shows(self):
        def broken():
            raise ZeroDivisionError

        array = LazyArray(LoadedOnce((2, 3), "u1", broken), Source("a.tif", None, None), (0, 1), {})
        with pytest.raises(InputError, match=r"a.tif cannot be read as an image \(ZeroDivisionError\); it is damaged"):
            array[...]


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("µm", "micrometer"),
            ("\u03bcm", "micrometer"),
            ("\\u00B5m", "micrometer"),
            ("um", "micrometer"),
            ("Microns", "micrometer"),
            ("micrometre", "micrometer"),
            ("Å", "angstrom"),
            (" nm ", "nanometer"),
            ("millimeters", "millimeter"),
            ("pixel", None),
            ("", None),
            (7, None),
        ],
    )
    def test_have_one_name(self, text, name):
        assert unit_name(text) == name

    def test_are_converted(self):
        assert factor("micrometer", "millimeter") == 1e-3
        assert factor("parsec", "meter") is None
        assert in_one_unit((1.0, 500.0, None), ("micrometer", "nanometer", "micrometer")) == (
            (1.0, 0.5, None),
            "micrometer",
        )
        assert in_one_unit((1.0, 2.0), ("parsec", "meter")) == ((None, 2.0), "meter")
        assert in_one_unit((1.0, 2.0), (None, None)) == ((1.0, 2.0), None)
