"""Labels of a NIfTI or NRRD image lie where its header says, and of others nothing is claimed."""

from __future__ import annotations

import nibabel
import nrrd
import numpy as np
import pytest
from image_files import make_image

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_image, write_labels

LABELS = np.ones((5, 24, 18), np.uint8)
LEFT = np.array([[-0.5, 0, 0, 90], [0, 0.325, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
TURNED = np.array([[0, 0, 2, 5], [0, -0.325, 0, 6], [0.5, 0, 0, 7], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.3, -0.26, 0, 1], [0.4, 0.195, 0, 2], [0, 0, -2, 3], [0, 0, 0, 1]])


def write_nifti(path, image, sform, qform=None, *, codes=(1, 1), unit="mm"):
    stored = nibabel.Nifti1Image(image.T, None)
    stored.set_qform(sform if qform is None else qform, code=codes[0])
    stored.set_sform(sform, code=codes[1])
    stored.header.set_xyzt_units(xyz=unit)
    nibabel.save(stored, path)


def overwrite(path, start, numbers):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(np.array(numbers, "<f4").tobytes())


def relabelled(path, labels, out, **options):
    """Labels of the image at `path`, written as its format and opened by nibabel."""
    image = open_image(path, **options)
    write_labels(out, labels, spacing=image.spacing, unit=image.unit, geometry=image.geometry)
    return nibabel.load(out)


def assert_same_place(image, labels):
    assert labels.shape == image.shape
    assert nibabel.aff2axcodes(labels.affine) == nibabel.aff2axcodes(image.affine)
    np.testing.assert_allclose(labels.affine, image.affine, rtol=1e-6, atol=1e-6)
    if image.header["sform_code"]:  # else it says nothing
        np.testing.assert_allclose(labels.header.get_sform(), image.header.get_sform(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(labels.header.get_qform(), image.header.get_qform(), rtol=1e-6, atol=1e-6)
    assert labels.header.get_zooms() == pytest.approx(image.header.get_zooms()[:3])
    for name in ("sform_code", "qform_code"):
        assert labels.header[name] == image.header[name]
    assert labels.header.get_xyzt_units()[0] == image.header.get_xyzt_units()[0]


class TestNifti:
    @pytest.mark.parametrize("affine", [LEFT, TURNED, OBLIQUE], ids=["left", "turned", "oblique"])
    @pytest.mark.parametrize("codes", [(1, 1), (0, 2), (3, 0), (1, 4)])
    def test_labels_lie_on_their_image(self, tmp_path, affine, codes):
        write_nifti(tmp_path / "a.nii", make_image(), affine, codes=codes)
        assert_same_place(nibabel.load(tmp_path / "a.nii"), relabelled(tmp_path / "a.nii", LABELS, tmp_path / "b.nii"))

    @pytest.mark.parametrize("unit", ["mm", "micron", "meter", "unknown"])
    def test_both_affines_and_the_unit_are_kept(self, tmp_path, unit):
        write_nifti(tmp_path / "a.nii.gz", make_image(), TURNED, LEFT, codes=(2, 4), unit=unit)
        found = relabelled(tmp_path / "a.nii.gz", LABELS, tmp_path / "b.nii.gz")
        assert_same_place(nibabel.load(tmp_path / "a.nii.gz"), found)

    def test_axes_that_are_read_in_another_order_take_their_directions_along(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(), OBLIQUE)
        found = relabelled(tmp_path / "a.nii", LABELS.T, tmp_path / "b.nii", axes="XYZ")
        np.testing.assert_allclose(found.affine, OBLIQUE[:, [2, 1, 0, 3]], rtol=1e-6, atol=1e-6)
        assert found.header.get_zooms() == pytest.approx([2, 0.325, 0.5])

    def test_an_image_without_depth_keeps_the_direction_across(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image()[0], OBLIQUE)
        assert_same_place(
            nibabel.load(tmp_path / "a.nii"), relabelled(tmp_path / "a.nii", LABELS[0], tmp_path / "b.nii")
        )

    def test_channels_and_a_single_time_point_are_left_out(self, tmp_path):
        write_nifti(tmp_path / "a.nii", np.stack([make_image()[None]] * 2), LEFT)
        found = relabelled(tmp_path / "a.nii", LABELS, tmp_path / "b.nii")
        assert found.shape == (18, 24, 5)
        np.testing.assert_allclose(found.affine, LEFT, rtol=1e-6)

    def test_a_quaternion_that_is_no_rotation_gives_way_to_the_sform(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(), LEFT)
        overwrite(tmp_path / "a.nii", 256, [3, 3, 3])
        found = relabelled(tmp_path / "a.nii", LABELS, tmp_path / "b.nii")
        np.testing.assert_allclose(found.affine, LEFT, rtol=1e-6)
        assert (found.header["qform_code"], found.header["sform_code"]) == (0, 1)

    def test_an_image_that_knows_no_space_gives_none(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(), LEFT, codes=(0, 0))
        assert open_image(tmp_path / "a.nii").geometry is None

    @pytest.mark.parametrize("row", [(np.nan, 0, 0, 0), (0, 0, 0, 0), (0.5, 0, 0, np.inf)])
    def test_a_header_of_nonsense_gives_none(self, tmp_path, row):
        write_nifti(tmp_path / "a.nii", make_image(), LEFT)
        overwrite(tmp_path / "a.nii", 280, row)
        assert open_image(tmp_path / "a.nii").geometry is None

    def test_a_quaternion_of_nonsense_gives_none(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(), LEFT)
        overwrite(tmp_path / "a.nii", 80, [np.inf] * 3)
        assert open_image(tmp_path / "a.nii").geometry is None

    def test_without_a_geometry_none_is_claimed(self, tmp_path):
        write_labels(tmp_path / "a.nii", LABELS, spacing=(2, 0.325, 0.5), unit="millimeter")
        header = nibabel.load(tmp_path / "a.nii").header
        assert (header["qform_code"], header["sform_code"]) == (0, 0)
        assert header.get_zooms() == pytest.approx([0.5, 0.325, 2])

    def test_a_part_of_the_image_is_refused(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(), LEFT)
        with pytest.raises(InputError, match=r"shape \(5, 24, 18\), but the labels have \(4, 24, 18\); leave it out"):
            relabelled(tmp_path / "a.nii", LABELS[1:], tmp_path / "b.nii")


class TestNrrd:
    def test_labels_lie_on_their_image(self, tmp_path):
        found = self.relabelled(tmp_path, make_image(), np.diag([-0.1, 0.2, 0.3]))
        assert found["space"] == "left-posterior-superior"
        np.testing.assert_array_equal(found["space directions"], np.diag([-0.1, 0.2, 0.3]))
        np.testing.assert_array_equal(found["space origin"], [10, 20, 1e-7])
        assert found["space units"] == ["um", "um", "um"]

    def test_axes_that_are_read_in_another_order_take_their_directions_along(self, tmp_path):
        rows = np.array([[0.1, 0.2, 0], [-0.2, 0.1, 0], [0, 0, -0.3]])
        found = self.relabelled(tmp_path, make_image(), rows, axes="XYZ")
        np.testing.assert_array_equal(found["space directions"], rows[::-1])

    def test_channels_are_left_out(self, tmp_path):
        rows = np.array([[np.nan] * 3, *np.diag([-0.1, 0.2, 0.3])])
        found = self.relabelled(tmp_path, np.stack([make_image()] * 2, -1), rows)
        np.testing.assert_array_equal(found["space directions"], rows[1:])

    def test_without_a_geometry_the_space_has_no_name(self, tmp_path):
        write_labels(tmp_path / "a.nrrd", LABELS, spacing=(2, 0.325, 0.5))
        header = nrrd.read_header(str(tmp_path / "a.nrrd"))
        assert "space" not in header
        assert "space origin" not in header

    def test_a_space_that_nobody_knows_loses_its_name(self, tmp_path):
        fields = 'space: Öuter\nspace directions: (1,0) (0,-1)\nspace units: "µm" "m"'
        header = f"NRRD0004\ntype: uchar\ndimension: 2\n{fields}\nsizes: 3 2\nencoding: raw\n\n"
        (tmp_path / "a.nrrd").write_bytes(header.encode("latin-1") + bytes(6))
        write_labels(tmp_path / "b.nrrd", LABELS[0, :2, :3], geometry=open_image(tmp_path / "a.nrrd").geometry)
        found = nrrd.read_header(str(tmp_path / "b.nrrd"))
        assert "space" not in found
        assert found["space dimension"] == 2
        np.testing.assert_array_equal(found["space directions"], [[1, 0], [0, -1]])

    def relabelled(self, folder, image, rows, **options):
        """The header of labels of a NRRD image."""
        fields = {
            "space": "left-posterior-superior",
            "space directions": rows,
            "space origin": [10, 20, 1e-7],
            "space units": ["um"] * 3,
        }
        nrrd.write(str(folder / "a.nrrd"), image, fields, index_order="C")
        found = open_image(folder / "a.nrrd", **options)
        shape = tuple(n for n, letter in zip(found.array.shape, found.axes, strict=True) if letter in "ZYX")
        write_labels(
            folder / "b.nrrd",
            np.ones(shape, np.uint8),
            spacing=found.spacing,
            unit=found.unit,
            geometry=found.geometry,
        )
        return nrrd.read_header(str(folder / "b.nrrd"))


def test_the_other_format_takes_the_voxel_size_only(tmp_path):
    write_nifti(tmp_path / "a.nii", make_image(), LEFT)
    image = open_image(tmp_path / "a.nii")
    write_labels(tmp_path / "b.nrrd", LABELS, spacing=image.spacing, unit=image.unit, geometry=image.geometry)
    header = nrrd.read_header(str(tmp_path / "b.nrrd"))
    assert "space" not in header
    np.testing.assert_allclose(header["space directions"], np.diag([0.5, 0.325, 2]))
