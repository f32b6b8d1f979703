"""Which device computes, and why; and where a GPU was expected, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What torch is and sees on this machine. `devices` are names that `choose_device` takes, each with a description.

    `advice` says what to do if a GPU was expected; empty where one is used.
    """

    torch_version: str
    build: str
    devices: tuple[tuple[str, str], ...]
    choice: DeviceChoice
    advice: str


def report_devices() -> DeviceReport:
    """Look for devices, and say why those that are missing may be missing."""
    with warnings.catch_warnings(record=True) as caught:  # torch warns where a driver is too old: that is the reason
        warnings.simplefilter("always")
        choice = _best_device()
        devices = tuple(_list_devices())
    trouble = " ".join(" ".join(str(warning.message).split()) for warning in caught)
    advice = "" if choice.device.type != "cpu" else _advice(platform.system(), platform.machine(), trouble)
    return DeviceReport(torch.__version__, _build(), devices, choice, advice)


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
    build = f"torch has {_gpu_library()} but sees no GPU" if _gpu_library() else "this build of torch has no CUDA"
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


def _gpu_library() -> str:
    """What this build of torch drives GPUs of NVIDIA or AMD with; empty for a build without."""
    if torch.version.cuda is not None:
        return "CUDA"
    return "ROCm" if torch.version.hip is not None else ""


def _build() -> str:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return "Metal (MPS)" if torch.backends.mps.is_built() else "CPU only"


def _list_devices() -> Iterator[tuple[str, str]]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU, which shares the machine's memory"
    yield "cpu", f"{os.cpu_count() or 1} cores, of which torch uses {torch.get_num_threads()}"


def _advice(system: str, machine: str, trouble: str) -> str:
    if system == "Darwin":
        return _advice_for_a_mac(machine)
    if not _gpu_library():
        return _advice_for_a_build_without_gpus(system)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is set to '{hidden}', which hides all GPUs: unset it."
    if torch.version.hip is not None:
        return "Check with rocminfo that AMD's driver sees the GPU, and that you belong to the groups render and video."
    if not _has_nvidia_driver():
        return (
            "No NVIDIA driver was found: install or repair it (nvidia-smi must list the GPU), then restart the machine."
        )
    reason = f" torch says: {trouble}" if trouble else ""
    return (
        f"An NVIDIA driver is there, but torch {torch.__version__} sees no GPU through it: update the driver, which "
        f"must support CUDA {torch.version.cuda} (nvidia-smi shows up to which it does), or install a build for an "
        f"older CUDA from https://pytorch.org/get-started/locally.{reason}"
    )


def _advice_for_a_mac(machine: str) -> str:
    if machine != "arm64":
        return (
            "torch uses GPUs of Macs with Apple silicon only; if this is one, this Python was built for Intel: install "
            "one for arm64, for example from https://conda-forge.org/download."
        )
    if not torch.backends.mps.is_built():
        return "This build of torch has no Metal (MPS): install it anew with 'pip install --force-reinstall torch'."
    return "This build of torch has Metal (MPS), but not for this version of macOS: update macOS."


def _advice_for_a_build_without_gpus(system: str) -> str:
    source = ", which is what pip installs by itself on Windows" if system == "Windows" else ""
    return (
        f"This torch is a build for CPUs only{source}: install one with CUDA, by the command that "
        "https://pytorch.org/get-started/locally shows for your system, or with conda by "
        "'conda install -c conda-forge pytorch-gpu'."
    )


def _has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
