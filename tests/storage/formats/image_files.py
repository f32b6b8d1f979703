"""Files of each format, written by the libraries that others use, and ilastik projects in their real layout."""

from __future__ import annotations

import json

import h5py
import nibabel
import nrrd
import numpy as np
import tifffile
import zarr
from ome_zarr_models.v04.axes import Axis as Axis04
from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v04.multiscales import Dataset as Dataset04
from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04

from napari_sparseseg.storage.ome import write_image


def make_image(shape=(5, 24, 18), dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def axes_of(image):
    return "CZYX"[-image.ndim :]


def write_ome_tiff(path, image, spacing, **options):
    sizes = {f"PhysicalSize{letter}": size for letter, size in zip("ZYX", spacing, strict=True)}
    tifffile.imwrite(path, image, ome=True, metadata={"axes": axes_of(image), **sizes}, **options)


def write_imagej_tiff(path, image, spacing, **options):
    if image.ndim == 4:
        image = image.swapaxes(0, 1)
    tifffile.imwrite(
        path,
        image,
        imagej=True,
        resolution=(1 / spacing[2], 1 / spacing[1]),
        metadata={"axes": "ZCYX"[4 - image.ndim :] if image.ndim == 4 else "ZYX", "spacing": spacing[0], "unit": "um"},
        **options,
    )


def write_ome_zarr_05(path, image, spacing):
    write_image(path, image, channel_axis=0 if image.ndim == 4 else None, spacing=spacing)


def write_ome_zarr_04(path, image, spacing, *, global_scale=None, name_of=str, labels=False):
    """Two levels, the second every other voxel along y and x."""
    group = zarr.create_group(path, zarr_format=2)
    letters = axes_of(image).lower()
    datasets = []
    for level, factor in enumerate((1, 2)):
        data = image[..., ::factor, ::factor]
        group.create_array(name_of(level), shape=data.shape, dtype=data.dtype)[...] = data
        scale = [1.0] * (image.ndim - 3) + [spacing[0], spacing[1] * factor, spacing[2] * factor]
        datasets.append(Dataset04.build(path=name_of(level), scale=scale, translation=None))
    multiscale = Multiscale04(
        axes=tuple(
            Axis04(name=letter, type="channel")
            if letter == "c"
            else Axis04(name=letter, type="space", unit="micrometer")
            for letter in letters
        ),
        datasets=tuple(datasets),
        coordinateTransformations=({"type": "scale", "scale": list(global_scale)},) if global_scale else None,
        version="0.4",
    )
    group.attrs.update(ImageAttrs04(multiscales=[multiscale]).model_dump(mode="json", exclude_none=True))
    if labels:
        group.attrs["image-label"] = {"version": "0.4", "properties": [{"label-value": 2, "class": "nucleus"}]}
    return group


def write_nifti(path, image, spacing, unit="micron"):
    data = image.transpose()[:, :, :, None, :] if image.ndim == 4 else image.transpose()
    stored = nibabel.Nifti1Image(data, np.diag([*spacing[::-1], 1.0]), dtype=data.dtype)
    stored.header.set_xyzt_units(xyz=unit)
    nibabel.save(stored, path)


def write_nrrd(path, image, spacing, *, encoding="raw"):
    rows = [*np.diag(spacing[::-1]).tolist(), *[[np.nan] * 3] * (image.ndim - 3)]
    header = {
        "space dimension": 3,
        "space directions": np.array(rows),
        "space units": ["um"] * 3,
        "kinds": ["domain"] * 3 + ["list"] * (image.ndim - 3),
        "encoding": encoding,
    }
    nrrd.write(str(path), image, header, index_order="C")


WRITERS = {
    "OME-TIFF": (".ome.tif", write_ome_tiff),
    "ImageJ TIFF": (".tif", write_imagej_tiff),
    "OME-Zarr 0.5": (".ome.zarr", write_ome_zarr_05),
    "OME-Zarr 0.4": (".zarr", write_ome_zarr_04),
    "NIfTI": (".nii", write_nifti),
    "NRRD": (".nrrd", write_nrrd),
}


def axistags(keys):
    """Axis tags as vigra writes them."""
    flags = {"c": 1, "t": 8}
    axes = [{"key": key, "typeFlags": flags.get(key, 2), "resolution": 0, "description": ""} for key in keys]
    return json.dumps({"axes": axes})


def write_ilastik(path, lanes, *, keys="zyxc", names=("bone", "rest"), says_shape=True, is_tagged=True):
    """A pixel classification project.

    `lanes` is one list for each image: its shape along `keys`, and blocks as (start along `keys`, values).
    """
    with h5py.File(path, "w") as project:
        project["ilastikVersion"] = b"1.4.1"
        project["workflowName"] = b"Pixel Classification"
        project["PixelClassification/LabelNames"] = [name.encode() for name in names] or np.empty(1)
        project["PixelClassification/LabelNames"].attrs["isEmpty"] = not names
        sets = project.create_group("PixelClassification/LabelSets")
        for number, (shape, blocks) in enumerate(lanes):
            _write_lane_info(project, number, shape if says_shape else None, keys)
            group = sets.create_group(f"labels{number:03d}")
            for index, (start, values) in enumerate(blocks):
                _write_block(group, index, start, values, keys if is_tagged else None)


def _write_lane_info(project, number, shape, keys):
    raw = project.create_group(f"Input Data/infos/lane{number:04d}/Raw Data")
    raw["nickname"] = f"image{number}".encode()
    raw["axistags"] = axistags(keys).encode()
    if shape is not None:
        raw["shape"] = shape


def _write_block(group, index, start, values, keys):
    block = group.create_dataset(f"block{index:04d}", data=values, compression="gzip", compression_opts=1)
    ends = [a + size for a, size in zip(start, values.shape, strict=True)]
    slicing = ",".join(f"{a}:{b}" for a, b in zip(start, ends, strict=True))
    block.attrs["blockSlice"] = f"[{slicing}]".encode()
    if keys is not None:
        block.attrs["axistags"] = axistags(keys)
