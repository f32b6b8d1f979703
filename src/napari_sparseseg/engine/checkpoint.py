"""Model files: safetensors weights with a JSON header, a version and a checksum. Never pickle.

A model may come from anywhere, so nothing in it is believed before it is checked, and memory is taken for weights only
at the very end. The order is: sizes of the file's parts, version, bounds of every number that shapes the network, names
and shapes of the tensors that such a network has, checksum, weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, Spacing
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.headstate import HeadState, is_whole, require
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.engine.training_log import TrainingLog
from napari_sparseseg.errors import InputError, ModelFileError

FORMAT = "napari-sparseseg model"
VERSION = 4
_PLAIN_VERSION = 1  # of models of classes only: each can be read by all programs that know what is in it
_OBJECT_VERSION = 2  # of models that tell objects apart, and know nothing else beside their classes
_HEADS_VERSION = 3  # of models with further heads or classes that may overlap, whose voxels count by their size
_HEADER_LIMIT = 16 << 20
_LENGTH_BYTES = 8
_PIECE = 1 << 20
_MAX_STEPS = 2**53
_MAX_CHANNELS = 4096
_MAX_SCALE = 4096.0  # voxels; a filter wider than any volume
_SPACING_LIMITS = (1e-15, 1e15)
_DTYPE = "F32"  # of every tensor that a network or a trainer has
_ITEM_BYTES = 4

_Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model file says of itself, checked, without its weights. `header` is the JSON that was saved.

    `heads` are those beside that of the classes.
    """

    spec: ModelSpec
    classes: ClassTable
    intensity: tuple[IntensityRange, ...]
    context: float
    shift: tuple[float, ...]
    heads: HeadState
    header: Mapping[str, Any]
    n_weights: int

    @property
    def has_training_state(self) -> bool:
        """Whether learning can be continued exactly where it ended."""
        return "training" in self.header


def save_model(
    path: str | os.PathLike[str],
    model: FittedModel,
    *,
    settings: Mapping[str, Any],
    history: Iterable[TrainingStep] = (),
    trainer: Trainer | None = None,
) -> None:
    """Write one file, whole or not at all; with `trainer`, also what an exact continuation needs.

    `settings` is any JSON of the caller's, given back in the header. A long history is thinned out as `TrainingLog`
    does: readers take no file whose header is longer than any model's. Replaces an existing file.
    """
    _write_whole(Path(path), encode_model(model, settings=settings, history=history, trainer=trainer))


def encode_model(
    model: FittedModel,
    *,
    settings: Mapping[str, Any],
    history: Iterable[TrainingStep] = (),
    trainer: Trainer | None = None,
) -> bytes:
    """The content of a model file, for whoever writes it himself; arguments as for `save_model`."""
    tensors = dict(model.network.state_dict())
    header: dict[str, Any] = {
        "format": FORMAT,
        "classes": {"ids": model.classes.ids, "background": model.classes.background},
        "spec": {**asdict(model.spec), "config": model.spec.config.model_dump()},
        "context": model.network.context,
        "shift": model.network.shift.tolist(),
        "intensity": [asdict(i) for i in model.intensity],
        "settings": dict(settings),
        "history": [asdict(step) for step in TrainingLog(history).steps],
    }
    state = HeadState.of(model.network)
    header |= state.to_json()
    header["version"] = _version_for(state.heads, model.classes, model.spec)
    if state.heads.offsets:
        header["classes"]["objects"] = model.classes.objects
    if model.classes.overlapping:
        header["classes"]["overlapping"] = True
    if trainer is not None:
        header["training"], training_tensors = trainer.state()
        tensors |= training_tensors
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(header)
    return save(tensors, {"header": text, "sha256": _checksum(text, tensors)})


def _version_for(heads: Heads, classes: ClassTable, spec: ModelSpec) -> int:
    """The oldest format whose readers know all that there is."""
    if spec.lengths is not None:
        return VERSION
    if classes.overlapping or heads.candidates or heads.novelty != "off":
        return _HEADS_VERSION
    return _OBJECT_VERSION if heads.offsets else _PLAIN_VERSION


