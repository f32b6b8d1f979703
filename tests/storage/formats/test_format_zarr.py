"""OME-Zarr of both versions, what lies in its groups, and plain zarr."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from image_files import make_image, write_ome_zarr_04, write_ome_zarr_05

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_annotation, open_image
from napari_sparseseg.storage.ome import write_labels

SPACING = (2.0, 0.325, 0.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.zarr"


class TestPlain:
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_arrays_say_nothing(self, path, zarr_format):
        image = make_image()
        zarr.create_array(path, data=image, zarr_format=zarr_format)
        found = open_image(path)
        assert (found.format, found.axes, found.spacing, found.n_levels) == ("zarr", "ZYX", None, 1)
        np.testing.assert_array_equal(found.array[1:3, 2:20, 5:], image[1:3, 2:20, 5:])

    def test_arrays_may_name_their_dimensions(self, path):
        zarr.create_array(path, data=make_image((4, 5, 6, 7)), dimension_names=("t", "z", "y", "x"))
        assert open_image(path).axes == "TZYX"
        group = zarr.create_group(path, zarr_format=2, overwrite=True)
        array = group.create_array("a", data=make_image((4, 5, 6)))
        array.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
        assert open_image(path / "a").axes == "TYX"

    @pytest.mark.parametrize("names", [("a", "b", "c"), ("x", "x2", "y"), ("z", "c", "t")])
    def test_other_names_are_no_axes(self, path, names):
        zarr.create_array(path, data=make_image(), dimension_names=names)
        assert open_image(path).axes == "ZYX"

    def test_a_group_is_no_image(self, path):
        group = zarr.create_group(path)
        with pytest.raises(InputError, match=r"image.zarr is a zarr group without the metadata .* an image in it"):
            open_image(path)
        group.create_array("raw", data=make_image())
        with pytest.raises(InputError, match=r"give the path of one of its arrays: .*image.zarr/raw"):
            open_image(path)
        assert open_image(path / "raw").axes == "ZYX"

    def test_a_url_is_opened_by_fsspec(self, path):
        write_ome_zarr_05(path, make_image(), SPACING)
        assert open_image(path.as_uri() + "/").spacing == SPACING


@pytest.mark.parametrize("write", [write_ome_zarr_04, write_ome_zarr_05])
class TestBothVersions:
    def test_levels_have_their_own_voxel_size(self, path, write, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.storage.ome._SMALL", 20)
        write(path, make_image(), SPACING)
        half = open_image(path, level=1)
        assert half.array.shape == (5, 12, 9)
        assert (half.spacing, half.n_levels) == ((2.0, 0.65, 1.0), 2)
        with pytest.raises(InputError, match=r"has no level 2; its 2 levels are 0 \(finest\) to 1"):
            open_image(path, level=2)

    def test_the_array_of_a_level_can_be_opened(self, path, write):
        write(path, make_image((2, 5, 24, 18)), SPACING)
        assert open_image(path / "0", axes="CZYX").axes == "CZYX"

    def test_a_missing_array_is_told(self, path, write):
        write(path, make_image(), SPACING)
        for file in (path / "0").iterdir():
            if file.is_file():
                file.unlink()
        with pytest.raises(InputError, match="names '0' as level 0, but there is no array of 3 axes"):
            open_image(path)


class TestVersion04:
    def test_a_scale_of_all_levels_counts(self, path):
        write_ome_zarr_04(path, make_image(), SPACING, global_scale=(10, 2, 2))
        assert open_image(path).spacing == (20.0, 0.65, 1.0)

    def test_labels_lie_in_the_image(self, path):
        write_ome_zarr_04(path, make_image(), SPACING)
        labels = make_image(dtype=np.uint8)
        group = zarr.create_group(path / "labels", zarr_format=2)
        group.attrs["labels"] = ["cells"]
        write_ome_zarr_04(path / "labels" / "cells", labels, SPACING, labels=True)
        for place in (path, path / "labels" / "cells"):
            found = open_annotation(place)
            np.testing.assert_array_equal(found.array[...], labels, strict=True)
            assert found.spacing == SPACING
            assert found.class_names == {2: "nucleus"}
        assert open_image(path).array.dtype == np.uint16
        group.attrs["labels"] = ["cells", "nuclei"]
        with pytest.raises(
            InputError, match=r"holds 2 label images \(cells, nuclei\); give the path of one: .*/labels/"
        ):
            open_annotation(path)

    def test_channels_have_names(self, path):
        group = write_ome_zarr_04(path, make_image((2, 5, 24, 18)), SPACING)
        window = {"min": 0, "max": 9, "start": 0, "end": 9}
        channels = [{"label": name, "color": "FF0000", "window": window} for name in ("DAPI", "GFP")]
        group.attrs["omero"] = {"channels": channels}
        assert open_image(path).channel_names == ("DAPI", "GFP")

    def test_converted_series_are_chosen_by_number(self, path):
        zarr.create_group(path, zarr_format=2).attrs["bioformats2raw.layout"] = 3
        write_ome_zarr_04(path / "0", make_image(), SPACING)
        write_ome_zarr_04(path / "1", make_image((7, 20, 10)), SPACING)
        assert open_image(path).array.shape == (5, 24, 18)
        assert open_image(path, series=1).array.shape == (7, 20, 10)
        assert open_image(path).n_series == 2
        with pytest.raises(InputError, match="has no series 2; choose one of 0, 1"):
            open_image(path, series=2)


class TestVersion05:
    def test_time_and_free_names_of_axes(self, path):
        image = make_image((3, 2, 5, 24, 18))
        group = zarr.create_group(path)
        group.create_array("s0", data=image)
        axes = [{"name": "frame", "type": "time", "unit": "second"}, {"name": "stain", "type": "channel"}]
        axes += [{"name": name, "type": "space", "unit": "nm"} for name in ("depth", "row", "column")]
        scale = [{"type": "scale", "scale": [1.5, 1, 40, 8, 9]}]
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}],
        }
        found = open_image(path)
        assert (found.axes, found.n_frames, found.channel_axis) == ("TCZYX", 3, 1)
        assert (found.spacing, found.unit) == ((40.0, 8.0, 9.0), "nanometer")

    def test_names_of_classes_are_kept(self, path):
        write_labels(path, make_image(dtype=np.uint8), class_names={1: "rest", 2: "cell"})
        assert open_annotation(path).class_names == {1: "rest", 2: "cell"}
        assert open_annotation(path).spacing is None


class TestRefusals:
    def make(self, path, attributes):
        group = zarr.create_group(path)
        group.create_array("0", data=make_image())
        group.attrs.update(attributes)

    def test_of_other_versions(self, path):
        self.make(path, {"ome": {"version": "0.6", "multiscales": []}})
        with pytest.raises(InputError, match=r"is OME-Zarr 0.6, of which only 0.4 and 0.5 are read; .*image.zarr/0"):
            open_image(path)

    @pytest.mark.parametrize(
        "multiscales", [[], [{"axes": [{"name": "x"}], "datasets": []}], 3, [{"version": "0.4"}], [7]]
    )
    def test_of_metadata_that_are_not_valid(self, path, multiscales):
        self.make(path, {"multiscales": multiscales})
        with pytest.raises(InputError, match=r"image.zarr is not valid OME-Zarr 0.4 \(multiscales.*\); open the array"):
            open_image(path)

    def test_of_plates(self, path):
        self.make(path, {"ome": {"version": "0.5", "plate": {"columns": []}}})
        with pytest.raises(InputError, match=r"is a plate or a well .*image.zarr/A/1/0"):
            open_image(path)

    @pytest.mark.parametrize("content", ["", "no json", '{"zarr_format": 9, "node_type": "array"}'])
    def test_of_damaged_metadata(self, path, content):
        path.mkdir()
        (path / "zarr.json").write_text(content)
        with pytest.raises(InputError, match=r"image.zarr cannot be read as zarr"):
            open_image(path)

    def test_of_damaged_chunks_when_they_are_read(self, path):
        zarr.create_array(path, data=make_image(), chunks=(1, 24, 18))
        (path / "c" / "3" / "0" / "0").write_bytes(b"broken")
        array = open_image(path).array
        assert array[0].shape == (24, 18)
        with pytest.raises(InputError, match="it is damaged"):
            array[3]


class TestPlace:
    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_a_level_begins_where_its_transforms_say(self, path, version):
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        datasets = []
        for level, factor in enumerate((1, 2)):
            group.create_array(str(level), data=make_image()[..., ::factor, ::factor])
            transforms = [
                {"type": "scale", "scale": [3, 2 * factor, 2 * factor]},
                {"type": "translation", "translation": [0, factor - 1, factor - 1]},
            ]
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
        whole = [{"type": "scale", "scale": [10, 10, 10]}, {"type": "translation", "translation": [5, 0, 7]}]
        multiscale = {"axes": axes, "datasets": datasets, "coordinateTransformations": whole, "version": "0.4"}
        if version == "0.4":
            group.attrs["multiscales"] = [multiscale]
        else:
            del multiscale["version"]
            group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
        assert open_image(path).offset == (5, 0, 7)
        half = open_image(path, level=1)
        assert half.spacing == (30, 40, 40)
        assert half.offset == (5, 10, 17)

    def test_without_a_translation_it_begins_at_zero(self, path):
        write_ome_zarr_04(path, make_image(), SPACING)
        assert open_image(path, level=1).offset == (0, 0, 0)
        zarr.create_array(path.with_name("b.zarr"), data=make_image())
        assert open_image(path.with_name("b.zarr")).offset == (0, 0, 0)
