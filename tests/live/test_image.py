"""The image that is worked on, whatever its axes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.live.image import AbandonedError, LiveImage, Watched
from napari_sparseseg.storage.volume import ArrayVolume

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 5, "X": 6}


def make(axes):
    """An image with these axes, such as "TCZYX"; each voxel is another number."""
    shape = tuple(SIZES[axis] for axis in axes)
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def open_image(axes, spacing=None):
    position = {name: axes.index(name) if name in axes else None for name in "CT"}
    return LiveImage.of(make(axes), position["C"], position["T"], spacing)


@pytest.mark.parametrize(
    ("axes", "shape", "image_shape"),
    [
        ("YX", (1, 1, 5, 6), (5, 6)),
        ("ZYX", (1, 4, 5, 6), (4, 5, 6)),
        ("YXC", (1, 1, 5, 6), (5, 6)),
        ("CZYX", (1, 4, 5, 6), (4, 5, 6)),
        ("TYX", (3, 1, 5, 6), (3, 5, 6)),
        ("TZYX", (3, 4, 5, 6), (3, 4, 5, 6)),
        ("TCZYX", (3, 4, 5, 6), (3, 4, 5, 6)),
        ("CTZYX", (3, 4, 5, 6), (3, 4, 5, 6)),
        ("ZYXTC", (3, 4, 5, 6), (4, 5, 6, 3)),
    ],
)
def test_axes_are_told_apart_and_frames_read(axes, shape, image_shape):
    image = open_image(axes)
    assert image.shape == shape
    assert image.image_shape == image_shape
    assert image.n_channels == (2 if "C" in axes else 1)
    assert image.n_spatial == (3 if "Z" in axes else 2)
    wanted = make(axes)
    if "T" in axes:
        wanted = np.take(wanted, 1, axes.index("T"))
    without_time = axes.replace("T", "")
    wanted = np.moveaxis(wanted, without_time.index("C"), 0) if "C" in axes else wanted[None]
    volume = image.volume(1 if "T" in axes else 0)
    np.testing.assert_array_equal(volume.read(Box.whole(volume.shape)), wanted.reshape(-1, *shape[1:]))


def test_axes_may_be_counted_from_the_end():
    image = LiveImage.of(make("TZYXC"), -1, -5, None)
    assert image.shape == (3, 4, 5, 6)
    assert (image.channel_axis, image.time_axis) == (4, 0)


def test_spacing_is_along_the_axes_of_space():
    assert open_image("TZYX", (2.0, 0.5, 0.5)).spacing == (2.0, 0.5, 0.5)
    assert open_image("TYX", (0.5, 0.25)).spacing[1:] == (0.5, 0.25)
    with pytest.raises(InputError):
        open_image("TYX", (1.0, 1.0, 0.5, 0.25))


def test_flat_axes_hold_a_single_voxel():
    assert open_image("YX").flat == (True, False, False)
    assert open_image("ZYX").flat == (False, False, False)


@pytest.mark.parametrize(
    ("image", "channel_axis", "time_axis", "error", "text"),
    [
        (make("ZYX"), 0, 0, InputError, "both 0"),
        (make("ZYX"), 5, None, InputError, "channel_axis=5"),
        (make("ZYX"), None, -4, InputError, "time_axis=-4"),
        (make("ZYX"), "C", None, InputTypeError, "channel_axis must be"),
        (make("TZYX"), None, None, InputError, "4 axes"),
        ("image.tif", None, None, InputTypeError, "image"),
        (np.zeros((4, 5, 6), complex), None, None, InputTypeError, "complex"),
    ],
)
def test_what_cannot_be_used_is_named(image, channel_axis, time_axis, error, text):
    with pytest.raises(error, match=text):
        LiveImage.of(image, channel_axis, time_axis, None)


def test_nothing_is_read_before_it_is_needed():
    class Unread:
        shape, dtype = (3, 4, 5, 6), np.dtype("uint16")

        def __getitem__(self, index):
            raise AssertionError("read")

    LiveImage.of(Unread(), None, 0, None).volume(2)


def test_an_image_that_is_not_wanted_any_more_is_not_read():
    is_wanted = [True]
    watched = Watched(ArrayVolume(make("ZYX")), lambda: is_wanted[0])
    assert watched.read(Box.whole((4, 5, 6))).shape == (1, 4, 5, 6)
    is_wanted.clear()
    is_wanted.append(False)
    with pytest.raises(AbandonedError):
        watched.read(Box.whole((4, 5, 6)))