def load_model(path: str | os.PathLike[str]) -> tuple[FittedModel, dict[str, Any], dict[str, Tensor]]:
    """Read a model file: the model, its header, and all tensors (those of the training state among them).

    Raises `ModelFileError` if the file is missing, cut short, changed, of another kind or of a newer version, before
    memory is taken for its weights.
    """
    with _opened(Path(path)) as file:
        found, layout = _checked(file, Path(path))
        tensors = {name: layout.read(file, name) for name in layout.shapes}
    network = found.spec.build(len(found.classes), heads=found.heads.heads, overlapping=found.classes.overlapping)
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    network.context = found.context
    network.shift.copy_(torch.tensor(found.shift))
    found.heads.give_to(network)
    return FittedModel(found.spec, found.classes, network, found.intensity), dict(found.header), tensors


def decode_model(content: bytes) -> tuple[FittedModel, dict[str, Any], dict[str, Tensor]]:
    """As `load_model`, from what `encode_model` returned."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        return load_model(path)


def describe_model(path: str | os.PathLike[str]) -> ModelDescription:
    """Check a model file as `load_model` does, checksum included, but read no weights into memory."""
    with _opened(Path(path)) as file:
        return _checked(file, Path(path))[0]


# --- writing ---


def _write_whole(path: Path, content: bytes) -> None:
    if not path.parent.is_dir():
        raise InputError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(
            f"cannot save to {path}: it is a folder; name a file in it, such as {path / 'model.safetensors'}"
        )
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header, then of name, dtype, shape and values of each tensor, by name."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


# --- reading: the file's parts ---


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each tensor lies: its shape, and its first byte in the file."""

    shapes: Mapping[str, _Shape]
    starts: Mapping[str, int]

    def n_bytes(self, name: str) -> int:
        return _ITEM_BYTES * math.prod(self.shapes[name])

    def read(self, file: BinaryIO, name: str) -> Tensor:
        file.seek(self.starts[name])
        shape = self.shapes[name]
        values = np.fromfile(file, "<f4", math.prod(shape)).astype(np.float32, copy=False)
        if values.size < math.prod(shape):
            raise ModelFileError(f"{file.name} has become shorter while it was read; read it again")
        return torch.from_numpy(values.reshape(shape))


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise ModelFileError(f"there is no model file at {path}; check the path")
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error


def _checked(file: BinaryIO, path: Path) -> tuple[ModelDescription, _Layout]:
    """Everything but the weights, in the order that the module's docstring gives."""
    size = os.fstat(file.fileno()).st_size
    table, data_start = _read_table(file, size, path)
    text, sha256 = _model_metadata(table.pop("__metadata__", None), path)
    header = _checked_header(text, path)
    layout = _checked_layout(table, data_start, size, path)
    try:
        found = _checked_description(header, sum(math.prod(shape) for shape in layout.shapes.values()))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{path} does not describe a model ({problem:.400}); save the model again") from error
    _check_tensors(layout.shapes, found, path)
    if _file_checksum(file, text, layout) != sha256:
        raise ModelFileError(f"{path} was changed after it was saved (its checksum differs); use an intact copy")
    return found, layout


def _read_table(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, Any], int]:
    """The JSON at the file's start, which names all tensors, and where it ends."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > min(_HEADER_LIMIT, size - _LENGTH_BYTES):
        raise _unreadable(path, "the length of its header does not fit; it may be cut short")
    raw = file.read(length)
    # safetensors writes no blanks but at the end: with any other, one byte could be changed unnoticed
    if len(raw) < length or not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        raise _unreadable(path, "its header is damaged")
    table = _json(raw)
    if not isinstance(table, dict):
        raise _unreadable(path, "its header is damaged")
    return table, _LENGTH_BYTES + length


def _json(text: str | bytes) -> Any:
    """Parsed JSON, or None for what is none: the callers refuse both alike."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _unreadable(path: Path, problem: str) -> ModelFileError:
    return ModelFileError(f"{path} is not a readable model file: {problem}; use an intact copy")


def _model_metadata(metadata: Any, path: Path) -> tuple[str, str]:
    if (
        not isinstance(metadata, dict)
        or set(metadata) != {"header", "sha256"}
        or not all(isinstance(value, str) for value in metadata.values())
    ):
        raise _other_kind(path)
    return metadata["header"], metadata["sha256"]


