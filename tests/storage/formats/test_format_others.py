"""NPY, NIfTI and NRRD, each with its own traps."""

from __future__ import annotations

import nibabel
import nrrd
import numpy as np
import pytest
from image_files import make_image, write_nifti, write_nrrd

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import open_annotation, open_image


class TestNPY:
    def test_is_mapped_in_any_memory_order(self, tmp_path):
        image = make_image()
        np.save(tmp_path / "a.npy", np.asfortranarray(image))
        np.testing.assert_array_equal(open_image(tmp_path / "a.npy").array[1:3], image[1:3])

    def test_is_never_unpickled(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
        with pytest.raises(InputError, match=r"a.npy cannot be read as NPY"):
            open_image(tmp_path / "a.npy")

    @pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "S4", [("r", "u1"), ("g", "u1")]])
    def test_holds_real_numbers(self, tmp_path, dtype):
        np.save(tmp_path / "a.npy", np.zeros((4, 5), dtype))
        with pytest.raises(InputError, match=r"a.npy holds values of type .*, but real numbers are needed"):
            open_image(tmp_path / "a.npy")

    @pytest.mark.parametrize("shape", [(0, 4, 5), ()])
    def test_holds_voxels(self, tmp_path, shape):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(InputError, match=r"a.npy (holds no voxels|cannot be read)"):
            open_image(tmp_path / "a.npy")

    def test_of_several_arrays_is_told_how_to_split(self, tmp_path):
        np.savez(tmp_path / "a.npz", image=make_image(), labels=make_image())
        with pytest.raises(
            InputError, match=r"archive of arrays \(image, labels\).*numpy.load\('.*a.npz'\)\['image'\]"
        ):
            open_image(tmp_path / "a.npz")


class TestNIfTI:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_intensities_are_scaled(self, tmp_path, suffix):
        stored = nibabel.Nifti1Image(make_image().T.astype(np.int16), np.eye(4))
        stored.header.set_slope_inter(0.5, 10)
        nibabel.save(stored, tmp_path / f"a{suffix}")
        found = open_image(tmp_path / f"a{suffix}")
        assert found.array.dtype == np.float64
        np.testing.assert_allclose(found.array[1:3, 4], make_image()[1:3, 4] * 0.5 + 10)

    def test_time_comes_first(self, tmp_path):
        image = make_image((3, 5, 24, 18))
        nibabel.save(nibabel.Nifti1Image(image.T, np.eye(4)), tmp_path / "a.nii")
        found = open_image(tmp_path / "a.nii")
        assert (found.axes, found.spacing) == ("TZYX", None)
        np.testing.assert_array_equal(found.frame(2).array[1:3], image[2, 1:3])
        assert open_image(tmp_path / "a.nii", axes="CZYX").channel_axis == 0

    @pytest.mark.parametrize(("unit", "found"), [("mm", "millimeter"), ("meter", "meter"), ("unknown", None)])
    def test_units(self, tmp_path, unit, found):
        write_nifti(tmp_path / "a.nii.gz", make_image(), (2, 0.5, 0.5), unit)
        image = open_image(tmp_path / "a.nii.gz")
        assert (image.spacing, image.unit) == ((2.0, 0.5, 0.5), found)

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    @pytest.mark.parametrize("kept", [0.1, 0.7])
    def test_truncated_files_are_refused(self, tmp_path, name, kept):
        write_nifti(tmp_path / name, np.random.default_rng(0).integers(0, 999, (9, 30, 40)).astype("i2"), (1, 1, 1))
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(InputError, match=rf"{name} "):
            open_image(tmp_path / name).array[-1]

    def test_labels_may_be_floats(self, tmp_path):
        write_nifti(tmp_path / "a.nii", make_image(dtype=np.float32), (1, 1, 1))
        assert open_annotation(tmp_path / "a.nii").array.dtype == np.float32


