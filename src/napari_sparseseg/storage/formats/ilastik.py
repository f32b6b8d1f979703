"""Strokes that were painted in ilastik: the label blocks of a pixel classification project."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._errors import optional
from napari_sparseseg.storage.formats._image import Opened, ReadOptions

_WORKFLOW = "PixelClassification"
_LARGEST_BLOCK = 2**31
_GZIP_RATIO = 1032  # ilastik packs with gzip, no byte of which stands for more
_SMALL = 1 << 16
_DEFAULT_AXES = {5: "tzyxc", 4: "zyxc", 3: "zyx", 2: "yx"}  # only projects of the oldest versions do not say


class _Block(NamedTuple):
    box: tuple[slice, ...]
    codes: npt.NDArray[np.uint8]
    axes: str | None


class _Strokes:
    """Labels as large as their image, of which only the painted blocks are kept; what is sliced is put together."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: Sequence[int], blocks: Sequence[_Block]) -> None:
        self.shape, self._blocks = tuple(shape), blocks
        corners = [[(part.start, part.stop) for part in block.box] for block in blocks]
        self._corners = np.array(corners, np.int64).reshape(len(blocks), len(self.shape), 2)

    def __getitem__(self, index: tuple[int | slice, ...]) -> npt.NDArray[np.uint8]:
        box = [part if isinstance(part, slice) else slice(part, part + 1) for part in index]
        labels = np.zeros([part.stop - part.start for part in box], np.uint8)
        starts, stops = np.array([part.start for part in box]), np.array([part.stop for part in box])
        is_hit = (np.maximum(self._corners[..., 0], starts) < np.minimum(self._corners[..., 1], stops)).all(axis=1)
        for number in np.flatnonzero(is_hit):
            _paste(self._blocks[int(number)], box, labels)
        picked = tuple(slice(None, None, part.step) if isinstance(part, slice) else 0 for part in index)
        return np.asarray(labels[picked])


def _paste(block: _Block, box: Sequence[slice], labels: npt.NDArray[np.uint8]) -> None:
    """Copy what a block and a box have in common into the box' labels."""
    pairs = list(zip(block.box, box, strict=True))
    common = [(max(part.start, other.start), min(part.stop, other.stop)) for part, other in pairs]
    source = tuple(slice(a - part.start, b - part.start) for (a, b), (part, _) in zip(common, pairs, strict=True))
    target = tuple(slice(a - other.start, b - other.start) for (a, b), (_, other) in zip(common, pairs, strict=True))
    labels[target] = block.codes[source]


def refuse_image(path: Path | str, _options: ReadOptions) -> Opened:
    """Say that a project is no image."""
    raise InputError(f"{path} is an ilastik project, which holds painted labels and no image; use it as the annotation")


def open_ilastik(path: Path | str, options: ReadOptions) -> Opened:
    """Painted labels of the lane `options.series`, uint8, as large as the lane's image.

    Only the painted blocks are held in memory. In projects of early versions, which do not hold the shape of the
    image, the array ends where the paint ends.

    Raises `InputError` for a project of another kind, a lane that does not exist, and blocks that do not fit.
    """
    h5py = optional("h5py", path, "ilastik")
    with h5py.File(path, "r") as file:
        project = _Node(file, path)
        lane = _lane(project, path, options.series)
        blocks = [_block(lane.child(name), path) for name in lane.names]
        info = _lane_info(project, options.series)
        axes = next((block.axes for block in blocks if block.axes), None) or _axes_of(info)
        shape = _shape(blocks, _image_shape(axes, info), path)
        names = _label_names(project)
    letters = (axes or _DEFAULT_AXES[len(shape)]).upper()
    return Opened(_Strokes(shape, blocks), letters, "ilastik project", class_names=names)


class _Node:
    """A group, or a dataset, of which nothing lies outside the file.

    HDF5 has links to other files and datasets whose values lie elsewhere, which h5py would open without a word.
    """

    def __init__(self, inner: Any, path: Path | str) -> None:
        self._inner, self._path = inner, path
        self.attrs: Any = inner.attrs
        self.names: list[str] = sorted(inner) if hasattr(inner, "keys") else []

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def child(self, name: str) -> _Node:
        """The node of that name; raises KeyError if there is none."""
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def find(self, place: str) -> _Node | None:
        """The node below this one, None if there is none; raises `InputError` for links."""
        inner = self._inner
        for name in place.split("/"):
            link = inner.get(name, getlink=True) if hasattr(inner, "keys") else None
            if link is None:
                return None
            # what ilastik writes has plain ("hard") links only
            if hasattr(link, "path"):
                raise InputError(
                    f"{self._path} holds a link ({name!r:.40} to {link.path!r:.80}); save the project again"
                )
            inner = inner[name]
        return _Node(inner, self._path)

    def read(self) -> Any:
        """All values; raises `InputError` before memory is taken for more than the file holds."""
        data = self._inner
        if data.external or data.is_virtual:
            raise InputError(f"{self._path} has values that lie in other files; save the project again")
        if data.nbytes > _LARGEST_BLOCK or data.nbytes > _GZIP_RATIO * data.id.get_storage_size() + _SMALL:
            raise InputError(f"{self._path} claims more labels than it holds ({data.nbytes} bytes); save it again")
        return data[()]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._inner.shape)


