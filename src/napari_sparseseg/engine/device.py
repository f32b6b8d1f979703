"""Which device computes, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from napari_sparseseg.errors import InputError


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A torch device and one sentence that says why it was chosen."""

    device: torch.device
    reason: str


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """`auto` takes cuda, then mps, then cpu; any name of torch's (`cuda:1`) is taken if it is there.

    Raises `InputError` for an unknown name or a device that this machine or this build of torch lacks.
    """
    if wanted == "auto":
        return _best_device()
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError):
        raise InputError(f"device {wanted!r} is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    missing = _why_missing(device)
    if missing:
        raise InputError(f"device {wanted!r} cannot be used: {missing}; use device='auto' or 'cpu'")
    return DeviceChoice(device, f"{wanted} was asked for")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # the CPU and MPS allocators raise a plain RuntimeError
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory")
    )


@contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """bfloat16 where it is faster: on CUDA devices that have it, nowhere else."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        with torch.autocast("cuda", torch.bfloat16):
            yield
    else:
        yield


def _best_device() -> DeviceChoice:
    if torch.cuda.is_available():
        return DeviceChoice(torch.device("cuda"), f"CUDA device {torch.cuda.get_device_name()} found")
    if torch.backends.mps.is_available():
        return DeviceChoice(torch.device("mps"), "Apple GPU (MPS) found")
    build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch has CUDA but sees no GPU"
    return DeviceChoice(torch.device("cpu"), f"no GPU can be used ({build})")


def _why_missing(device: torch.device) -> str:
    if device.type == "cpu":
        return ""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no CUDA GPU"
        count = torch.cuda.device_count()
        return f"there are {count} CUDA GPUs" if (device.index or 0) >= count else ""
    if device.type == "mps":
        return "" if torch.backends.mps.is_available() else "torch sees no Apple GPU"
    return f"{device.type} devices are not supported"
