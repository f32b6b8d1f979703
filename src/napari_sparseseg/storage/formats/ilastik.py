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
    with h5py.File(path, "r") as project:
        lane = _lane(project, path, options.series)
        blocks = [_block(node, path) for node in lane.values()]
        info = _lane_info(project, options.series)
        axes = next((block.axes for block in blocks if block.axes), None) or _axes_of(info)
        shape = _shape(blocks, _image_shape(axes, info), path)
        names = _label_names(project)
    letters = (axes or _DEFAULT_AXES[len(shape)]).upper()
    return Opened(_Strokes(shape, blocks), letters, "ilastik project", class_names=names)


def _lane(project: Any, path: Path | str, number: int) -> Any:
    sets = project.get(f"{_WORKFLOW}/LabelSets")
    if sets is None:
        raise InputError(
            f"{path} is not a project of ilastik's Pixel Classification; save the labels of it as an image"
        )
    # labels9 comes before labels10
    names = sorted(sets, key=lambda name: int("".join(re.findall(r"\d", name)) or 0))
    if not 0 <= number < len(names):
        raise InputError(f"{path} has no lane {number} of labels; it has {len(names)}, counted from 0")
    return sets[names[number]]


def _block(node: Any, path: Path | str) -> _Block:
    box = tuple(
        slice(int(start), int(stop)) for start, stop in re.findall(r"(\d+):(\d+)", _text(node.attrs["blockSlice"]))
    )
    data = node["data"] if hasattr(node, "keys") else node  # a group where the image was masked
    if tuple(part.stop - part.start for part in box) != data.shape:
        raise InputError(f"{path} has a block of labels whose shape does not match its place; save the project anew")
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
        raise InputError(f"{path} has labels outside its image of shape {tuple(shape)}; save the project anew")
    return shape


def _codes(data: Any, path: Path | str) -> npt.NDArray[np.uint8]:
    values: npt.NDArray[Any] = data[()]
    if values.dtype.kind not in "iuf" or (values.size and not 0 <= values.min() <= values.max() <= 255):
        raise InputError(f"{path} has labels that are no numbers from 0 to 255; save the project anew")
    return values.astype(np.uint8)


def _image_shape(axes: str | None, info: Mapping[str, Any]) -> list[int] | None:
    """Shape of the lane's image along the axes of the labels, which have one channel; None if it is not known."""
    shape, keys = info.get("shape"), _axes_of(info) or axes
    if shape is None or keys is None or len(keys) != len(shape):
        return None
    sizes = dict(zip(keys, (int(size) for size in shape), strict=True)) | {"c": 1}
    return [sizes.get(key, 1) for key in axes or keys]


def _lane_info(project: Any, number: int) -> Mapping[str, Any]:
    infos = project.get("Input Data/infos", {})
    lane = infos.get(f"lane{number:04d}", infos.get(f"info{number:04d}", {}))
    raw = lane.get("Raw Data", lane)
    return {key: raw[key][()] for key in ("shape", "axistags", "axisorder") if key in raw}


def _axes_of(info: Mapping[str, Any]) -> str | None:
    return _keys(info.get("axistags")) or (_text(info["axisorder"]) if "axisorder" in info else None)


def _keys(axistags: Any) -> str | None:
    """Letters of vigra's axis tags, e.g. "zyxc"."""
    if axistags is None:
        return None
    return "".join(axis["key"] for axis in json.loads(_text(axistags))["axes"])


def _label_names(project: Any) -> dict[int, str]:
    names = project.get(f"{_WORKFLOW}/LabelNames")
    # a single list without labels is marked as empty, and holds one meaningless number
    if names is None or names.attrs.get("isEmpty", False):
        return {}
    return {number: _text(name) for number, name in enumerate(names[()], start=1)}


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