class TestNRRD:
    @pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
    def test_encodings(self, tmp_path, encoding):
        image = make_image()
        write_nrrd(tmp_path / "a.nrrd", image, (2, 0.5, 0.25), encoding=encoding)
        found = open_image(tmp_path / "a.nrrd")
        assert (found.axes, found.spacing, found.unit) == ("ZYX", (2.0, 0.5, 0.25), "micrometer")
        np.testing.assert_array_equal(found.array[1:4, 3:], image[1:4, 3:])

    @pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">u2", "i4", "u4", "i8", "u8", "f4", ">f8"])
    def test_types(self, tmp_path, dtype):
        image = make_image(dtype=dtype)
        nrrd.write(str(tmp_path / "a.nrrd"), image, {"encoding": "raw"}, index_order="C")
        np.testing.assert_array_equal(open_image(tmp_path / "a.nrrd").array[...], image)

    def test_headers_with_their_data_beside(self, tmp_path):
        nrrd.write(str(tmp_path / "a.nhdr"), make_image(), {"spacings": [0.25, 0.5, 2.0]}, index_order="C")
        found = open_image(tmp_path / "a.nhdr")
        assert (found.spacing, found.unit) == ((2.0, 0.5, 0.25), None)
        np.testing.assert_array_equal(found.array[...], make_image())

    def test_oblique_directions_have_lengths(self, tmp_path):
        header = {
            "space": "left-posterior-superior",
            "space directions": np.array([[0.3, 0.4, 0], [-0.4, 0.3, 0], [0, 0, 2]]),
            "encoding": "raw",
        }
        nrrd.write(str(tmp_path / "a.nrrd"), make_image(), header, index_order="C")
        assert open_image(tmp_path / "a.nrrd").spacing == pytest.approx((2, 0.5, 0.5))

    def test_time_and_colour_are_told_by_kinds(self, tmp_path):
        for kind, axes in (("time", "TZYX"), ("RGB-color", "CZYX")):
            header = {"kinds": ["domain"] * 3 + [kind], "encoding": "raw"}
            nrrd.write(str(tmp_path / "a.nrrd"), make_image((3, 5, 24, 18)), header, index_order="C")
            assert open_image(tmp_path / "a.nrrd").axes == axes

    def test_units_may_stand_for_each_axis(self, tmp_path):
        header = {"spacings": [0.25, 500.0, 2.0], "units": ["um", "nm", "um"], "encoding": "raw"}
        nrrd.write(str(tmp_path / "a.nrrd"), make_image(), header, index_order="C")
        found = open_image(tmp_path / "a.nrrd")
        assert (found.spacing, found.unit) == ((2.0, 0.5, 0.25), "micrometer")

    @pytest.mark.parametrize("unit", [b"\xc2\xb5m", b"\xce\xbcm", b"\xb5m"])
    @pytest.mark.parametrize(
        "fields", ["space directions: (0.5,0,0) (0,0.5,0) (0,0,2)\nspace ", "spacings: 0.5 0.5 2\n"]
    )
    def test_the_letter_of_micrometres_is_read_in_any_encoding(self, tmp_path, fields, unit):
        header = f"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 4 5 6\nencoding: raw\nspace dimension: 3\n{fields}units:"
        (tmp_path / "a.nrrd").write_bytes(header.encode() + b' "%b"' % unit * 3 + b"\n\n" + bytes(range(120)))
        found = open_image(tmp_path / "a.nrrd", axes="ZYX")
        assert (found.spacing, found.unit) == ((2.0, 0.5, 0.5), "micrometer")
        assert found.array[...].ravel().tolist() == list(range(120))

    def test_the_file_beside_may_have_any_letters(self, tmp_path):
        header = "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: cellé.raw\n"
        (tmp_path / "a.nhdr").write_bytes(header.encode())
        (tmp_path / "cellé.raw").write_bytes(bytes(range(4)))
        assert open_image(tmp_path / "a.nhdr").array[...].ravel().tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("encoding", ["raw", "gzip"])
    def test_truncated_files_are_refused(self, tmp_path, encoding):
        write_nrrd(tmp_path / "a.nrrd", make_image(), (1, 1, 1), encoding=encoding)
        data = (tmp_path / "a.nrrd").read_bytes()
        (tmp_path / "a.nrrd").write_bytes(data[: len(data) - 400])
        with pytest.raises(InputError, match=r"a.nrrd cannot be read"):
            open_image(tmp_path / "a.nrrd").array[...]

    def test_a_type_that_nobody_knows_is_quoted_briefly(self, tmp_path):
        header = b"NRRD0004\ntype: uint1" + b"0" * 5000 + b"\ndimension: 2\nsizes: 2 2\nencoding: raw\n\n"
        (tmp_path / "a.nrrd").write_bytes(header + bytes(16))
        with pytest.raises(InputError, match=r"of type 'uint1000.*save the image as numbers") as caught:
            open_image(tmp_path / "a.nrrd")
        assert len(str(caught.value)) < 300 + len(str(tmp_path))

    def test_blocks_are_no_numbers(self, tmp_path):
        header = b"NRRD0004\ntype: block\nblock size: 4\ndimension: 2\nsizes: 2 2\nencoding: raw\n\n"
        (tmp_path / "a.nrrd").write_bytes(header + bytes(16))
        with pytest.raises(InputError, match=r"a.nrrd holds values of type 'block'; save the image as numbers"):
            open_image(tmp_path / "a.nrrd")
