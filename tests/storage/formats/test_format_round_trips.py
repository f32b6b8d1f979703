"""Each format gives back the image, its axes and its voxel size, as others wrote them and as others read them."""

from __future__ import annotations

import logging

import dask.array as da
import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import WRITERS, make_image
from ome_zarr_models.v05 import ImageLabel

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.formats import label_suffixes, open_annotation, open_image, write_labels
from napari_sparseseg.storage.volume import ArrayVolume

SPACING = (2.0, 0.325, 0.5)
VOXEL_SIZED = [suffix for suffix in label_suffixes() if suffix != ".npy"]


def written(tmp_path, name, image, spacing):
    suffix, write = WRITERS[name]
    path = tmp_path / f"image{suffix}"
    write(path, image, spacing)
    return open_image(path)


@pytest.mark.parametrize("name", WRITERS)
class TestImages:
    @pytest.mark.parametrize("shape", [(5, 24, 18), (2, 5, 24, 18)])
    def test_come_back(self, tmp_path, name, shape):
        image = make_image(shape)
        found = written(tmp_path, name, image, SPACING)
        assert found.format == name
        assert found.spacing == pytest.approx(SPACING)
        assert found.unit == "micrometer"
        assert found.spatial_axes == "ZYX"
        assert found.time_axis is None
        if len(shape) == 4:
            assert found.array.shape[found.channel_axis] == 2
            np.testing.assert_array_equal(np.moveaxis(np.asarray(found.array), found.channel_axis, 0), image)
        else:
            assert found.channel_axis is None
            np.testing.assert_array_equal(found.array[...], image, strict=True)

    def test_are_volumes(self, tmp_path, name):
        image = make_image((2, 5, 24, 18))
        found = written(tmp_path, name, image, SPACING)
        volume = ArrayVolume(found.array, found.channel_axis)
        block = volume.read(Box((1, 3, 2), (4, 20, 9)))
        np.testing.assert_array_equal(block, image[:, 1:4, 3:20, 2:9], strict=True)

    @pytest.mark.shared
    @pytest.mark.parametrize("stem", ["arabidopsis_ovule_nuclei_00", "msd_hippocampus_00", "mouse_embryo_nuclei_00"])
    def test_of_real_tissue_come_back(self, tmp_path, load_shared, name, stem):
        image, _, spacing = load_shared(stem)
        stored = image if name != "ImageJ TIFF" or image.dtype in ("u1", "u2", "f4") else image.astype("f4")
        found = written(tmp_path, name, stored, spacing)
        assert found.spacing == pytest.approx(spacing, rel=1e-6)
        channels_first = np.asarray(found.array)
        if found.channel_axis is not None:
            channels_first = np.moveaxis(channels_first, found.channel_axis, 0)
        np.testing.assert_array_equal(channels_first, image)


@pytest.mark.shared
@pytest.mark.parametrize("stem", ["gala_neuropil_00", "arabidopsis_ovule_cells"])
def test_bare_arrays_of_real_tissue_come_back(tmp_path, load_shared, stem):
    image, _, _ = load_shared(stem)
    np.save(tmp_path / "image.npy", image)
    zarr.create_array(tmp_path / "image.zarr", data=image)
    for name, kind in (("image.npy", "NPY"), ("image.zarr", "zarr")):
        found = open_image(tmp_path / name)
        assert (found.format, found.axes, found.spacing) == (kind, "ZYX", None)
        np.testing.assert_array_equal(found.array[...], image)


@pytest.mark.shared
@pytest.mark.parametrize("suffix", label_suffixes())
def test_labels_of_real_tissue_come_back(tmp_path, load_shared, suffix):
    _, labels, spacing = load_shared("msd_hippocampus_00")
    write_labels(tmp_path / f"labels{suffix}", labels, spacing=spacing, unit="millimeter")
    found = open_annotation(tmp_path / f"labels{suffix}")
    np.testing.assert_array_equal(found.array[...], labels)
    assert found.axes == "ZYX"
    if suffix != ".npy":
        assert found.spacing == pytest.approx(spacing, rel=1e-6)
        assert found.unit == "millimeter"