def _other_kind(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is a safetensors file, but not a model of napari-sparseseg; use one that was saved here"
    )


def _checked_header(text: str, path: Path) -> dict[str, Any]:
    header = _json(text)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _other_kind(path)
    version = header.get("version")
    if not is_whole(version) or version < 1:
        raise ModelFileError(f"{path} does not say which format version it has; use an intact copy")
    if version > VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, this program reads up to {VERSION}; update napari-sparseseg"
        )
    return header


def _checked_layout(table: Mapping[str, Any], data_start: int, size: int, path: Path) -> _Layout:
    """Tensors lie one behind the other, without gap or overlap, from the header to the file's very end."""
    ends: dict[str, tuple[int, int]] = {}
    shapes: dict[str, _Shape] = {}
    for name, entry in table.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _unreadable(path, f"the entry of its tensor {name!r} is damaged")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2 and entry["dtype"] == _DTYPE):
            raise _unreadable(path, f"the entry of its tensor {name!r} is damaged")
        shapes[name], ends[name] = tuple(shape), (offsets[0], offsets[1])
        if offsets[1] - offsets[0] != _ITEM_BYTES * math.prod(shape):
            raise _unreadable(path, f"its tensor {name!r} has another size than its shape says")
    ordered = sorted(ends.values())
    if any(a[1] != b[0] for a, b in pairwise([(0, 0), *ordered])):
        raise _unreadable(path, "its tensors overlap or leave gaps")
    missing = data_start + (ordered[-1][1] if ordered else 0) - size
    if missing > 0:
        raise _unreadable(path, f"it is cut short by {missing} bytes")
    if missing < 0:
        raise _unreadable(path, f"{-missing} bytes follow after its end")
    return _Layout(shapes, {name: data_start + start for name, (start, _) in ends.items()})


def _file_checksum(file: BinaryIO, header: str, layout: _Layout) -> str:
    """As `_checksum`, piece by piece from the file."""
    digest = hashlib.sha256(header.encode(errors="surrogatepass"))
    for name in sorted(layout.shapes):
        digest.update(f"{name} {torch.float32} {layout.shapes[name]}".encode(errors="surrogatepass"))
        file.seek(layout.starts[name])
        left = layout.n_bytes(name)
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                break  # it shrank meanwhile: the checksum differs
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


# --- reading: what the header says ---


def _checked_description(header: Mapping[str, Any], n_weights: int) -> ModelDescription:
    """Raises one of Python's own errors for what is missing, of another type or out of bounds."""
    spec = _checked_spec(header["spec"])
    classes = _checked_classes(header["classes"])
    intensity = tuple(_checked_intensity(entry, spec.n_channels) for entry in header["intensity"])
    context = float(header["context"])
    require(0 <= context <= 1, "context", context)
    shift = tuple(float(value) for value in header.get("shift", [0.0] * len(classes)))  # older models have none
    require(len(shift) == len(classes) and all(map(math.isfinite, shift)), "shift", shift)
    heads = HeadState.from_json(header, spec.config.width, spec.bank.n_features)
    require(bool(heads.heads.offsets) == bool(classes.objects), "objects", classes.objects)
    for step in header["history"]:
        _check_step(TrainingStep(**step))
    if "training" in header:
        _check_training(header["training"])
    return ModelDescription(spec, classes, intensity, context, shift, heads, header, n_weights)


def _checked_spec(spec: Mapping[str, Any]) -> ModelSpec:
    config = ModelConfig.of(spec["config"])
    require(all(0 < scale <= _MAX_SCALE for scale in config.scales), "scales", config.scales)
    n_channels = spec["n_channels"]
    require(is_whole(n_channels) and 1 <= n_channels <= _MAX_CHANNELS, "n_channels", n_channels)
    low, high = _SPACING_LIMITS
    z, y, x = (float(size) for size in spec["spacing"])
    require(all(low <= size <= high for size in (z, y, x)), "spacing", (z, y, x))
    flat = tuple(spec["flat"])
    require(len(flat) == 3 and all(isinstance(axis, bool) for axis in flat), "flat", flat)
    return ModelSpec(config, (z, y, x), n_channels, (flat[0], flat[1], flat[2]), _checked_lengths(spec.get("lengths")))


