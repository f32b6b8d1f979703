"""Real volumes, in each format and back, with another reader to confirm voxel size and axes."""

from __future__ import annotations

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr
from command_line import SMALL, run
from ome_zarr_models.v05.image_label import ImageLabel

from napari_sparseseg.storage.ome import write_image, write_labels


def write(path, array, spacing, *, is_image):
    """Write a file with the library of its format, not with ours; OME-Zarr has its own tests."""
    name = path.name
    if name.endswith(".ome.zarr"):
        (write_image if is_image else write_labels)(path, array, spacing=spacing)
    elif name.endswith(".ome.tif"):
        sizes = {f"PhysicalSize{a}": s for a, s in zip("ZYX", spacing, strict=True)}
        units = {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"}
        tifffile.imwrite(path, array, metadata={"axes": "ZYX", **sizes, **units}, photometric="minisblack")
    elif name.endswith(".nii.gz"):
        image = nibabel.Nifti1Image(array.T, np.diag([*spacing[::-1], 1]))
        image.header.set_xyzt_units("micron")
        nibabel.save(image, path)
    else:
        header = {"spacings": list(spacing[::-1]), "space units": ["um"] * 3, "units": ["um"] * 3}
        header.pop("space units")
        nrrd.write(str(path), array.T, header)
    return path


def read(path):
    """Labels along z, y, x and the voxel size in micrometres, read by a library that is not ours."""
    name = path.name
    if name.endswith(".ome.zarr"):
        found = ImageLabel.from_zarr(zarr.open_group(path, mode="r")).ome_attributes.multiscales[0]
        assert [(axis.name, axis.unit) for axis in found.axes] == [(a, "micrometer") for a in "zyx"]
        return zarr.open_array(path / "0", mode="r")[:], found.datasets[0].coordinateTransformations[0].scale
    if name.endswith(".tif"):
        with tifffile.TiffFile(path) as tiff:
            assert tiff.series[0].axes == "ZYX"
            if tiff.is_imagej:
                x, y = (tiff.pages[0].tags[f"{axis}Resolution"].value for axis in "XY")
                assert tiff.imagej_metadata["unit"] == "um"
                return tiff.asarray(), (tiff.imagej_metadata["spacing"], y[1] / y[0], x[1] / x[0])
            pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
            return tiff.asarray(), [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"]
    if name.endswith(".nii.gz"):
        image = nibabel.load(path)
        factor = {"mm": 1000, "micron": 1}[image.header.get_xyzt_units()[0]]
        return np.asarray(image.dataobj).T, [size * factor for size in image.header.get_zooms()[::-1]]
    array, header = nrrd.read(str(path))
    spacings = header.get("spacings")
    if spacings is None:
        spacings = np.linalg.norm(header["space directions"], axis=1)
    unit = (header.get("space units") or header.get("units"))[0]
    factor = {"mm": 1000, "um": 1, "µm": 1, "micrometer": 1, "micron": 1}[unit]
    return array.T, [size * factor for size in spacings[::-1]]


@pytest.fixture(scope="module")
def real(load_case, load_shared):
    """A corner of a real volume, painted, whose voxels are longer along z."""
    case = load_case("embryo/scribbles")
    corner = np.s_[:24, :64, :64]
    painted = np.zeros_like(case.truth[corner])
    painted[[6, 18]] = case.truth[corner][[6, 18]]
    return np.ascontiguousarray(case.image[corner]), painted, tuple(map(float, case.spacing))


# what is read differs from what is written, so that each format is met on both sides
@pytest.mark.parametrize(
    ("image", "annotation", "labels"),
    [
        ("image.ome.zarr", "paint.ome.tif", "labels.tif"),
        ("image.ome.tif", "paint.nii.gz", "labels.ome.zarr"),
        ("image.nii.gz", "paint.nrrd", "labels.ome.tif"),
        ("image.nrrd", "paint.ome.zarr", "labels.nii.gz"),
        ("image.ome.tif", "paint.ome.tif", "labels.nrrd"),
    ],
)
def test_each_format_keeps_axes_and_voxel_size(invoke, real, tmp_path, image, annotation, labels):
    voxels, painted, spacing = real
    image = write(tmp_path / image, voxels, spacing, is_image=True)
    annotation = write(tmp_path / annotation, painted, spacing, is_image=False)
    model, out = tmp_path / "model.safetensors", tmp_path / labels
    trained = invoke("train", image, annotation, "-o", model, *SMALL)
    assert (trained.exit_code, trained.stderr) == (0, "")
    predicted = invoke("predict", model, image, "-o", out)
    assert (predicted.exit_code, predicted.stderr) == (0, "")
    found, sizes = read(out)
    assert (found.shape, found.dtype) == (voxels.shape, np.uint8)
    assert set(np.unique(found)) <= {1, 2}
    assert list(map(float, sizes)) == pytest.approx(spacing, rel=1e-5)
    assert (found[painted > 0] == painted[painted > 0]).mean() > 0.8


def test_many_formats_at_once_into_a_folder(real, tmp_path):
    voxels, painted, spacing = real
    names = ["a.ome.tif", "b.nii.gz", "c.nrrd", "d.ome.zarr"]
    images = [write(tmp_path / name, voxels, spacing, is_image=True) for name in names]
    annotation = write(tmp_path / "paint.ome.tif", painted, spacing, is_image=False)
    assert run("train", images[0], annotation, "-o", tmp_path / "model", *SMALL).returncode == 0
    done = run("predict", tmp_path / "model", *images, "-o", tmp_path / "out", "--suffix", "_labels.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{name}_labels.npy" for name in "abcd"]
    first, *others = (np.load(tmp_path / "out" / f"{name}_labels.npy") for name in "abcd")
    for other in others:
        np.testing.assert_array_equal(first, other)


def write_turned(path, voxels):
    """A NIfTI image that runs to the left and back, far from the origin."""
    affine = np.array([[-0.5, 0, 0, 90], [0, -0.5, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(voxels.T, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)
    return nibabel.load(path)


def placed(path):
    """Where nibabel sees the voxels, and the codes of the header."""
    image = nibabel.load(path)
    return image.affine.tolist(), int(image.header["qform_code"]), int(image.header["sform_code"])


@pytest.mark.parametrize("command", ["predict", "objects"])
def test_labels_lie_where_the_header_of_the_image_says(invoke, files, tmp_path, command):
    image, out = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    write_turned(image, tifffile.imread(files.image))
    done = invoke(command, files.model, image, "-o", out)
    assert done.exit_code == 0, done.output
    assert placed(out) == placed(image)


def test_another_voxel_size_leaves_the_place_unknown(invoke, files, tmp_path):
    image, out = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    write_turned(image, tifffile.imread(files.image))
    assert invoke("predict", files.model, image, "-o", out, "--spacing", "1000,500,500").exit_code == 0
    assert placed(out) == placed(image)  # typed, but the same
    assert invoke("predict", files.model, image, "-o", out, "--overwrite", "--spacing", "9,5,5").exit_code == 0
    assert placed(out)[1:] == (0, 0)
    assert nibabel.load(out).header.get_zooms() == pytest.approx([0.005, 0.005, 0.009])


def test_info_tells_that_a_file_holds_several_images(invoke, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for shape in ((5, 8, 9), (12, 13)):
            file.write(np.ones(shape, np.uint8), photometric="minisblack")
    done = invoke("info", tmp_path / "a.tif", "--axes", "ZYX")
    assert "Images      2 in this file, of which the first is used" in done.stdout
    tifffile.imwrite(tmp_path / "b.tif", np.ones((8, 9), np.uint8))
    assert "Images" not in invoke("info", tmp_path / "b.tif").stdout
