"""Images and annotations of each format that is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel
import nrrd
import numpy as np
import tifffile
import zarr

from fuzzing.mutators import (
    DECOY,
    Mutator,
    Rng,
    bytes_of_some_file,
    files_of,
    gzip_bomb,
    json_of_some_file,
    lose_some_file,
    pick,
    text_of_some_file,
    zlib_bomb,
)
from fuzzing.target import Target
from napari_sparseseg.storage.formats import open_annotation, open_image, write_labels
from napari_sparseseg.storage.ome import write_image

_IMAGE = np.random.default_rng(0).integers(0, 100, (3, 12, 10)).astype(np.uint16)
_LABELS = (_IMAGE % 3).astype(np.uint8)
_SPACING = (2.0, 0.5, 0.5)
_GENERIC: tuple[Mutator, ...] = (bytes_of_some_file, text_of_some_file)


def use_image(path: Path) -> None:
    """Open, as an image unless it can only be an annotation, and read two voxels."""
    for opener in (open_annotation,) if path.suffix == ".ilp" else (open_image, open_annotation):
        image = opener(path)
        image.array[(slice(0, 1),) * len(image.array.shape)]
        image.array[tuple(size - 1 for size in image.array.shape)]
        image.frame(0)


# --- TIFF ---


def make_tiffs(folder: Path) -> Sequence[Path]:
    """Plain, packed, tiled, of ImageJ, and OME with planes in a second file."""
    write_labels(folder / "labels.ome.tif", _LABELS, spacing=_SPACING)
    write_labels(folder / "labels.tif", _LABELS)
    tifffile.imwrite(folder / "plain.tif", _IMAGE, metadata=None)
    tifffile.imwrite(folder / "tiled.tif", np.tile(_IMAGE, (1, 4, 4)), tile=(16, 16), compression="zlib")
    tifffile.imwrite(folder / "imagej.tif", _IMAGE, imagej=True, metadata={"axes": "ZYX", "spacing": 2.0})
    tifffile.imwrite(folder / "big.tif", _IMAGE, bigtiff=True, compression="zlib", predictor=True)
    (folder / "two").mkdir()
    tifffile.imwrite(folder / "two" / "beside.tif", _IMAGE, metadata=None)
    two = folder / "two" / "two.ome.tif"
    tifffile.imwrite(two, _IMAGE, ome=True, metadata={"axes": "ZYX", "UUID": "urn:uuid:1"})
    content = two.read_bytes()
    # planes that are said to lie in a file beside
    name = b'<TiffData IFD="0" PlaneCount="3"><UUID FileName="beside.tif">urn:uuid:2</UUID></TiffData>'
    start, end = content.index(b"<TiffData"), content.index(b"/>", content.index(b"<TiffData")) + 2
    with tifffile.TiffWriter(two) as writer:
        text = content[content.index(b"<?xml") : content.index(b"</OME>") + 6]
        shift = content.index(b"<?xml")
        writer.write(_IMAGE, description=text[: start - shift] + name + text[end - shift :], metadata=None)
    return [*sorted(file for file in folder.iterdir() if file.is_file()), two]


def mutate_tag(path: Path, rng: Rng) -> None:
    """Another type, number or value of some tag of the first directory of a TIFF."""
    content = bytearray(path.read_bytes())
    if content[:4] != b"II*\0" or len(content) < 16:
        return bytes_of_some_file(path, rng)
    start = int.from_bytes(content[4:8], "little")
    n_tags = int.from_bytes(content[start : start + 2], "little")
    at = start + 2 + 12 * int(rng.integers(max(1, min(n_tags, 100))))
    field, width = pick(rng, ((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
    odd = pick(rng, (0, 1, 2, 3, 5, 7, 8, 13, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1))
    content[at + field : at + field + width] = (odd % (1 << 8 * width)).to_bytes(width, "little")
    path.write_bytes(content)
    return None


# --- zarr ---


def make_zarrs(folder: Path) -> Sequence[Path]:
    """OME-Zarr 0.5 and 0.4, labels in an image, and plain arrays of both versions."""
    write_image(folder / "five.ome.zarr", _IMAGE, spacing=_SPACING)
    write_labels(folder / "labels.ome.zarr", _LABELS, spacing=_SPACING, class_names={1: "cell", 2: "rest"})
    group = zarr.create_group(folder / "four.zarr", zarr_format=2)
    group.create_array("0", data=_IMAGE, chunks=(1, 12, 10))
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    scale = [{"type": "scale", "scale": list(_SPACING)}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    group.create_group("labels").attrs["labels"] = ["cells"]
    group.create_group("labels/cells").attrs["multiscales"] = group.attrs["multiscales"]
    group.create_array("labels/cells/0", data=_LABELS, chunks=(3, 12, 10))
    three = zarr.create_array(folder / "three.zarr", data=_IMAGE, chunks=(1, 6, 5), shards=(3, 12, 10))
    three.attrs["note"] = "sharded"
    zarr.create_array(folder / "two.zarr", data=_IMAGE, chunks=(2, 12, 10), zarr_format=2)
    return sorted(folder.iterdir())


def bomb_in_a_chunk(path: Path, rng: Rng) -> None:
    """A chunk that unpacks to gigabytes, packed as gzip or zlib."""
    chunks = [file for file in files_of(path) if not file.name.startswith((".z", "zarr.json"))]
    for metadata in [file for file in files_of(path) if file.name in ("zarr.json", ".zarray")]:
        found = json.loads(metadata.read_bytes())
        if "codecs" in found:
            found["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
            found["codecs"] += [{"name": "gzip", "configuration": {"level": 1}}]
        elif "compressor" in found:
            found["compressor"] = {"id": "gzip", "level": 1}
        metadata.write_text(json.dumps(found))
    if chunks:
        pick(rng, chunks).write_bytes(gzip_bomb())


# --- NPY, NIfTI, NRRD ---


def make_npys(folder: Path) -> Sequence[Path]:
    """An array, and an archive."""
    np.save(folder / "image.npy", _IMAGE)
    np.savez(folder / "images.npz", image=_IMAGE, labels=_LABELS)
    return sorted(folder.iterdir())


def make_niftis(folder: Path) -> Sequence[Path]:
    """Plain and packed."""
    for name in ("image.nii", "image.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(_IMAGE.T, np.diag([0.5, 0.5, 2.0, 1.0])), folder / name)
    return sorted(folder.iterdir())


def mutate_nifti_header(path: Path, rng: Rng) -> None:
    """Another size, type, offset or scaling in the header."""
    packed = path.name.endswith(".gz")
    image = nibabel.load(path) if rng.random() < 0.9 else None
    if image is None:
        return bytes_of_some_file(path, rng)
    content = bytearray(image.header.binaryblock + bytes(4) + _IMAGE.tobytes())
    at, form = pick(rng, ((40, "<h"), (42, "<h"), (44, "<h"), (46, "<h"), (48, "<h"), (70, "<h"), (72, "<h")))
    if rng.random() < 0.4:
        at, form = pick(rng, ((108, "<f"), (112, "<f"), (116, "<f"), (80, "<f"), (84, "<f"), (123, "<b"), (0, "<i")))
    odd = pick(rng, (0, -1, 1, 2, 7, 64, 127)) if form[1] == "b" else pick(rng, (0, -1, 1, 4, 8, 128, 32767, -32768))
    if form[1] == "f":
        odd = pick(rng, (float("nan"), float("inf"), 1e30, -1.0, 0.0, 352.5, 1e9, 2**31, 2**62))
    struct.pack_into(form, content, at, odd)
    path.write_bytes(_packed(bytes(content)) if packed else bytes(content))
    return None


def bomb_behind_the_header(path: Path, rng: Rng) -> None:
    """Gigabytes of zeros where the voxels should be, and perhaps where the header is."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        header = nibabel.load(path).header.binaryblock + bytes(4)
        path.write_bytes(_packed(header) + gzip_bomb() if rng.random() < 0.7 else gzip_bomb())
    elif b"encoding: gzip" in content:
        path.write_bytes(content[: content.index(b"\n\n") + 2] + gzip_bomb())
    else:
        path.write_bytes(content + zlib_bomb())


