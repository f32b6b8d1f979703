"""OME-Zarr on disk: readable by others, and never half written."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ome_zarr_models.v05 import Image, ImageLabel

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage import ome as module
from napari_sparseseg.storage.ome import write_image, write_labels


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cells.ome.zarr"


@pytest.fixture
def small(monkeypatch):
    """Levels and chunks for volumes of a few voxels."""
    monkeypatch.setattr(module, "_SMALL", 4)
    monkeypatch.setattr(module, "_CHUNK", 2)
    monkeypatch.setattr(module, "_CHUNK_VOXELS", 8)


def random_labels(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 4, shape).astype(dtype)


def metadata(path):
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


def levels(path):
    """Each level's array, scale and translation."""
    group = zarr.open_group(path, mode="r")
    for dataset in metadata(path)["multiscales"][0]["datasets"]:
        transforms = {part["type"]: part[part["type"]] for part in dataset["coordinateTransformations"]}
        yield group[dataset["path"]], transforms["scale"], transforms.get("translation")


class ReadFailedError(Exception):
    pass


class FailsLate:
    """Labels that cannot be read beyond the first block."""

    shape, dtype = (130, 4, 4), np.dtype(np.uint8)

    def __getitem__(self, index):
        if index[0].start > 0:
            raise ReadFailedError
        return np.ones([part.stop - part.start for part in index], np.uint8)


