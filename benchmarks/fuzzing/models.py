"""Model files, with and without the state of training."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.mutators import Rng, bytes_of_some_file, mutate_bytes, odd_json, pick, text_of_some_file
from fuzzing.target import Target
from napari_sparseseg import SparseSegmenter
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.errors import InputError

_LENGTH = struct.Struct("<Q")
_CONFIG = ModelConfig(scales=(1.0, 2.0), width=4, depth=2, head_width=4)
_TRAINING = TrainingConfig(warm_start_steps=2, patch_voxels=512, batch_size=1)


def make_models(folder: Path) -> Sequence[Path]:
    """A tiny fitted model: as it is sent to others, and as it is kept to go on with."""
    image, annotation = _scene()
    segmenter = SparseSegmenter(random_state=0, model=_CONFIG, training=_TRAINING, device="cpu", progress=False)
    segmenter.fit(image, annotation, max_steps=2)
    segmenter.save(folder / "plain.safetensors")
    segmenter.save(folder / "training.safetensors", training_state=True)
    return sorted(folder.iterdir())


def use_model(path: Path) -> None:
    """Load, predict a tiny image, and go on learning."""
    segmenter = SparseSegmenter.load(path, device="cpu", progress=False)
    image, annotation = _scene()
    repr(segmenter)
    # settings may be valid and not fit this image, of which the message tells then
    with suppress(InputError):
        segmenter.predict_proba(image)
        if path.name.startswith("training"):
            segmenter.partial_fit(image, annotation, max_steps=segmenter.n_steps_ + 1)


def _scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 255, (4, 12, 12)).astype(np.uint8)
    annotation = np.zeros_like(image)
    annotation[1] = 1 + (image[1] > 120)
    return image, annotation


# --- somebody who knows the format ---


def mutate_header(path: Path, rng: Rng) -> None:
    """Change what the header says of the model, or the weights, and compute the checksum anew."""
    table, data = _parts(path.read_bytes())
    if not isinstance(table.get("__metadata__"), dict) or "header" not in table["__metadata__"]:
        return bytes_of_some_file(path, rng)
    if rng.random() < 0.8:
        header = json.loads(table["__metadata__"]["header"])
        part = pick(rng, ([], ["spec"], ["spec", "config"], ["settings"], ["settings", "training"], ["training"]))
        text = _changed(header, part, rng)
        table["__metadata__"]["header"] = text
    else:
        weights = np.frombuffer(data, "<f4").copy()
        weights[int(rng.integers(weights.size))] = pick(rng, (float("nan"), float("inf"), -1e38, 0.0))
        data = weights.tobytes()
    _write(path, table, data)
    return None


def mutate_table(path: Path, rng: Rng) -> None:
    """Change what the file says of its tensors."""
    table, data = _parts(path.read_bytes())
    raw = odd_json(table, rng)
    path.write_bytes(_LENGTH.pack(len(raw)) + raw + (data if rng.random() < 0.8 else mutate_bytes(data, rng)))


def _changed(header: dict[str, Any], names: Sequence[str], rng: Rng) -> str:
    """The header's text with a mutated part; mutated as a whole if it lacks that part."""
    if not names or names[0] not in header:
        return odd_json(header, rng).decode()
    *outer, last = names
    holder = header
    for name in outer:
        holder = holder[name]
    text = odd_json(holder[last], rng).decode()
    holder[last] = "HERE"
    return json.dumps(header).replace('"HERE"', text)


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    try:
        table = json.loads(content[_LENGTH.size : end])
    except (ValueError, RecursionError):
        return {}, b""
    return (table, content[end:]) if isinstance(table, dict) else ({}, b"")


def _write(path: Path, table: dict[str, Any], data: bytes) -> None:
    digest = hashlib.sha256(table["__metadata__"]["header"].encode())
    for name in sorted(set(table) - {"__metadata__"}):
        start, end = table[name]["data_offsets"]
        digest.update(f"{name} torch.float32 {tuple(table[name]['shape'])}".encode())
        digest.update(data[start:end])
    table["__metadata__"]["sha256"] = digest.hexdigest()
    raw = json.dumps(table, separators=(",", ":")).encode()
    path.write_bytes(_LENGTH.pack(len(raw)) + raw + data)


TARGETS = (
    Target(
        "model",
        make_models,
        (bytes_of_some_file, text_of_some_file, mutate_table, mutate_header, mutate_header, mutate_header),
        use_model,
    ),
)