def _packed(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, 1, mtime=0)


def make_nrrds(folder: Path) -> Sequence[Path]:
    """Raw, packed, as text, and with the voxels beside."""
    header = {"spacings": [0.5, 0.5, 2.0], "units": ["um"] * 3}
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        nrrd.write(str(folder / f"{encoding}.nrrd"), _IMAGE, {**header, "encoding": encoding}, index_order="C")
    beside = folder / "beside.nhdr"
    nrrd.write(str(beside), _IMAGE, {**header, "encoding": "gzip"}, index_order="C")
    (folder / "beside").mkdir()
    for file in (beside, folder / "beside.raw.gz"):
        file.rename(folder / "beside" / file.name)
    return [*sorted(file for file in folder.iterdir() if file.is_file()), folder / "beside" / "beside.nhdr"]


def mutate_nrrd_line(path: Path, rng: Rng) -> None:
    """A line of the header more, doubled or another."""
    content = path.read_bytes()
    end = content.find(b"\n\n")
    lines = content[: max(end, 0)].split(b"\n")
    odd = pick(rng, ("-1", "0", "1000000000000", "1e30", "nan", f"../{DECOY}.raw", f"/{DECOY}", "LIST", "x %d 1 9 1"))
    field = pick(
        rng, ("data file", "line skip", "byte skip", "sizes", "dimension", "encoding", "type", "spacings", "kinds")
    )
    if rng.random() < 0.5:
        lines.append(f"{field}: {odd}".encode())
    else:
        at = int(rng.integers(len(lines)))
        lines[at] = lines[at].split(b":")[0] + f": {pick(rng, (odd, f'{odd} {odd} {odd}'))}".encode()
    path.write_bytes(b"\n".join(lines) + content[end:])