class TestLabels:
    @pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "u8", "bool"])
    def test_come_back_as_they_were(self, path, dtype):
        labels = random_labels((5, 70, 30), dtype)
        write_labels(path, labels)
        array = zarr.open_group(path, mode="r", zarr_format=3)["0"]
        np.testing.assert_array_equal(array[...], labels)
        assert array.dtype.isnative

    def test_are_valid_ome_zarr(self, path, small):
        write_labels(
            path,
            random_labels((9, 17, 10)),
            spacing=(2, 0.5, 0.5),
            class_names={1: "background", 2: "nucleus"},
            colors={1: (0, 0, 0, 0), 2: (1.0, 0.5, 0)},
        )
        model = ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
        multiscale = model.ome_attributes.multiscales[0]
        assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
            (name, "space", "micrometer") for name in "zyx"
        ]
        assert (multiscale.name, multiscale.type) == ("cells", "nearest")
        assert model.ome_attributes.image_label.version == "0.5"

    def test_carry_names_and_colours(self, path):
        write_labels(
            path, random_labels((2, 3, 4)), class_names={2: "nucleus"}, colors={1: (0, 9, 255), 2: (1.0, 0.5, 0, 1)}
        )
        label = metadata(path)["image-label"]
        assert label["colors"] == [
            {"label-value": 1, "rgba": [0, 9, 255, 255]},
            {"label-value": 2, "rgba": [255, 128, 0, 255]},
        ]
        assert label["properties"] == [
            {"label-value": 1, "class": "class 1"},
            {"label-value": 2, "class": "nucleus"},
        ]

    def test_may_have_names_or_colours_or_neither(self, tmp_path):
        write_labels(tmp_path / "a", random_labels((2, 3)), class_names={1: "cell"})
        write_labels(tmp_path / "b", random_labels((2, 3)), colors={1: np.array([0.0, 0.0, 1.0])})
        write_labels(tmp_path / "c", random_labels((2, 3)))
        found = [sorted(metadata(tmp_path / name)["image-label"]) for name in "abc"]
        assert found == [["properties", "version"], ["colors", "version"], ["version"]]

    def test_without_spacing_have_scale_1_and_no_unit(self, path):
        write_labels(path, random_labels((2, 3, 4)))
        assert metadata(path)["multiscales"][0]["axes"] == [{"name": name, "type": "space"} for name in "zyx"]
        assert [scale for _, scale, _ in levels(path)] == [[1, 1, 1]]

    @pytest.mark.parametrize("spacing", [(0.5, 0.25), (9, 0.5, 0.25)])
    def test_in_2d_have_two_axes(self, path, small, spacing):
        labels = random_labels((9, 6))
        write_labels(str(path), labels, spacing=spacing, unit="nanometer")
        (full, scale, _), (half, half_scale, _), *_ = levels(path)
        assert metadata(path)["multiscales"][0]["axes"][0] == {"name": "y", "type": "space", "unit": "nanometer"}
        assert (scale, half_scale) == ([0.5, 0.25], [1, 0.5])
        np.testing.assert_array_equal(full[...], labels)
        np.testing.assert_array_equal(half[...], labels[::2, ::2])
        ImageLabel.from_zarr(zarr.open_group(path, mode="r"))

    def test_levels_are_every_second_voxel(self, path, small):
        labels = random_labels((9, 17, 10))
        write_labels(path, labels)
        found = list(levels(path))
        assert [array.shape for array, _, _ in found] == [(9, 17, 10), (5, 9, 5), (3, 5, 3), (2, 3, 2)]
        for number, (array, scale, translation) in enumerate(found):
            step = 2**number
            assert (scale, translation) == ([step] * 3, None)
            np.testing.assert_array_equal(array[...], labels[::step, ::step, ::step])

    def test_lazy_labels_are_written_piece_by_piece(self, path, small):
        labels = random_labels((9, 17, 10))
        write_labels(path, da.from_array(labels, chunks=(4, 8, 10)))
        np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[...], labels)

    def test_are_compressed_and_leave_out_empty_chunks(self, path):
        write_labels(path, np.zeros((70, 300, 300), np.uint8))
        files = [file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"]
        assert files == []
        write_labels(path, np.ones((70, 300, 300), np.uint8), overwrite=True)
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 70 * 300 * 300 / 50

    @pytest.mark.parametrize(
        ("shape", "chunks"),
        [
            ((200, 300, 400), (64, 64, 64)),
            ((16, 300, 400), (16, 128, 128)),
            ((3, 5, 700), (3, 5, 256)),
            ((600, 700), (512, 512)),
        ],
    )
    def test_chunks_have_about_64_cubed_voxels(self, path, shape, chunks):
        write_labels(path, da.zeros(shape, dtype=np.uint8, chunks=-1))
        assert zarr.open_array(path / "0", mode="r").chunks == chunks


class TestSteps:
    @pytest.mark.parametrize(
        ("shape", "voxel", "step"),
        [
            ((300, 300, 300), (1, 1, 1), (2, 2, 2)),
            ((300, 300, 300), (5, 1, 1), (1, 2, 2)),
            ((300, 300, 300), (0.4, 1, 1), (2, 2, 2)),
            ((1, 300, 300), (1, 1, 1), (1, 2, 2)),
            ((1, 1, 300), (1, 1, 1), (1, 1, 2)),
            ((256, 256, 256), (1, 1, 1), (1, 1, 1)),
            ((2000, 100, 100), (5, 1, 1), (1, 1, 1)),
            ((2000, 100, 100), (1, 1, 1), (2, 2, 2)),
            ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ],
    )
    def test_halve_z_only_where_it_is_as_fine(self, shape, voxel, step):
        assert module.next_step(shape, voxel) == step

    def test_of_thick_slices_become_isotropic_first(self, path, small):
        write_labels(path, random_labels((8, 20, 20)), spacing=(4, 1, 1))
        assert [scale for _, scale, _ in levels(path)] == [[4, 1, 1], [4, 2, 2], [4, 4, 4], [8, 8, 8]]


class TestImages:
    def test_put_channels_first(self, path, small):
        image = np.random.default_rng(0).random((5, 9, 6, 2), np.float32)
        write_image(path, image, channel_axis=-1, spacing=(0.5, 1, 0.5))
        Image.from_zarr(zarr.open_group(path, mode="r"))
        (full, scale, offset), (half, _, half_offset), *_ = levels(path)
        np.testing.assert_array_equal(full[...], np.moveaxis(image, -1, 0), strict=True)
        assert metadata(path)["multiscales"][0]["axes"][0] == {"name": "c", "type": "channel"}
        assert (scale, offset, half_offset) == ([1, 0.5, 1, 0.5], None, [0, 0.25, 0.5, 0.25])
        assert half.shape == (2, 3, 5, 3)

    def test_levels_are_averages(self, path, small):
        image = np.arange(6 * 6, dtype=np.uint16).reshape(6, 6)
        write_image(path, image)
        means = image.reshape(3, 2, 3, 2).mean((1, 3))
        np.testing.assert_array_equal(zarr.open_array(path / "1", mode="r")[...], np.rint(means))
        assert [translation for _, _, translation in levels(path)] == [None, [0.5, 0.5]]

    def test_offsets_add_up_over_levels(self, path, small):
        write_image(path, np.zeros((20, 20)))
        assert [translation for _, _, translation in levels(path)] == [None, [0.5, 0.5], [1.5, 1.5], [3.5, 3.5]]

    @given(
        hnp.arrays(
            st.sampled_from(["u1", "i2", "u8", "i8", "f2", "f4", "f8"]),
            st.tuples(st.just(1), *[st.integers(1, 5)] * 3),
            fill=st.nothing(),
        ).filter(lambda image: np.isfinite(image).all()),
        st.tuples(*[st.sampled_from([1, 2])] * 3),
    )
    def test_averages_lie_within_the_image(self, image, step):
        means = module.mean(image, step)
        assert means.dtype == image.dtype
        assert means.shape[1:] == tuple(-(-size // factor) for size, factor in zip(image.shape[1:], step, strict=True))
        slack = 2048 if image.dtype.itemsize == 8 and image.dtype.kind != "f" else 0
        assert float(image.min()) - slack <= float(means.min()) <= float(means.max()) <= float(image.max()) + slack

    def test_keep_voxels_that_are_missing(self, path):
        image = np.where(np.indices((3, 4))[0] == 1, np.nan, 1.0)
        write_image(path, image)
        np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[:], image)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 3)] * 3))
