"""Model files: whole or not at all, and read only if they can be trusted."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from synthetic import QUICK, SMALL, make_blobs, make_trainer, paint_planes, standardise

from napari_sparseseg.engine import checkpoint as module
from napari_sparseseg.engine.checkpoint import describe_model, load_model, save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import InputError, ModelFileError

SPEC = ModelSpec(SMALL.with_changes(head_width=10), (2.0, 0.5, 0.25), 2, (False, False, False))
N_FEATURES = SPEC.bank.n_features
HISTORY = [
    TrainingStep(0, "pixel", 0.7),
    TrainingStep(1, "unet", 0.5, 0.9, 1.25),
    TrainingStep(2, "unet", float("nan")),
]


@pytest.fixture
def model():
    network = SPEC.build(3, seed=1)
    standardise(network, torch.rand(10, N_FEATURES))
    network.context = 0.3
    network.shift.copy_(torch.tensor([0.5, -0.25, 0.0]))
    return FittedModel(SPEC, ClassTable((3, 7, 200), 7), network, (IntensityRange((1.0, 1e30), (2.0, 0.1)),))


@pytest.fixture
def path(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_model(path, model, settings={"note": "µ", "n": 3}, history=HISTORY)
    return path


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """The bytes of a model file, and a folder for damaged copies."""
    folder = tmp_path_factory.mktemp("damaged")
    network = SPEC.build(3, seed=1)
    model = FittedModel(SPEC, ClassTable((3, 7, 200), 7), network, (IntensityRange((1.0, 1e30), (2.0, 0.1)),))
    save_model(folder / "intact", model, settings={"note": "µ"}, history=HISTORY)
    return (folder / "intact").read_bytes(), folder


def assert_refused(folder, content):
    """Neither reading nor describing takes this file, and neither fails in another way."""
    (folder / "changed").write_bytes(content)
    for read in (load_model, describe_model):
        with pytest.raises(ModelFileError):
            read(folder / "changed")


def with_table(content, change, data=None):
    """The file with another JSON at its start, and maybe other data behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:end])
    change(table)
    raw = json.dumps(table, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw)) + raw + (content[end:] if data is None else data)