class TestLabels:
    @pytest.mark.parametrize("suffix", VOXEL_SIZED)
    @pytest.mark.parametrize("shape", [(5, 24, 18), (24, 18)])
    def test_keep_voxel_size_and_axes(self, tmp_path, suffix, shape):
        labels = make_image(shape, np.uint8)
        spacing = SPACING[-len(shape) :]
        write_labels(tmp_path / f"labels{suffix}", labels, spacing=spacing)
        found = open_annotation(tmp_path / f"labels{suffix}")
        np.testing.assert_array_equal(found.array[...], labels, strict=True)
        assert found.axes == "ZYX"[-len(shape) :]
        factor = 1e-3 if ".nii" in suffix else 1
        assert found.spacing == pytest.approx([size * factor for size in spacing], rel=1e-6)
        assert found.unit == ("millimeter" if ".nii" in suffix else "micrometer")

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_without_voxel_size_have_none(self, tmp_path, suffix):
        labels = make_image((3, 6, 7), np.uint8)
        write_labels(tmp_path / f"labels{suffix}", labels)
        found = open_annotation(tmp_path / f"labels{suffix}")
        np.testing.assert_array_equal(found.array[...], labels)
        assert (found.axes, found.spacing, found.unit) == ("ZYX", None, None)

    @pytest.mark.parametrize("suffix", VOXEL_SIZED)
    def test_may_have_a_voxel_size_without_unit(self, tmp_path, suffix):
        write_labels(tmp_path / f"labels{suffix}", make_image((3, 6, 7), np.uint8), spacing=SPACING, unit=None)
        found = open_annotation(tmp_path / f"labels{suffix}")
        assert found.spacing == pytest.approx(SPACING)
        assert found.unit is None

    @pytest.mark.parametrize("suffix", label_suffixes())
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_of_any_shape_and_type_come_back(self, tmp_path, suffix, data):
        shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3)))
        dtype = np.dtype(data.draw(st.sampled_from(["?", "u1", "i1", "<u2", ">u2", "i2", "u4", "i4", "u8", "i8"])))
        lowest = -3 if dtype.kind == "i" else 0
        labels = np.random.default_rng(0).integers(lowest, 5, shape).astype(dtype)
        path = tmp_path / f"labels{suffix}"
        write_labels(path, labels, spacing=SPACING[-len(shape) :], overwrite=True)
        found = open_annotation(path, axes="ZYX"[-len(shape) :] if ".tif" not in suffix else None)
        # singletons are not told apart from missing axes by TIFF
        np.testing.assert_array_equal(np.asarray(found.array).reshape(shape), labels)

    @pytest.mark.parametrize("suffix", [".npy", ".ome.zarr"])
    def test_of_64_bit_come_back_where_they_fit(self, tmp_path, suffix):
        labels = np.array([[2**40, 0]])
        write_labels(tmp_path / f"a{suffix}", labels)
        np.testing.assert_array_equal(open_annotation(tmp_path / f"a{suffix}").array[...], labels)
        with pytest.raises(InputError, match=r"labels range from 0 to 1099511627776.*write .npy or .ome.zarr"):
            write_labels(tmp_path / "a.tif", labels)
        assert not (tmp_path / "a.tif").exists()

    @pytest.mark.parametrize("suffix", label_suffixes())
    def test_that_are_lazy_are_read_in_slabs(self, tmp_path, suffix, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.storage.formats._stack._SLAB_VOXELS", 200)
        labels = make_image((9, 6, 7), np.uint8)
        write_labels(tmp_path / f"a{suffix}", da.from_array(labels, chunks=(2, 6, 7)))
        np.testing.assert_array_equal(open_annotation(tmp_path / f"a{suffix}").array[...], labels)

    def test_that_are_no_integers_are_refused(self, tmp_path):
        with pytest.raises(InputTypeError, match="labels have dtype float64, but integers are needed"):
            write_labels(tmp_path / "a.tif", np.zeros((3, 4)))


class TestOtherReaders:
    """What is written is what other programs find."""

    labels = make_image((5, 24, 18), np.uint8)

    def test_tifffile_sees_an_imagej_stack(self, tmp_path):
        write_labels(tmp_path / "a.tif", self.labels, spacing=SPACING)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.is_imagej
            assert not tiff.is_bigtiff
            assert tiff.series[0].axes == "ZYX"
            assert (tiff.imagej_metadata["spacing"], tiff.imagej_metadata["unit"]) == (2.0, "um")
            tags = tiff.pages.first.tags
            assert np.divide(*tags["XResolution"].value) == pytest.approx(1 / 0.5)
            assert np.divide(*tags["YResolution"].value) == pytest.approx(1 / 0.325)
            assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            np.testing.assert_array_equal(tiff.asarray(), self.labels)

    @pytest.mark.parametrize("name", ["a.ome.tif", "b.tif"])
    def test_tifffile_sees_ome_metadata(self, tmp_path, name):
        labels = self.labels.astype(np.int32 if name == "b.tif" else np.uint8)
        write_labels(tmp_path / name, labels, spacing=SPACING)
        with tifffile.TiffFile(tmp_path / name) as tiff:
            pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
            found = [(pixels[f"PhysicalSize{letter}"], pixels[f"PhysicalSize{letter}Unit"]) for letter in "ZYX"]
            assert found == [(size, "µm") for size in SPACING]
            assert tiff.series[0].axes == "ZYX"
            np.testing.assert_array_equal(tiff.asarray(), labels, strict=True)

    def test_tifffile_sees_a_bigtiff_where_it_is_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.storage.formats.tiff._CLASSIC_BYTES", 1000)
        write_labels(tmp_path / "a.tif", self.labels, spacing=SPACING)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.is_bigtiff
            assert tiff.is_ome
        assert open_image(tmp_path / "a.tif").spacing == SPACING

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_nibabel_sees_millimetres(self, tmp_path, name):
        write_labels(tmp_path / name, self.labels, spacing=SPACING)
        image = nibabel.load(tmp_path / name)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header.get_zooms() == pytest.approx([0.0005, 0.000325, 0.002])
        np.testing.assert_array_equal(np.asarray(image.dataobj), self.labels.T)

    def test_nibabel_reads_axes_too_long_for_nifti_1(self, tmp_path):
        write_labels(tmp_path / "a.nii", np.ones((2, 40000), np.uint8), spacing=(1, 2))
        image = nibabel.load(tmp_path / "a.nii")
        assert isinstance(image, nibabel.Nifti2Image)
        assert image.shape == (40000, 2)

    def test_nrrd_sees_directions(self, tmp_path):
        write_labels(tmp_path / "a.nrrd", self.labels, spacing=SPACING)
        data, header = nrrd.read(str(tmp_path / "a.nrrd"), index_order="C")
        np.testing.assert_array_equal(header["space directions"], np.diag(SPACING[::-1]))
        assert header["space units"] == ["micrometer"] * 3
        np.testing.assert_array_equal(data, self.labels, strict=True)

    def test_ome_zarr_models_validates(self, tmp_path):
        write_labels(tmp_path / "a.ome.zarr", self.labels, spacing=SPACING, class_names={1: "a"}, colors={1: (0, 0, 9)})
        image = ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
        multiscale = image.ome_attributes.multiscales[0]
        assert multiscale.datasets[0].coordinateTransformations[0].scale == list(SPACING)

    def test_numpy_reads_the_array(self, tmp_path):
        write_labels(tmp_path / "a.npy", self.labels, spacing=SPACING)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), self.labels, strict=True)

    def test_nothing_is_complained_about(self, tmp_path, caplog):
        caplog.set_level(logging.WARNING)
        for suffix in label_suffixes():
            write_labels(tmp_path / f"a{suffix}", self.labels, spacing=SPACING)
            open_annotation(tmp_path / f"a{suffix}").array[...]
        assert caplog.records == []