def test_pieces_cover_each_voxel_once(shape, chunks):
    counts = np.zeros(shape, int)
    for box in module._pieces(shape, chunks):
        assert box.clipped(Box.whole(shape)) == box
        counts[box.slices] += 1
    assert (counts == 1).all()


class TestWrittenWhole:
    def test_failure_leaves_nothing(self, path):
        with pytest.raises(ReadFailedError):
            write_labels(path, FailsLate())
        assert list(path.parent.iterdir()) == []

    def test_failure_leaves_the_old_one_intact(self, path):
        old = random_labels((4, 5, 6))
        write_labels(path, old)
        with pytest.raises(ReadFailedError):
            write_labels(path, FailsLate(), overwrite=True)
        np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[...], old)
        assert list(path.parent.iterdir()) == [path]

    def test_failure_of_the_last_step_puts_the_old_one_back(self, path, monkeypatch):
        old = random_labels((4, 5, 6))
        write_labels(path, old)
        rename = type(path).rename

        def failing(self, target):
            if self.suffix == ".partial":
                raise OSError("disk is gone")
            return rename(self, target)

        monkeypatch.setattr(type(path), "rename", failing)
        with pytest.raises(InputError, match=r"could not be written \(disk is gone\)"):
            write_labels(path, old + 1, overwrite=True)
        np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[...], old)
        assert list(path.parent.iterdir()) == [path]

    def test_never_overwrites_unasked(self, path):
        write_labels(path, random_labels((4, 5)))
        with pytest.raises(InputError, match=r"cells.ome.zarr exists; pass overwrite=True"):
            write_labels(path, random_labels((4, 5)))

    def test_notices_what_was_written_meanwhile(self, path):
        class Rival(FailsLate):
            shape = (4, 4, 4)

            def __getitem__(self, index):
                if not path.exists():
                    write_labels(path, np.full((2, 2), 7))
                return super().__getitem__(index)

        with pytest.raises(InputError, match="exists"):
            write_labels(path, Rival())
        assert zarr.open_array(path / "0", mode="r")[0, 0] == 7
        assert list(path.parent.iterdir()) == [path]

    def test_replaces_when_asked_even_its_own_source(self, path):
        labels = random_labels((4, 5, 6))
        write_labels(path, labels)
        write_labels(path, da.from_zarr(str(path / "0"))[:, ::-1], overwrite=True)
        np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[...], labels[:, ::-1])
        assert list(path.parent.iterdir()) == [path]

    def test_never_replaces_what_is_no_zarr(self, tmp_path):
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "keep.txt").write_text("keep")
        (tmp_path / "file").write_text("keep")
        for name in ("notes", "file"):
            with pytest.raises(InputError, match="is not a zarr, so it is not replaced; choose another path"):
                write_labels(tmp_path / name, random_labels((4, 5)), overwrite=True)
        assert (tmp_path / "notes" / "keep.txt").read_text() == "keep"

    def test_makes_the_folders_on_the_way(self, tmp_path):
        write_labels(tmp_path / "a" / "b.zarr", random_labels((4, 5)))
        assert (tmp_path / "a" / "b.zarr" / "zarr.json").is_file()