def _checked_lengths(lengths: Sequence[float] | None) -> Spacing | None:
    if lengths is None:  # older models have none
        return None
    z, y, x = (float(length) for length in lengths)
    require(all(1 <= length <= _MAX_SCALE for length in (z, y, x)), "lengths", (z, y, x))
    return z, y, x


def _checked_classes(classes: Mapping[str, Any]) -> ClassTable:
    ids, background = tuple(classes["ids"]), classes["background"]
    require(1 <= len(ids) <= MAX_CLASSES, "number of classes", len(ids))
    require(all(is_whole(i) and 1 <= i <= MAX_CODE for i in ids) and list(ids) == sorted(set(ids)), "ids", ids)
    overlapping = classes.get("overlapping", False)
    require(isinstance(overlapping, bool), "overlapping", overlapping)
    require(is_whole(background) and (background in ids or (overlapping and not background)), "background", background)
    objects = tuple(classes.get("objects", ()))
    require(set(objects) <= set(ids) and list(objects) == sorted(set(objects)), "objects", objects)
    return ClassTable(ids, background, objects, overlapping)


def _checked_intensity(entry: Mapping[str, Any], n_channels: int) -> IntensityRange:
    offset, scale = (tuple(float(value) for value in entry[name]) for name in ("offset", "scale"))
    require(len(offset) == n_channels and all(map(math.isfinite, offset)), "offset", offset)
    require(len(scale) == n_channels and all(0 < value < math.inf for value in scale), "scale", scale)
    return IntensityRange(tuple(entry["offset"]), tuple(entry["scale"]))


def _check_step(step: TrainingStep) -> None:
    require(is_whole(step.step) and 0 <= step.step < _MAX_STEPS, "step", step.step)
    require(isinstance(step.phase, str), "phase", step.phase)
    numbers = (step.loss, step.seconds, 0.0 if step.dice is None else step.dice)
    require(all(isinstance(value, float) or is_whole(value) for value in numbers), "a step of the history", numbers)


def _check_training(training: Mapping[str, Any]) -> None:
    for name in ("step", "round", "seed", "optimiser_steps"):
        require(is_whole(training[name]) and training[name] >= 0, name, training[name])
    n_unguided = training.get("n_unguided", 0)
    require(is_whole(n_unguided) and n_unguided >= 0, "n_unguided", n_unguided)
    require(isinstance(training.get("is_started", False), bool), "is_started", training.get("is_started"))
    np.random.default_rng(0).bit_generator.state = training["random"]


def _check_tensors(shapes: Mapping[str, _Shape], found: ModelDescription, path: Path) -> None:
    """The tensors are those that such a network has, no more and no fewer. Takes no memory for them."""
    with torch.device("meta"):
        network = found.spec.build(len(found.classes), heads=found.heads.heads)
    wanted = _network_shapes(network) | (_training_shapes(network) if found.has_training_state else {})
    wrong = sorted(name for name in {*wanted, *shapes} if wanted.get(name) != shapes.get(name))
    if wrong:
        name = wrong[0]
        raise ModelFileError(
            f"{path} does not describe a model (tensor {name!r:.100} has shape {shapes.get(name, 'none')}, but "
            f"{wanted.get(name, 'none')} is needed); save the model again"
        )


def _network_shapes(network: SparseNet) -> dict[str, _Shape]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _training_shapes(network: SparseNet) -> dict[str, _Shape]:
    """Names and shapes of the tensors in `Trainer.state`."""
    shapes = {f"latest.{name}": tuple(value.shape) for name, value in network.unet.state_dict().items()}
    for number, value in enumerate(network.unet.parameters()):
        shapes |= {f"optimiser.{kind}.{number}": tuple(value.shape) for kind in ("means", "squares")}
    return shapes


def _are_sizes(values: Any) -> bool:
    """Whether these are whole numbers that a file could count."""
    return isinstance(values, list) and all(is_whole(v) and 0 <= v < 2**48 for v in values) and len(values) < 16