def header_of(path):
    """The JSON that safetensors puts first, and where it ends."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return content, end


class TestRoundTrip:
    def test_every_bit_comes_back(self, path, model):
        found, header, _ = load_model(path)
        assert (found.spec, found.classes, found.intensity) == (model.spec, model.classes, model.intensity)
        assert found.network.context == 0.3
        assert found.network.shift.tolist() == [0.5, -0.25, 0.0]
        assert header["settings"] == {"note": "µ", "n": 3}
        assert [step["step"] for step in header["history"]] == [0, 1, 2]
        for name, value in model.network.state_dict().items():
            assert torch.equal(found.network.state_dict()[name], value)

    def test_the_loaded_network_predicts_the_same_bits(self, path, model):
        features = torch.rand(4, 8, 8, N_FEATURES)
        with torch.no_grad():
            assert torch.equal(load_model(path)[0].network(features), model.network(features))

    def test_loading_leaves_torch_s_random_state(self, path):
        before = torch.get_rng_state()
        load_model(path)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_training_of_any_length_can_be_loaded(self, tmp_path, model):
        steps = [TrainingStep(number, "unet", 1 / 3, 2 / 3, number / 7) for number in range(150_000)]
        save_model(tmp_path / "long", model, settings={}, history=steps)
        history = [TrainingStep(**step) for step in load_model(tmp_path / "long")[1]["history"]]
        assert (history[0], history[-1]) == (steps[0], steps[-1])
        assert history == [steps[step.step] for step in history]
        assert 1000 <= len(history) <= 2000

    def test_an_older_file_is_replaced(self, path, model):
        model.network.context = 0.8
        save_model(path, model, settings={})
        assert load_model(path)[0].network.context == 0.8

    def test_a_model_from_before_there_was_a_shift_has_none(self, path):
        rewrite(path, lambda header, _: header.pop("shift"))
        assert load_model(path)[0].network.shift.tolist() == [0.0, 0.0, 0.0]

    def test_paths_may_be_text(self, tmp_path, model):
        save_model(str(tmp_path / "a"), model, settings={})
        assert load_model(str(tmp_path / "a"))[0].classes == model.classes

    def test_the_training_state_comes_back(self, tmp_path):
        image, truth = make_blobs((6, 16, 16))
        trainer = make_trainer(image, paint_planes(truth, (0, 2)), QUICK)
        next(step for step in trainer.steps() if step.step == 2)
        model = FittedModel(ModelSpec(SMALL, (1.0,) * 3, 1, (False,) * 3), trainer.classes, trainer.averaged)
        save_model(tmp_path / "model", model, settings={}, trainer=trainer)
        _, header, tensors = load_model(tmp_path / "model")
        plain, wanted = trainer.state()
        assert header["training"] == json.loads(json.dumps(plain))
        assert all(torch.equal(tensors[name], value) for name, value in wanted.items())
        assert describe_model(tmp_path / "model").has_training_state

    def test_it_is_a_plain_safetensors_file(self, path):
        assert "mean" in load_file(path)

    def test_the_description_says_the_same_without_the_weights(self, path, model):
        found = describe_model(path)
        assert (found.spec, found.classes, found.intensity) == (model.spec, model.classes, model.intensity)
        assert found.context == 0.3
        assert found.header["settings"] == {"note": "µ", "n": 3}
        assert found.n_weights == sum(value.numel() for value in model.network.state_dict().values())
        assert not found.has_training_state


class TestDamage:
    def test_a_file_cut_short_is_refused(self, path, tmp_path):
        content = path.read_bytes()
        broken = tmp_path / "broken"
        for length in (0, 1, 7, 8, 9, 100, *np.linspace(101, len(content) - 1, 40).astype(int)):
            broken.write_bytes(content[:length])
            with pytest.raises(ModelFileError):
                load_model(broken)

    def test_a_file_with_something_behind_is_refused(self, path):
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(ModelFileError):
            load_model(path)

    @pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF])
    def test_a_flipped_byte_anywhere_is_refused(self, path, tmp_path, flip):
        content, end = header_of(path)
        generator = np.random.default_rng(0)
        positions = [*range(8), *generator.integers(8, end, 150), *generator.integers(end, len(content), 30)]
        broken = tmp_path / "broken"
        for position in map(int, positions):
            changed = bytearray(content)
            changed[position] ^= flip
            broken.write_bytes(changed)
            try:
                load_model(broken)
            except ModelFileError:
                continue
            except Exception as error:  # noqa: BLE001 - any other is what this test looks for
                pytest.fail(f"byte {position} ^ {flip:#x} ({content[position - 9 : position + 9]!r}): {error!r}")
            pytest.fail(f"byte {position} ^ {flip:#x} ({content[position - 9 : position + 9]!r}) was not noticed")

    @settings(max_examples=400, deadline=None)
    @given(data=st.data())
    def test_one_changed_byte_anywhere_is_refused(self, intact, data):
        content, folder = intact
        position = data.draw(st.integers(0, len(content) - 1))
        changed = bytearray(content)
        changed[position] ^= data.draw(st.integers(1, 255))
        assert_refused(folder, bytes(changed))

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_a_missing_end_is_refused_wherever_it_begins(self, intact, data):
        content, folder = intact
        assert_refused(folder, content[: data.draw(st.integers(0, len(content) - 1))])

    def test_a_cut_file_says_how_much_is_missing(self, path):
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ModelFileError, match="cut short by 10 bytes"):
            load_model(path)

    def test_weights_that_are_read_as_another_type_are_refused(self, path):
        content, end = header_of(path)
        header = content[8:end]
        assert b'"dtype":"F32"' in header
        path.write_bytes(content[:8] + header.replace(b'"dtype":"F32"', b'"dtype":"I32"') + content[end:])
        with pytest.raises(ModelFileError):
            load_model(path)

    def test_weights_that_are_read_in_another_shape_are_refused(self, path):
        content, end = header_of(path)
        shape, turned = (
            f'"shape":[{a},{b}]'.encode()
            for a, b in ((SPEC.config.head_width, N_FEATURES), (N_FEATURES, SPEC.config.head_width))
        )
        assert shape in content[8:end]
        path.write_bytes(content[:8] + content[8:end].replace(shape, turned) + content[end:])
        with pytest.raises(ModelFileError):
            load_model(path)

    def test_random_bytes_are_refused(self, path):
        path.write_bytes(np.random.default_rng(0).bytes(10_000))
        with pytest.raises(ModelFileError, match="not a readable model file"):
            load_model(path)


def rewrite(path, change):
    """Save a file whose header was changed by somebody who can compute checksums."""
    _, header, tensors = load_model(path)
    change(header, tensors)
    text = json.dumps(header)
    save_file(tensors, path, {"header": text, "sha256": module._checksum(text, tensors)})


class TestOtherFiles:
    def test_lengths_that_were_measured_are_kept_and_need_the_newest_version(self, path, model):
        measured = replace(model, spec=replace(model.spec, lengths=(4.5, 2.0, 1.0)))
        save_model(path, measured, settings={})
        found, header, _ = load_model(path)
        assert found.spec == measured.spec
        assert header["version"] == module.VERSION

    def test_older_models_have_none(self, path):
        rewrite(path, lambda header, _: header["spec"].pop("lengths"))
        assert load_model(path)[0].spec == SPEC

    def test_a_newer_version_says_what_to_do(self, path):
        rewrite(path, lambda header, _: header.update(version=module.VERSION + 1))
        with pytest.raises(ModelFileError, match="update napari-sparseseg") as caught:
            load_model(path)
        assert f"version {module.VERSION + 1}" in str(caught.value)

    @pytest.mark.parametrize("version", ["1", None, [1]])
    def test_a_version_that_is_no_number_is_refused(self, path, version):
        rewrite(path, lambda header, _: header.update(version=version))
        with pytest.raises(ModelFileError):
            load_model(path)

    def test_a_header_without_version_is_refused(self, path):
        rewrite(path, lambda header, _: header.pop("version"))
        with pytest.raises(ModelFileError):
            load_model(path)

    @pytest.mark.parametrize("key", ["spec", "classes", "intensity", "context"])
    def test_a_header_with_something_missing_is_refused(self, path, key):
        rewrite(path, lambda header, _: header.pop(key))
        with pytest.raises(ModelFileError, match="does not describe a model"):
            load_model(path)

    def test_missing_weights_are_refused(self, path):
        rewrite(path, lambda _, tensors: tensors.pop("unet.stem.weight"))
        with pytest.raises(ModelFileError, match="does not describe a model"):
            load_model(path)

    def test_weights_for_another_number_of_classes_are_refused(self, path):
        rewrite(path, lambda header, _: header["classes"].update(ids=[3, 7]))
        with pytest.raises(ModelFileError, match="does not describe a model"):
            load_model(path)

    def test_settings_out_of_bounds_are_refused(self, path):
        rewrite(path, lambda header, _: header["spec"]["config"].update(depth=99))
        with pytest.raises(ModelFileError, match="does not describe a model"):
            load_model(path)

    def test_a_setting_is_quoted_briefly(self, path):
        rewrite(path, lambda header, _: header["spec"]["config"].update(depth="9" * 5000))
        with pytest.raises(ModelFileError, match=r"ModelConfig.depth cannot be '9+") as error:
            load_model(path)
        assert len(str(error.value)) < 1000

    def test_a_name_is_quoted_briefly(self, path):
        rewrite(path, lambda header, _: header["history"].append({"step": 1, "9" * 5000: 1}))
        with pytest.raises(ModelFileError, match=r"unexpected keyword argument '9+") as error:
            load_model(path)
        assert len(str(error.value)) < 1000

    @pytest.mark.parametrize(
        "metadata", [None, {"header": "{}"}, {"header": "no JSON"}, {"header": "[1]"}, {"format": "pt"}]
    )
    def test_other_safetensors_are_refused(self, path, metadata):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        with pytest.raises(ModelFileError, match="not a model of napari-sparseseg"):
            load_model(path)

    def test_text_is_refused(self, path):
        path.write_text("this is not a model " * 100)
        with pytest.raises(ModelFileError) as caught:
            load_model(path)
        assert str(path) in str(caught.value)

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path):
        for wrong in (tmp_path / "missing", tmp_path):
            with pytest.raises(ModelFileError, match="there is no model file"):
                load_model(wrong)


class TestHostileFiles:
    """Files by somebody who knows the format: refused before memory is taken for what they claim to hold."""

    @pytest.fixture(autouse=True)
    def little_memory(self, monkeypatch):
        """Fail if more than the header's worth of memory is taken, or if weights are made."""

        def build(spec, n_classes, seed=0, heads=None, *, original=ModelSpec.build):
            network = original(spec, n_classes, seed, heads)
            assert network.mean.device.type == "meta", "a network was built from a file that should be refused"
            return network

        monkeypatch.setattr(ModelSpec, "build", build)
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32 << 20

    @pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_000_000, (16 << 20) + 1, 0, 1])
    def test_an_absurd_header_length(self, intact, length):
        content, folder = intact
        assert_refused(folder, struct.pack("<Q", length) + content[8:])

    def test_a_header_above_the_limit_in_a_file_that_has_it(self, tmp_path):
        with (tmp_path / "large").open("wb") as file:
            file.write(struct.pack("<Q", 1 << 30) + b'{"')
            file.truncate(2 << 30)  # a hole: it takes no room on disk
        with pytest.raises(ModelFileError):
            load_model(tmp_path / "large")

    def test_a_header_of_deep_nesting(self, intact):
        _, folder = intact
        raw = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert_refused(folder, struct.pack("<Q", len(raw)) + raw)

    @pytest.mark.parametrize(
        "offsets",
        [
            "[0,1099511627776]",
            "[1099511627776,1099511627784]",
            "[-8,0]",
            "[8,0]",
            "[0,1e9]",
            "[0,true]",
            "[0]",
            "[0,4,8]",
            '["0","4"]',
            "null",
            "5",
            f"[1{'0' * 5000},0]",
        ],
        ids=lambda text: text[:20],
    )
    def test_offsets_that_cannot_be(self, intact, offsets):
        content, folder = intact
        changed = with_table(content, lambda table: table["mean"].update(data_offsets="HERE"))
        end = 8 + int.from_bytes(changed[:8], "little")
        raw = changed[8:end].replace(b'"HERE"', offsets.encode())
        assert_refused(folder, struct.pack("<Q", len(raw)) + raw + changed[end:])

    def test_tensors_that_share_bytes(self, intact):
        content, folder = intact
        assert_refused(folder, with_table(content, lambda t: t["scale"].update(data_offsets=t["mean"]["data_offsets"])))

    def test_a_gap_between_tensors(self, intact):
        content, folder = intact
        end = 8 + int.from_bytes(content[:8], "little")

        def change(table):
            for entry in table.values():
                if "data_offsets" in entry:
                    entry["data_offsets"] = [o + 4 for o in entry["data_offsets"]]

        assert_refused(folder, with_table(content, change, b"\0\0\0\0" + content[end:]))

    @pytest.mark.parametrize("shape", [[2**40, 2**40], [-1], [1.0], "12", [[3]], [0], [1] * 40])
    def test_shapes_that_cannot_be(self, intact, shape):
        content, folder = intact
        assert_refused(folder, with_table(content, lambda table: table["mean"].update(shape=shape)))

    @pytest.mark.parametrize(
        ("group", "values"),
        [
            ("spec", {"n_channels": 10**9}),
            ("spec", {"n_channels": 10**30}),
            ("spec", {"n_channels": 4096}),
            ("spec", {"n_channels": 0}),
            ("spec", {"n_channels": True}),
            ("spec", {"spacing": [1.0, 1.0]}),
            ("spec", {"spacing": [1.0, float("nan"), 1.0]}),
            ("spec", {"spacing": [1.0, float("inf"), 1.0]}),
            ("spec", {"spacing": [1.0, 0.0, -1.0]}),
            ("spec", {"spacing": [1e-300, 1.0, 1e300]}),
            ("spec", {"spacing": 3}),
            ("spec", {"flat": [0, 0]}),
            ("config", {"width": 10**9}),
            ("config", {"width": 128}),
            ("config", {"head_width": 10**9}),
            ("config", {"depth": 10**9}),
            ("config", {"scales": [1.0] * 1000}),
            ("config", {"scales": [1e9, 1.0, 2.0]}),
            ("config", {"scales": [-1.0, 1.0, 2.0]}),
            ("config", {"something": 1}),
            ("spec", {"lengths": [0.5, 1.0, 1.0]}),
            ("spec", {"lengths": [1.0, float("nan"), 1.0]}),
            ("spec", {"lengths": [1.0, 1.0]}),
            ("spec", {"lengths": 1}),
            ("classes", {"ids": list(range(1, 129))}),
            ("classes", {"ids": [3, 3, 7]}),
            ("classes", {"ids": [3, 7, 2**70]}),
            ("classes", {"ids": []}),
            ("classes", {"background": 4}),
            ("header", {"context": 2.0}),
            ("header", {"context": float("nan")}),
            ("header", {"shift": [0.0, 0.0]}),
            ("header", {"shift": [0.0, float("inf"), 0.0]}),
            ("header", {"intensity": [{"offset": [0.0], "scale": [1.0]}]}),
            ("header", {"intensity": [{"offset": [0.0, 0.0], "scale": [1.0, 0.0]}]}),
            ("header", {"intensity": 7}),
            ("header", {"history": [{"step": 1}]}),
            ("header", {"history": [{"step": None, "phase": "unet", "loss": 1.0}]}),
            ("header", {"history": [{"step": -1, "phase": "unet", "loss": 1.0}]}),
            ("header", {"history": [{"step": 1, "phase": 7, "loss": 1.0}]}),
            ("header", {"history": [{"step": 1, "phase": "unet", "loss": "1"}]}),
            ("header", {"history": [{"step": 1, "phase": "unet", "loss": 1.0, "dice": []}]}),
            ("header", {"history": [{"step": 1, "phase": "unet", "loss": 1.0, "__class__": 1}]}),
            ("header", {"training": {}}),
            ("header", {"training": {"step": 1, "round": 1, "seed": 1, "optimiser_steps": 1, "random": {}}}),
            ("header", {"version": 3}),
            ("header", {"version": 0}),
            ("header", {"version": True}),
        ],
        ids=str,
    )
    def test_absurd_numbers_in_the_header(self, intact, group, values):
        content, folder = intact

        def change(table):
            header = json.loads(table["__metadata__"]["header"])
            part = {"header": header, "config": header["spec"]["config"]}.get(group) or header[group]
            part.update(values)
            table["__metadata__"]["header"] = json.dumps(header)

        assert_refused(folder, with_table(content, change))

    def test_tensors_that_the_network_does_not_have(self, intact):
        content, folder = intact

        def change(table):
            end = max(entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__")
            table["more"] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}

        assert_refused(
            folder, with_table(content, change, content[8 + int.from_bytes(content[:8], "little") :] + b"more")
        )

    @settings(max_examples=100, deadline=None)
    @given(content=st.binary(max_size=300))
    def test_random_bytes_behind_a_fitting_length(self, intact, content):
        assert_refused(intact[1], struct.pack("<Q", len(content)) + content)


class TestWriting:
    @pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()], ids=["error", "key"])
    @pytest.mark.parametrize(("owner", "name"), [(module.os, "fsync"), (Path, "replace")], ids=["sync", "rename"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, monkeypatch, path, model, error, owner, name):
        before = path.read_bytes()

        def fail(*_):
            raise error

        monkeypatch.setattr(owner, name, fail)
        with pytest.raises(type(error)):
            save_model(path, model, settings={})
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path, model):
        with pytest.raises(InputError, match="does not exist; make it first"):
            save_model(tmp_path / "no" / "model", model, settings={})

    def test_a_folder_as_target_is_refused(self, tmp_path, model):
        with pytest.raises(InputError, match="it is a folder"):
            save_model(tmp_path, model, settings={})
        assert list(tmp_path.iterdir()) == []