class TestRefusals:
    @pytest.mark.parametrize(
        ("labels", "said"),
        [
            (np.zeros((3, 4)), r"labels have dtype float64, but integers are needed; convert with astype\('uint8'\)"),
            ([[1, 2]], "labels is of type list"),
        ],
    )
    def test_of_labels_that_are_no_integers(self, path, labels, said):
        with pytest.raises(InputTypeError, match=said):
            write_labels(path, labels)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"spacing": (1, 2)}, r"spacing=\(1.0, 2.0\) has 2 numbers; 3 are needed"),
            ({"spacing": (0, 1, 1)}, r"spacing=\(0.0, 1.0, 1.0\) contains 0.0; voxel sizes are positive"),
            ({"spacing": (1, 1, float("nan"))}, "contains nan; voxel sizes are positive"),
            ({"class_names": {-1: "a"}}, "class_names has the key -1"),
            ({"class_names": {3: "a"}, "colors": {1: (0, 0, 0)}}, "names class 3, but colors has no colour for it"),
            ({"colors": {1: (0, 0, 256)}}, r"the colour \(0, 0, 256\) of class 1 is not RGB or RGBA"),
            ({"colors": {1: (0.5, 0, 2)}}, "integers 0..255 or floats 0..1"),
            ({"colors": {1: "red"}}, "not RGB or RGBA"),
            ({"colors": {1: 7}}, r"the colour \(7,\) of class 1"),
        ],
    )
    def test_of_unusable_metadata(self, path, options, said):
        with pytest.raises(InputError, match=said):
            write_labels(path, random_labels((3, 4, 5)), **options)
        assert not path.exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"spacing": 2}, "spacing=2 is not a sequence of numbers"),
            ({"spacing": ("a", "b", "c")}, "is not a sequence of numbers"),
            ({"spacing": "123"}, "spacing='123' is not a sequence of numbers"),
            ({"colors": {"cell": (0, 0, 0)}}, "a key of colors must be an integer, not 'cell'"),
        ],
    )
    def test_of_metadata_of_the_wrong_kind(self, path, options, said):
        with pytest.raises(InputTypeError, match=said):
            write_labels(path, random_labels((3, 4, 5)), **options)

    def test_of_paths(self):
        with pytest.raises(InputTypeError, match="path is of type int"):
            write_labels(3, random_labels((3, 4)))
        with pytest.raises(InputError, match="is a URL; write to a local folder"):
            write_labels("s3://bucket/labels.zarr", random_labels((3, 4)))
