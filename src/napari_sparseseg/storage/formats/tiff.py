"""TIFF in all that microscopes make of it: OME, ImageJ, BigTIFF, pyramids, plain pages."""

from __future__ import annotations

import html
import logging
import math
import re
import struct
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._axes import UNKNOWN
from napari_sparseseg.storage.formats._bounds import beside
from napari_sparseseg.storage.formats._errors import reason
from napari_sparseseg.storage.formats._image import Opened, ReadOptions
from napari_sparseseg.storage.formats._lazy import LoadedOnce
from napari_sparseseg.storage.formats._stack import Stack
from napari_sparseseg.storage.units import Steps, in_one_unit, unit_name

_HELD_BYTES = 2**29  # up to this size a packed image is unpacked once, in parallel, and kept: ten times as fast
_PIECE_BYTES = 2**31
_CLASSIC_BYTES = 2**32 - 2**25  # what a TIFF holds that is no BigTIFF, with room for what describes the pages
_DAMAGE = ("invalid page offset", "corrupted", "failed to reshape")
_FILE_NAME = re.compile(r"""FileName\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ONE_PAGE_KINDS = ("imagej", "shaped", "stk")  # series whose first page tells what lies behind it
_LAYOUT_TAGS = (256, 257, 258, 259, 277, 317, 339)  # size, bits, compression, samples, predictor, kind of number
_MOST_TAGS = 4096  # as tifffile bounds them
_ENTITIES = re.compile(r"<!(?:DOCTYPE|ENTITY)")
_ALPHA = ((tifffile.EXTRASAMPLE.ASSOCALPHA,), (tifffile.EXTRASAMPLE.UNASSALPHA,))
_IMAGEJ_DTYPES = ("u1", "u2")
_IMAGEJ_UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}
_OME_UNITS = _IMAGEJ_UNITS | {"micrometer": "µm", "angstrom": "Å", "picometer": "pm"}


# --- reading ---


def open_tiff(path: Path | str, options: ReadOptions) -> Opened:
    """One series of a TIFF, at one level of its pyramid.

    Uncompressed images are mapped into memory; of compressed ones the small are unpacked when they are first read,
    from the large only those strips and tiles that are asked for. Colour samples count as channels, their alpha does
    not where it is opaque.

    Raises `InputError` for a file that is cut short or lacks planes, whose pages differ, or that is packed in a way
    that cannot be unpacked.
    """
    with _complaints() as complaints, tifffile.TiffFile(path) as tiff:
        _check_names(tiff, path)
        series = _chosen(_all_series(tiff, path), "series", "image", options.series, path)
        level = _chosen(series.levels, "level", "level", options.level, path)
        _check_complete(level, path, complaints)
        axes = _axes(level, path)
        array = _array(level, path, options)
        if _says_alpha(level) and _is_opaque(array, axes, path, options):
            array = _WithoutAlpha(array, axes.index("C"))
        files = _other_files(level, path)
        steps, unit, names = _calibration(tiff, options.series)
        n_levels, n_series = len(series.levels), len(tiff.series)
    zoom = [full / size for full, size in zip(series.shape, level.shape, strict=True)]
    by_axis = tuple(
        _times(steps.get(letter, steps.get("Z")), factor) for letter, factor in zip(axes, zoom, strict=True)
    )
    # voxels of a coarser level are means, whose centres lie between those of the finest
    offset = tuple(_times(step, (1 - 1 / factor) / 2) for step, factor in zip(by_axis, zoom, strict=True))
    kind = "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"
    return Opened(array, axes, kind, by_axis, unit, names, n_levels, offset=offset, files=files, n_series=n_series)


def _check_names(tiff: Any, path: Path | str) -> None:
    """Refuse a set whose other files, which tifffile would open, lie elsewhere."""
    names: list[str] = []
    if tiff.is_ome:
        if _ENTITIES.search(tiff.ome_metadata):
            raise InputError(f"{path} defines XML entities, which OME-TIFF does not need; export it again")
        names = [html.unescape(found[1] or found[2]) for found in _FILE_NAME.finditer(tiff.ome_metadata)]
    if tiff.is_ndtiff:
        names += [entry[1] for entry in tifffile.read_ndtiff_index(Path(path).parent / "NDTiff.index")]
    for name in names:
        beside(path, name)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile logs in this thread meanwhile: it goes on with fewer pages where it finds a broken one."""
    said: list[str] = []
    thread = threading.get_ident()

    def listen(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        message = record.getMessage()
        if any(word in message for word in _DAMAGE):  # other errors are about odd private tags
            said.append(message)
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(listen)
    try:
        yield said
    finally:
        logger.removeFilter(listen)


def _all_series(tiff: Any, path: Path | str) -> Any:
    try:
        return tiff.series
    except RuntimeError:  # of a page that cannot be as the first, which it does not name
        if (tiff.is_imagej or tiff.is_uniform) and not (tiff.is_ome or tiff.is_shaped):  # of one series
            for number in range(1, len(tiff.pages)):
                _check_alike(tiff.pages.get(number), tiff.pages.first, path)
        raise


def _chosen(found: Any, option: str, what: str, number: int, path: Path | str) -> Any:
    if not 0 <= number < len(found):
        raise InputError(f"{path} has {len(found)} {what}(s), so there is no {option} {number}; count from 0")
    return found[number]


def _check_complete(level: Any, path: Path | str, complaints: list[str]) -> None:
    if complaints:
        raise InputError(f"{path} is damaged ({complaints[0].rstrip('.')}); copy it again from its source")
    if level.dataoffset is not None:
        if level.kind not in _ONE_PAGE_KINDS:
            _check_pages(level.pages, level.keyframe, path)
        ends = [level.dataoffset + level.nbytes]
        sizes = [level.keyframe.parent.filehandle.size]
    else:
        pages = list(level.pages)
        n_missing = sum(page is None for page in pages)
        if n_missing:
            raise InputError(
                f"{path} lacks {n_missing} of its {len(pages)} planes; put the files of the set into one folder, or "
                "export it again"
            )
        _check_pages(pages, level.keyframe, path)
        ends = [_end(page) for page in pages]
        sizes = [page.parent.filehandle.size for page in pages]
    if any(end > size for end, size in zip(ends, sizes, strict=True)):
        raise InputError(f"{path} is cut short, it ends before its voxels do; copy it again from its source")


def _check_pages(pages: Iterable[Any], first: Any, path: Path | str) -> None:
    """Refuse a page that is not as the first, which tifffile takes all pages of a series to be without a look.

    What a page says is compared byte by byte, at a tenth of what it takes to understand it: every page of a stack is
    looked at when it is opened, which may have thousands.
    """
    layout = _layout(first)
    for page in pages:
        if not page.is_frame:
            _check_alike(page, first, path)
        elif not page.is_virtual and _layout(page) != layout:
            with _reopened(page):
                _check_alike(page.aspage(), first, path)


def _layout(page: Any) -> list[bytes]:
    """Entries of the page's directory that say how large it is, of which type, and how it is packed."""
    form = page.parent.tiff
    with _reopened(page) as file:
        file.seek(page.offset)
        (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        directory = file.read(min(n_tags, _MOST_TAGS) * form.tagsize)
    entries = (directory[start : start + form.tagsize] for start in range(0, len(directory), form.tagsize))
    return [entry for entry in entries if struct.unpack(f"{form.byteorder}H", entry[:2])[0] in _LAYOUT_TAGS]


@contextmanager
def _reopened(page: Any) -> Iterator[Any]:
    """The file of a page, which tifffile closes where it is another one of a set."""
    file = page.parent.filehandle
    was_closed = file.closed
    file.open()
    try:
        yield file
    finally:
        if was_closed:
            file.close()


def _check_alike(page: Any, first: Any, path: Path | str) -> None:
    if page.shape != first.shape:
        sizes = (" x ".join(map(str, each.shape)) for each in (page, first))
        difference = "is {}, those before it are {}".format(*sizes)
    elif page.dtype != first.dtype:
        difference = f"is {page.dtype}, those before it are {first.dtype}"
    elif (page.compression, page.predictor) != (first.compression, first.predictor):
        difference = "is packed in another way than those before it"
    else:
        return
    file = page.parent.filehandle
    place = "" if Path(file.path) == Path(path).resolve() else f" of {file.name}"
    raise InputError(
        f"{path} has pages that differ: page {page.treeindex[0]}{place} (counted from 0) {difference}; leave it out or "
        "make it like the others, e.g. in Fiji"
    )


def _end(page: Any) -> int:
    return max((a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)


def _array(level: Any, path: Path | str, options: ReadOptions) -> Any:
    if level.dataoffset is not None:
        holder = level.keyframe.parent  # another file, where a set names one
        dtype = np.dtype(level.dtype).newbyteorder(holder.byteorder)
        return np.memmap(holder.filehandle.path, dtype, "r", level.dataoffset, level.shape)
    _check_pieces(level, path)
    _check_unpackable(level, path)
    if level.nbytes <= _HELD_BYTES:
        return LoadedOnce(level.shape, level.dtype, _Loader(path, options))
    return _Pieces(path, options)


def _other_files(level: Any, path: Path | str) -> tuple[Path, ...]:
    """Files of a set in which planes lie, besides the one that was opened."""
    pages = [level.keyframe] if level.dataoffset is not None else level.pages
    found = {Path(page.parent.filehandle.path) for page in pages}
    return tuple(sorted(found - {Path(path).resolve()}))


def _check_pieces(level: Any, path: Path | str) -> None:
    """Refuse strips and tiles that are too large to be unpacked one by one, to be in the file, or are not in it."""
    page = level.keyframe
    size = page.parent.filehandle.size
    if any(not 0 <= count <= size for count in page.databytecounts):
        raise InputError(
            f"{path} is cut short, its strips or tiles are larger than it is; copy it again from its source"
        )
    # tifffile lists as many as width and height ask for, before it looks at what is there
    n_pieces = math.prod(page.chunked)
    if not page.is_contiguous and n_pieces > len(page.dataoffsets):
        raise InputError(
            f"{path} lacks strips or tiles: its size needs {n_pieces}, it has {len(page.dataoffsets)}; copy it again "
            "from its source"
        )
    n_bytes = math.prod(page.chunks) * np.dtype(level.dtype).itemsize
    if n_bytes > _PIECE_BYTES:
        raise InputError(f"{path} has strips or tiles of {n_bytes} bytes; save it in smaller tiles, or as OME-Zarr")


def _check_unpackable(level: Any, path: Path | str) -> None:
    """Unpack the first strip or tile: a missing codec shows only then."""
    try:
        next(iter(level.keyframe.segments(maxworkers=1)))
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"{path} is packed in a way that needs the library imagecodecs ({reason(error)}); get it with "
            'pip install "napari-sparseseg[tiff]"'
        ) from error


class _Loader:
    """Unpacks one level of one series."""

    def __init__(self, path: Path | str, options: ReadOptions) -> None:
        self._path, self._options = path, options

    def __call__(self) -> npt.NDArray[Any]:
        with _complaints():
            loaded: npt.NDArray[Any] = tifffile.imread(
                self._path, series=self._options.series, level=self._options.level
            )
        return loaded


class _Pieces:
    """A compressed image whose strips or tiles are unpacked when they are needed; it keeps the file open."""

    def __init__(self, path: Path | str, options: ReadOptions) -> None:
        tiff = tifffile.TiffFile(path)
        weakref.finalize(self, tiff.close)
        store = tiff.series[options.series].aszarr(level=options.level)
        self._array: Any = zarr.open_array(store, mode="r", zarr_format=2)
        self.shape, self.dtype, self.chunks = self._array.shape, self._array.dtype, self._array.chunks

    def __getitem__(self, index: Any) -> Any:
        return self._array[index]


def _axes(level: Any, path: Path | str) -> str:
    axes = "".join(letter if letter in "TCZYXS" else UNKNOWN for letter in level.axes)
    if "S" in axes and "C" in axes:
        raise InputError(f"{path} has colours and channels besides; turn the colours into channels first, e.g. in Fiji")
    return axes.replace("S", "C")


# --- alpha ---


def _says_alpha(level: Any) -> bool:
    """Whether pages are in colour and call their last sample alpha."""
    page = level.keyframe
    return "S" in level.axes and page.photometric == tifffile.PHOTOMETRIC.RGB and page.extrasamples[-1:] in _ALPHA


def _is_opaque(array: Any, axes: str, path: Path | str, options: ReadOptions) -> bool:
    """Whether the last sample has the largest value of its type all along the middle row of the first plane.

    Four channels of a microscope do not, which tifffile writes as colours and alpha if nobody tells it otherwise.
    """
    pieces = _Pieces(path, options) if isinstance(array, LoadedOnce) else array
    index = (
        {"Y": size // 2, "X": slice(None), "C": size - 1}.get(letter, 0)
        for letter, size in zip(axes, array.shape, strict=True)
    )
    row = np.asarray(pieces[tuple(index)])
    opaque = np.iinfo(row.dtype).max if row.dtype.kind in "iu" else 1
    return bool((row == opaque).all())


class _WithoutAlpha:
    """An array without the last sample of its voxels; it is read by slices that end within its shape."""

    def __init__(self, array: Any, axis: int) -> None:
        self._array, self.dtype = array, array.dtype
        self.shape = tuple(size - 1 if i == axis else size for i, size in enumerate(array.shape))
        chunks = getattr(array, "chunks", None)
        self.chunks = chunks and tuple(map(min, chunks, self.shape))

    def __getitem__(self, index: tuple[int | slice, ...]) -> Any:
        return self._array[index]


# --- voxel size and names ---


def _calibration(tiff: Any, series: int) -> tuple[dict[str, float | None], str | None, tuple[str, ...]]:
    """Step along Z, Y and X, their unit, and the names of the channels."""
    if tiff.is_ome:
        pixels = _ome_pixels(tiff, series)
        return *_ome_steps(pixels), _ome_channels(pixels)
    if tiff.is_imagej:
        return *_imagej_steps(tiff), ()
    # a resolution in dots per inch says nothing about a specimen
    return {}, None, ()


def _ome_pixels(tiff: Any, series: int) -> Mapping[str, Any]:
    try:
        images = tifffile.xml2dict(tiff.ome_metadata, sep="")["OME"]["Image"]
    except (ElementTree.ParseError, KeyError, TypeError):  # damaged, or in a file of its own (companion.ome)
        return {}
    images = images if isinstance(images, list) else [images]
    # images of which no plane is there are no series, and then numbers do not match
    pixels: Mapping[str, Any] = images[series]["Pixels"] if len(images) == len(tiff.series) else {}
    return pixels


def _ome_steps(pixels: Mapping[str, Any]) -> tuple[dict[str, float | None], str | None]:
    steps: Steps = tuple(_number(pixels.get(f"PhysicalSize{letter}")) for letter in "ZYX")
    units = [_ome_unit(pixels, letter) for letter in "ZYX"]
    converted, unit = in_one_unit(steps, units)
    return dict(zip("ZYX", converted, strict=True)), unit


def _ome_unit(pixels: Mapping[str, Any], letter: str) -> str | None:
    # micrometres are the default of the format
    return unit_name(pixels.get(f"PhysicalSize{letter}Unit", "µm")) if f"PhysicalSize{letter}" in pixels else None


def _ome_channels(pixels: Mapping[str, Any]) -> tuple[str, ...]:
    channels = pixels.get("Channel", [])
    names = [channel.get("Name") for channel in (channels if isinstance(channels, list) else [channels])]
    return tuple(map(str, names)) if None not in names else ()


def _imagej_steps(tiff: Any) -> tuple[dict[str, float | None], str | None]:
    metadata = tiff.imagej_metadata or {}
    if str(metadata.get("unit", "")).lower() in ("inch", "inches"):  # dots per inch of a picture, not a voxel size
        return {}, None
    tags = tiff.pages.first.tags
    # ImageJ leaves the distance of slices out where it is 1, and passes over its sign
    distance = _number(metadata.get("spacing", 1.0))
    steps = {
        "Z": None if distance is None else abs(distance),
        "Y": _step(tags, "YResolution"),
        "X": _step(tags, "XResolution"),
    }
    return steps, unit_name(metadata.get("unit"))


def _step(tags: Any, name: str) -> float | None:
    """Distance of neighbours: the tag holds pixels per unit, as a fraction."""
    if name not in tags:
        return None
    pixels, units = tags[name].value
    return units / pixels if pixels and units else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _times(step: float | None, factor: float) -> float | None:
    return None if step is None else step * factor


# --- writing ---


def write_tiff(file: BinaryIO, path: Path, stack: Stack) -> None:
    """Write labels, packed with zlib, with axes and voxel size.

    As ImageJ TIFF where that can hold them (8 and 16 bit, below 4 GB, another name than .ome.tif), since Fiji then
    opens the file with its own reader, by drag and drop and with the voxel size; napari and tifffile know both. As
    OME-TIFF else, a BigTIFF above 4 GB, which Fiji reads with Bio-Formats.
    """
    is_big = needs_bigtiff(stack.shape, stack.dtype)
    as_imagej = not is_big and _imagej_holds(path, stack)
    options = _imagej_options(stack) if as_imagej else _ome_options(stack)
    with tifffile.TiffWriter(file, bigtiff=is_big, imagej=as_imagej, ome=not as_imagej, byteorder="<") as writer:
        writer.write(
            stack.planes(),
            shape=stack.shape,
            dtype=stack.dtype,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 5},
            **options,
        )


def needs_bigtiff(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Whether an array may not fit a TIFF that is no BigTIFF; however well it packs, which shows only once it has."""
    return math.prod(shape) * dtype.itemsize >= _CLASSIC_BYTES


def _imagej_holds(path: Path, stack: Stack) -> bool:
    return (
        stack.dtype.str[1:] in _IMAGEJ_DTYPES
        and (stack.unit is None or stack.unit in _IMAGEJ_UNITS)
        and stack.shape[-1] > 1  # tifffile takes a last axis of size 1 for samples
        and not path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    )


def _imagej_options(stack: Stack) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "ZYX"[-len(stack.shape) :]}
    if stack.spacing is None:
        return {"metadata": metadata}
    if stack.unit:
        metadata["unit"] = _IMAGEJ_UNITS[stack.unit]
    if len(stack.spacing) == 3:
        metadata["spacing"] = stack.spacing[0]
    return {"metadata": metadata, "resolution": (1 / stack.spacing[-1], 1 / stack.spacing[-2])}


def _ome_options(stack: Stack) -> dict[str, Any]:
    return {"metadata": ome_metadata("ZYX"[-len(stack.shape) :], stack.spacing, stack.unit)}


def ome_metadata(axes: str, spacing: Sequence[float] | None, unit: str | None) -> dict[str, Any]:
    """What tifffile is told of an OME-TIFF; `spacing` is along the last axes.

    Raises `InputError` for a unit that OME does not know.
    """
    metadata: dict[str, Any] = {"axes": axes}
    if spacing is None:
        return metadata
    name = "pixel" if unit is None else _OME_UNITS.get(unit)
    if name is None:
        raise InputError(f"the unit {unit!r} is not known to TIFF; use e.g. 'micrometer'")
    for letter, size in zip(axes[-len(spacing) :], spacing, strict=True):
        metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": name}
    return metadata
