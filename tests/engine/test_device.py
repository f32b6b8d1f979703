"""Which device computes, and why."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_sparseseg.engine.device import choose_device, is_out_of_memory, mixed_precision, report_devices
from napari_sparseseg.errors import InputError


@pytest.fixture
def machine(monkeypatch):
    """``machine(cuda=2, mps=False)``: make torch believe in these devices."""

    def pretend(
        cuda=0, mps=False, build="13.0", bfloat16=True, hip=None, metal=False, system="Linux", cpu="x86_64", driver=True
    ):
        module = "napari_sparseseg.engine.device"
        monkeypatch.setattr(f"{module}.platform.system", lambda: system)
        monkeypatch.setattr(f"{module}.platform.machine", lambda: cpu)
        monkeypatch.setattr(f"{module}.shutil.which", lambda name: f"/usr/bin/{name}" if driver else None)
        monkeypatch.setattr(f"{module}.Path.exists", lambda _: driver)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: metal)
        properties = SimpleNamespace(name="Some GPU 9000", total_memory=24 << 30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU 9000")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: bfloat16)
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("devices", "chosen", "reason"),
    [
        ({"cuda": 1, "mps": True}, "cuda", "Some GPU 9000"),
        ({"mps": True}, "mps", "Apple GPU"),
        ({"build": None}, "cpu", "this build of torch has no CUDA"),
        ({}, "cpu", "torch has CUDA but sees no GPU"),
    ],
)
def test_auto_takes_the_best_and_says_why(machine, devices, chosen, reason):
    machine(**devices)
    choice = choose_device()
    assert choice.device.type == chosen
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("wanted", "devices"), [("cpu", {}), ("cuda", {"cuda": 1}), ("cuda:1", {"cuda": 2}), ("mps", {"mps": True})]
)
def test_what_was_asked_for_is_taken(machine, wanted, devices):
    machine(**devices)
    choice = choose_device(wanted)
    assert choice.device == torch.device(wanted)
    assert choice.reason == f"{wanted} was asked for"


@pytest.mark.parametrize(
    ("wanted", "devices", "reason"),
    [
        ("cuda", {}, "torch sees no CUDA GPU"),
        ("cuda:1", {"cuda": 1}, "there are 1 CUDA GPUs"),
        ("mps", {}, "torch sees no Apple GPU"),
        ("meta", {}, "meta devices are not supported"),
    ],
)
def test_a_device_that_is_missing_is_refused_with_the_reason(machine, wanted, devices, reason):
    machine(**devices)
    with pytest.raises(InputError) as caught:
        choose_device(wanted)
    assert repr(wanted) in str(caught.value)
    assert reason in str(caught.value)
    assert "'auto'" in str(caught.value)


@pytest.mark.parametrize("wanted", ["gpu", "CUDA", "cuda:x", "", "cuda:-1", None, 1.5, "auto "])
def test_an_unknown_name_is_refused(machine, wanted):
    machine(cuda=1, mps=True)
    with pytest.raises(InputError, match="use 'auto', 'cpu', 'cuda'") as caught:
        choose_device(wanted)
    assert repr(wanted) in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        np.exceptions.__dict__.get("_ArrayMemoryError", MemoryError)(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    ],
)
def test_lack_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_are_not_taken_for_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_numpy_says_that_memory_ran_out():
    with pytest.raises(MemoryError) as caught:
        np.empty((1 << 60,), np.uint8)
    assert is_out_of_memory(caught.value)


def test_torch_says_that_memory_ran_out():
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_the_cpu_computes_in_full_precision():
    with mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(("bfloat16", "wanted"), [(True, ["cuda"]), (False, [])])
def test_gpus_that_have_bfloat16_use_it(machine, monkeypatch, bfloat16, wanted):
    machine(cuda=1, bfloat16=bfloat16)
    entered = []

    class Autocast:
        def __init__(self, kind, dtype):
            assert dtype == torch.bfloat16
            entered.append(kind)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(torch, "autocast", Autocast)
    with mixed_precision(torch.device("cuda")):
        pass
    assert entered == wanted


class TestReport:
    def test_all_that_can_be_used_is_listed_and_the_best_is_chosen(self, machine):
        machine(cuda=2)
        report = report_devices()
        assert [name for name, _ in report.devices] == ["cuda:0", "cuda:1", "cpu"]
        assert report.devices[0][1] == "Some GPU 9000, 24 GB"
        assert (report.choice.device.type, report.build, report.advice) == ("cuda", "CUDA 13.0", "")

    def test_each_name_can_be_chosen(self, machine):
        machine(cuda=1, mps=True)
        for name, _ in report_devices().devices:
            assert choose_device(name).device == torch.device(name)

    @pytest.mark.parametrize(
        ("found", "build", "advice"),
        [
            ({"build": None}, "CPU only", "https://pytorch.org/get-started/locally"),
            ({"build": None}, "CPU only", "conda install -c conda-forge pytorch-gpu"),
            ({"build": None, "system": "Windows"}, "CPU only", "pip installs by itself on Windows"),
            ({"driver": False}, "CUDA 13.0", "No NVIDIA driver was found"),
            ({"driver": True}, "CUDA 13.0", "must support CUDA 13.0"),
            ({"build": None, "hip": "6.4"}, "ROCm 6.4", "rocminfo"),
            ({"build": None, "system": "Darwin"}, "CPU only", "Apple silicon only"),
            ({"build": None, "system": "Darwin", "cpu": "arm64"}, "CPU only", "has no Metal"),
            ({"build": None, "system": "Darwin", "cpu": "arm64", "metal": True}, "Metal (MPS)", "update macOS"),
        ],
    )
    def test_without_a_gpu_it_says_what_to_do(self, machine, monkeypatch, found, build, advice):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        machine(**found)
        report = report_devices()
        assert [name for name, _ in report.devices] == ["cpu"]
        assert report.build == build
        assert advice in report.advice

    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_gpus_that_are_hidden_are_named(self, machine, monkeypatch, hidden):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        machine()
        assert "unset it" in report_devices().advice

    def test_what_torch_warns_of_is_the_reason(self, machine, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        machine()

        def too_old():
            warnings.warn("the driver is\ntoo old (found 11040)", UserWarning, stacklevel=1)
            return False

        monkeypatch.setattr(torch.cuda, "is_available", too_old)
        assert "torch says: the driver is too old (found 11040)" in report_devices().advice