# --- ilastik ---


def make_ilastiks(folder: Path) -> Sequence[Path]:
    """A pixel classification project with two blocks of strokes."""
    path = folder / "strokes.ilp"
    tags = json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in "zyxc"]})
    with h5py.File(path, "w") as project:
        project["PixelClassification/LabelNames"] = [b"cell", b"rest"]
        raw = project.create_group("Input Data/infos/lane0000/Raw Data")
        raw["axistags"], raw["shape"] = tags.encode(), (3, 12, 10, 1)
        for number, z in enumerate((0, 2)):
            block = project.create_dataset(
                f"PixelClassification/LabelSets/labels000/block{number:04d}",
                data=_LABELS[z : z + 1, ..., None],
                compression="gzip",
            )
            block.attrs["blockSlice"] = f"[{z}:{z + 1},0:12,0:10,0:1]".encode()
            block.attrs["axistags"] = tags
    return [path]


def mutate_hdf5(path: Path, rng: Rng) -> None:
    """What HDF5 itself can say: links to other files, voxels in other files, sizes of terabytes, odd attributes."""
    lane = "PixelClassification/LabelSets/labels000"
    with h5py.File(path, "r+") as project:
        block = f"{lane}/block0000"
        slicing = project[block].attrs["blockSlice"]
        match int(rng.integers(7)):
            case 0:
                del project[block]
                project[block] = h5py.ExternalLink(f"../{DECOY}.h5", "/labels")
            case 1:
                del project[lane]
                project[lane] = h5py.SoftLink(pick(rng, ("/", lane, "/nowhere", "/PixelClassification")))
            case 2:
                del project[block]
                project.create_dataset(block, (1, 12, 10, 1), "u1", external=[(f"/{DECOY}", 0, 120)])
            case 3:
                del project[block]
                size = int(pick(rng, (10**4, 10**6, 2**40)))
                project.create_dataset(block, (1, size, size, 1), "u1", chunks=(1, 64, 64, 1), compression="gzip")
                slicing = f"[0:1,0:{size},0:{size},0:1]".encode()
            case 4:
                del project[block]
                layout = h5py.VirtualLayout((1, 12, 10, 1), "u1")
                layout[...] = h5py.VirtualSource(f"../{DECOY}.h5", "labels", (1, 12, 10, 1))
                project.create_virtual_dataset(block, layout)
            case 5:
                slicing = pick(
                    rng, (b"", b"[0:1]", b"[9:1,0:12]", b"[0:99999999999999999999]", 5, b"[5:6,0:12,0:10,0:1]")
                )
            case _:
                raw = project["Input Data/infos/lane0000/Raw Data"]
                del raw["shape"], raw["axistags"]
                raw["shape"] = pick(rng, ([2**60] * 4, [-1] * 4, [0.5] * 4, [3, 12], b"x", [[3, 12, 10, 1]], 7))
                raw["axistags"] = pick(rng, (b"{}", b"[]", b'{"axes": 5}', b"[" * 99999, 7, b'{"axes": [{"key": 5}]}'))
        project[block].attrs["blockSlice"] = slicing if block in project else b""


def _target(name: str, make: Callable[[Path], Sequence[Path]], *aware: Any) -> Target:
    return Target(name, make, (*_GENERIC, *aware), use_image)


TARGETS = (
    _target("tiff", make_tiffs, mutate_tag, mutate_tag, lose_some_file),
    _target("zarr", make_zarrs, json_of_some_file, json_of_some_file, lose_some_file, bomb_in_a_chunk),
    _target("npy", make_npys),
    _target("nifti", make_niftis, mutate_nifti_header, mutate_nifti_header, bomb_behind_the_header),
    _target("nrrd", make_nrrds, mutate_nrrd_line, mutate_nrrd_line, bomb_behind_the_header),
    _target("ilastik", make_ilastiks, mutate_hdf5, mutate_hdf5),
)
