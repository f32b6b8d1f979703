"""Model files: safetensors weights with a JSON header, a version and a checksum. Never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.errors import InputError, ModelFileError

FORMAT = "napari-sparseseg model"
VERSION = 1
_HEADER_LIMIT = 16 << 20


def save_model(
    path: str | os.PathLike[str],
    model: FittedModel,
    *,
    settings: Mapping[str, Any],
    history: Iterable[TrainingStep] = (),
    trainer: Trainer | None = None,
) -> None:
    """Write one file, whole or not at all; with `trainer`, also what an exact continuation needs.

    `settings` is any JSON of the caller's, given back by `read_header`. Replaces an existing file.
    """
    tensors = dict(model.network.state_dict())
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "classes": asdict(model.classes),
        "spec": {**asdict(model.spec), "config": model.spec.config.model_dump()},
        "context": model.network.context,
        "intensity": [asdict(i) for i in model.intensity],
        "settings": dict(settings),
        "history": [asdict(step) for step in history],
    }
    if trainer is not None:
        header["training"], training_tensors = trainer.state()
        tensors |= training_tensors
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(header)
    _write_whole(Path(path), tensors, {"header": text, "sha256": _checksum(text, tensors)})


def load_model(path: str | os.PathLike[str]) -> tuple[FittedModel, dict[str, Any], dict[str, Tensor]]:
    """Read a model file: the model, its header, and all tensors (those of the training state among them).

    Raises `ModelFileError` if the file is missing, cut short, changed, of another kind or of a newer version.
    """
    header, tensors = _read(Path(path))
    try:
        spec = header["spec"]
        model_spec = ModelSpec(
            ModelConfig.of(spec["config"]), tuple(spec["spacing"]), int(spec["n_channels"]), tuple(spec["flat"])
        )
        classes = ClassTable(tuple(header["classes"]["ids"]), int(header["classes"]["background"]))
        intensity = tuple(IntensityRange(tuple(i["offset"]), tuple(i["scale"])) for i in header["intensity"])
        network = model_spec.build(len(classes))
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
        network.context = float(header["context"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} does not describe a model ({error}); save the model again") from error
    return FittedModel(model_spec, classes, network, intensity), header, tensors


def _write_whole(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    if not path.parent.is_dir():
        raise InputError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(
            f"cannot save to {path}: it is a folder; name a file in it, such as {path / 'model.safetensors'}"
        )
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise ModelFileError(f"there is no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = _checked_header(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a readable model file ({error}); it may be cut short") from error
    if _checksum(metadata["header"], tensors) != metadata.get("sha256"):
        raise ModelFileError(f"{path} was changed after it was saved (its checksum differs); use an intact copy")
    return header, tensors


def _checked_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get("header", "")
    try:
        header = json.loads(text) if len(text) <= _HEADER_LIMIT else None
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(f"{path} is a safetensors file, but not a model of napari-sparseseg")
    if not isinstance(header.get("version"), int):
        raise ModelFileError(f"{path} does not say which format version it has; it was changed after it was saved")
    if header["version"] > VERSION:
        raise ModelFileError(
            f"{path} has format version {header['version']}, this program reads up to {VERSION}; "
            "update napari-sparseseg"
        )
    return header


def _checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
