"""Strokes of ilastik projects, in the layout that ilastik 1.4 writes and in that of earlier versions."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import axistags, write_ilastik

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.formats import ilastik as module
from napari_sparseseg.storage.formats import open_annotation, open_image
from napari_sparseseg.storage.formats._lazy import LazyArray, Source
from napari_sparseseg.storage.volume import ArrayVolume

SHAPES = {"t": 3, "z": 6, "y": 20, "x": 30, "c": 1}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "project.ilp"


def stroke(keys, sizes, value):
    return np.full([sizes.get(key, 1) for key in keys], value, np.uint8)


def lane(keys, *, n_channels=1):
    """Two blocks: class 1 at z 2, y 3:7, x 5:15, class 2 at z 4, y 10:12, x 20:30, at time 1."""
    shape = [SHAPES[key] if key != "c" else n_channels for key in keys]
    starts = [{"t": 1, "z": 2, "y": 3, "x": 5}, {"t": 1, "z": 4, "y": 10, "x": 20}]
    sizes = [{"y": 4, "x": 10}, {"y": 2, "x": 10}]
    blocks = [
        ([start.get(key, 0) for key in keys], stroke(keys, size, value))
        for start, size, value in zip(starts, sizes, (1, 2), strict=True)
    ]
    return shape, blocks


def expected():
    labels = np.zeros((6, 20, 30), np.uint8)
    labels[2, 3:7, 5:15] = 1
    labels[4, 10:12, 20:30] = 2
    return labels


@pytest.mark.parametrize("keys", ["zyxc", "zyx", "xyzc", "czyx", "xzyc"])
def test_strokes_lie_where_they_were_painted(path, keys):
    write_ilastik(path, [lane(keys)], keys=keys)
    found = open_annotation(path)
    assert (found.format, found.axes, found.array.dtype) == ("ilastik project", "ZYX", np.uint8)
    assert (found.spacing, found.class_names) == (None, {1: "bone", 2: "rest"})
    np.testing.assert_array_equal(found.array[...], expected(), strict=True)


@pytest.mark.parametrize("keys", ["tzyxc", "txyzc", "zyxtc"])
def test_time_is_kept(path, keys):
    write_ilastik(path, [lane(keys)], keys=keys)
    found = open_annotation(path)
    assert (found.n_frames, found.spatial_axes) == (3, "ZYX")
    np.testing.assert_array_equal(found.frame(1).array[...], expected())
    assert not found.frame(0).array[...].any()


def test_in_2d_have_two_axes(path):
    write_ilastik(path, [([20, 30, 1], [([3, 5, 0], stroke("yxc", {"y": 4, "x": 10}, 1))])], keys="yxc")
    found = open_annotation(path)
    assert (found.axes, found.array.shape) == ("YX", (20, 30))
    assert found.array[...].sum() == 40


def test_images_of_several_channels_have_labels_of_one(path):
    write_ilastik(path, [lane("zyxc", n_channels=3)])
    np.testing.assert_array_equal(open_annotation(path).array[...], expected())


def test_early_projects_end_where_the_paint_ends(path):
    write_ilastik(path, [lane("zyxc")], says_shape=False)
    np.testing.assert_array_equal(open_annotation(path).array[...], expected()[:5, :12])


def test_early_projects_tag_the_image_only(path):
    write_ilastik(path, [lane("xyzc")], keys="xyzc", is_tagged=False)
    np.testing.assert_array_equal(open_annotation(path).array[...], expected())


@pytest.mark.parametrize("keys", ["tzyxc", "zyxc", "zyx"])
def test_the_earliest_projects_say_nothing(path, keys):
    write_ilastik(path, [lane(keys)], keys=keys, is_tagged=False, says_shape=False)
    with h5py.File(path, "a") as project:
        del project["Input Data"]
    found = open_annotation(path)
    assert found.spatial_axes == "ZYX"
    np.testing.assert_array_equal(found.frame(-1).array[...], expected()[:5, :12])


def test_an_axis_order_stands_in_for_tags(path):
    write_ilastik(path, [lane("xyzc")], keys="xyzc", is_tagged=False)
    with h5py.File(path, "a") as project:
        raw = project["Input Data/infos/lane0000/Raw Data"]
        del raw["axistags"]
        raw["axisorder"] = b"xyzc"
    np.testing.assert_array_equal(open_annotation(path).array[...], expected())


def test_blocks_of_masked_images_are_groups(path):
    write_ilastik(path, [lane("zyxc")])
    with h5py.File(path, "a") as project:
        blocks = project["PixelClassification/LabelSets/labels000"]
        values, slicing = blocks["block0000"][()], blocks["block0000"].attrs["blockSlice"]
        del blocks["block0000"]
        group = blocks.create_group("block0000")
        group["data"], group["mask"] = values, np.zeros(values.shape, bool)
        group.attrs["blockSlice"], group.attrs["axistags"] = slicing, axistags("zyxc")
    np.testing.assert_array_equal(open_annotation(path).array[...], expected())


def test_lanes_are_chosen_by_number(path):
    lanes = [lane("zyxc") for _ in range(11)]
    lanes[10] = ([2, 4, 5, 1], [([1, 1, 1, 0], stroke("zyxc", {"x": 3}, 7))])
    write_ilastik(path, lanes)
    assert open_annotation(path, series=10).array.shape == (2, 4, 5)
    with pytest.raises(InputError, match="has no lane 11 of labels; it has 11, counted from 0"):
        open_annotation(path, series=11)


def test_unpainted_lanes_of_known_shape_are_empty(path):
    write_ilastik(path, [([6, 20, 30, 1], [])], names=())
    found = open_annotation(path)
    assert found.class_names == {}
    assert not found.array[...].any()
    write_ilastik(path, [([6, 20, 30, 1], [])], says_shape=False)
    with pytest.raises(InputError, match="holds no painted labels; paint some in ilastik"):
        open_annotation(path)


def test_strokes_become_an_annotation(path):
    write_ilastik(path, [lane("zyxc")])
    annotation = read_annotation(open_annotation(path).array, ArrayVolume(np.zeros((6, 20, 30))))
    assert len(annotation) == 60
    assert annotation.classes() == (1, 2)


def test_only_painted_parts_take_memory(path):
    write_ilastik(path, [([4000, 4000, 4000, 1], [([3999, 0, 0, 0], stroke("zyxc", {"x": 9}, 1))])])
    assert open_annotation(path).array[3999, 0].sum() == 9


class TestRefusals:
    def test_of_projects_as_images(self, path):
        write_ilastik(path, [lane("zyxc")])
        with pytest.raises(InputError, match="is an ilastik project, which holds painted labels and no image"):
            open_image(path)

    def test_of_other_workflows(self, path):
        with h5py.File(path, "w") as project:
            project["workflowName"] = b"Carving"
        with pytest.raises(InputError, match="is not a project of ilastik's Pixel Classification"):
            open_annotation(path)

    def test_of_strokes_outside_the_image(self, path):
        write_ilastik(path, [([5, 11, 30, 1], lane("zyxc")[1])])
        with pytest.raises(InputError, match=r"labels outside its image of shape \(5, 11, 30, 1\)"):
            open_annotation(path)

    def test_of_blocks_in_the_wrong_place(self, path):
        write_ilastik(path, [lane("zyxc")])
        with h5py.File(path, "a") as project:
            project["PixelClassification/LabelSets/labels000/block0000"].attrs["blockSlice"] = b"[0:1,0:1]"
        with pytest.raises(InputError, match="a block of labels whose shape does not match its place"):
            open_annotation(path)

    def test_of_codes_that_are_none(self, path):
        shape, blocks = lane("zyxc")
        write_ilastik(path, [(shape, [(start, values.astype(np.int32) + 300) for start, values in blocks])])
        with pytest.raises(InputError, match="labels that are no numbers from 0 to 255"):
            open_annotation(path)

    @pytest.mark.parametrize("content", [b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)])
    def test_of_what_is_no_project(self, path, content):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"project.ilp cannot be read as an ilastik project"):
            open_annotation(path)


@given(data=st.data())
def test_any_box_is_put_together_from_its_blocks(data):
    shape = (4, 5, 6)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole, blocks = np.zeros(shape, np.uint8), []
    for _ in range(data.draw(st.integers(0, 4))):
        corners = [np.sort(rng.choice(size + 1, 2, replace=False)) for size in shape]
        box = tuple(slice(int(a), int(b)) for a, b in corners)
        codes = rng.integers(0, 9, [part.stop - part.start for part in box]).astype(np.uint8)
        whole[box] = codes
        blocks.append(module._Block(box, codes, None))
    index = tuple(
        data.draw(st.integers(0, size - 1) | st.slices(size).filter(lambda part: (part.step or 1) > 0))
        for size in shape
    )
    source = Source("a.ilp", None, None)
    np.testing.assert_array_equal(LazyArray(module._Strokes(shape, blocks), source, (0, 1, 2), {})[index], whole[index])