def _lane(project: _Node, path: Path | str, number: int) -> _Node:
    sets = project.find(f"{_WORKFLOW}/LabelSets")
    if sets is None:
        raise InputError(
            f"{path} is not a project of ilastik's Pixel Classification; save the labels of it as an image"
        )
    # labels9 comes before labels10
    names = sorted(sets.names, key=lambda name: int("".join(re.findall(r"\d", name)) or 0))
    if not 0 <= number < len(names):
        raise InputError(f"{path} has no lane {number} of labels; it has {len(names)}, counted from 0")
    return sets.child(names[number])


def _block(node: _Node, path: Path | str) -> _Block:
    box = tuple(
        slice(int(start), int(stop)) for start, stop in re.findall(r"(\d+):(\d+)", _text(node.attrs["blockSlice"]))
    )
    data = node.find("data") or node  # a group where the image was masked
    if tuple(part.stop - part.start for part in box) != data.shape:
        raise InputError(f"{path} has a block of labels whose shape does not match its place; save the project again")
    return _Block(box, _codes(data, path), _keys(node.attrs.get("axistags")))


def _shape(blocks: Sequence[_Block], image_shape: Sequence[int] | None, path: Path | str) -> Sequence[int]:
    """Shape of the image or, if that is not known, of what the blocks cover."""
    if not blocks:
        if image_shape is None:
            raise InputError(f"{path} holds no painted labels; paint some in ilastik, and save the project")
        return image_shape
    stops = [max(stops) for stops in zip(*((part.stop for part in block.box) for block in blocks), strict=True)]
    shape = stops if image_shape is None else image_shape
    if len(shape) != len(stops) or any(stop > size for stop, size in zip(stops, shape, strict=True)):
        raise InputError(f"{path} has labels outside its image of shape {tuple(shape)}; save the project again")
    return shape


def _codes(data: _Node, path: Path | str) -> npt.NDArray[np.uint8]:
    values: npt.NDArray[Any] = data.read()
    if values.dtype.kind not in "iuf" or (values.size and not 0 <= values.min() <= values.max() <= 255):
        raise InputError(f"{path} has labels that are no numbers from 0 to 255; save the project again")
    return values.astype(np.uint8)


def _image_shape(axes: str | None, info: Mapping[str, Any]) -> list[int] | None:
    """Shape of the lane's image along the axes of the labels, which have one channel; None if it is not known."""
    shape, keys = info.get("shape"), _axes_of(info) or axes
    if shape is None or keys is None or len(keys) != len(shape):
        return None
    sizes = dict(zip(keys, (int(size) for size in shape), strict=True)) | {"c": 1}
    return [sizes.get(key, 1) for key in axes or keys]


def _lane_info(project: _Node, number: int) -> Mapping[str, Any]:
    lane = project.find(f"Input Data/infos/lane{number:04d}") or project.find(f"Input Data/infos/info{number:04d}")
    if lane is None:
        return {}
    raw = lane.find("Raw Data") or lane
    return {key: raw.child(key).read() for key in ("shape", "axistags", "axisorder") if key in raw}


def _axes_of(info: Mapping[str, Any]) -> str | None:
    return _keys(info.get("axistags")) or (_text(info["axisorder"]) if "axisorder" in info else None)


def _keys(axistags: Any) -> str | None:
    """Letters of vigra's axis tags, e.g. "zyxc"."""
    if axistags is None:
        return None
    return "".join(axis["key"] for axis in json.loads(_text(axistags))["axes"])


def _label_names(project: _Node) -> dict[int, str]:
    names = project.find(f"{_WORKFLOW}/LabelNames")
    # a single list without labels is marked as empty, and holds one meaningless number
    if names is None or names.attrs.get("isEmpty", False):
        return {}
    return {number: _text(name) for number, name in enumerate(names.read(), start=1)}


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
