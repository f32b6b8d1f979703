"""Zarr by somebody who knows the format: no code runs, no chunk takes more memory than its array."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import struct
import tracemalloc
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.registry import codec_registry

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.chunks import guarded
from napari_sparseseg.storage.formats import open_annotation, open_image

SHAPE = (4, 6, 8)
IMAGE = np.arange(192, dtype=np.uint16).reshape(SHAPE)
COMPRESSORS = {
    "blosc": numcodecs.Blosc("zstd"),
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
}


def write(path, compressor, image=IMAGE, **options):
    zarr.create_array(path, data=image, chunks=image.shape, compressors=compressor, zarr_format=2, **options)
    return next(file for file in path.iterdir() if file.name.startswith("0"))


@pytest.mark.parametrize("compressor", [None, *COMPRESSORS.values()], ids=["none", *COMPRESSORS])
def test_what_is_as_it_should_be_is_read(tmp_path, compressor):
    write(tmp_path / "a.zarr", compressor, filters=[numcodecs.Delta("u2")])
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").array[1:3, 2], IMAGE[1:3, 2])


@pytest.mark.parametrize("shards", [None, (4, 6, 8)])
def test_format_3_is_read(tmp_path, shards):
    zarr.create_array(tmp_path / "a.zarr", data=IMAGE, chunks=(2, 3, 4), shards=shards)
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").array[1:3, 2], IMAGE[1:3, 2])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_chunk_that_unpacks_to_more_than_its_array_is_not_unpacked(tmp_path, name):
    chunk = write(tmp_path / "a.zarr", COMPRESSORS[name])
    chunk.write_bytes(COMPRESSORS[name].encode(np.zeros(64 << 20, np.uint8)))
    image = open_image(tmp_path / "a.zarr")
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a.zarr has a chunk \(0.0.0\) that holds more than it should; copy it again"):
        image.array[0, 0, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("index", [(0, 0, 0), (slice(None),) * 3], ids=["part", "whole"])
@pytest.mark.parametrize("location", ["start", "end"])
def test_a_chunk_within_a_shard_is_not_unpacked_to_more_than_it_should(tmp_path, index, location):
    shards = {"shape": SHAPE, "index_location": location}
    array = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="u2", chunks=(2, 3, 4), shards=shards)
    array[...] = IMAGE
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").array[...], IMAGE)
    shard = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    at = content.index(b"\x28\xb5\x2f\xfd")
    content[at + 4 : at + 13] = struct.pack("<BQ", 0xE0, 1 << 31)  # a size of eight bytes: two gigabytes
    shard.write_bytes(content)
    with pytest.raises(InputError, match="holds more than it should"):
        open_image(tmp_path / "a.zarr").array[index]


def test_a_frame_of_zstd_that_does_not_say_its_size_is_measured(tmp_path):
    chunk = write(tmp_path / "a.zarr", numcodecs.Zstd())
    block = struct.pack("<I", 1 | 1 << 1 | (1 << 17) << 3)  # repeat one byte; the last block
    more = struct.pack("<I", 0 | 1 << 1 | (1 << 17) << 3)
    frame = struct.pack("<IBB", 0xFD2FB528, 0, 0x58)
    chunk.write_bytes(frame + (more[:3] + b"\0") * 2000 + block[:3] + b"\0")
    with pytest.raises(InputError, match="holds more than it should"):
        open_image(tmp_path / "a.zarr").array[0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gzip", gzip.compress(IMAGE.tobytes()[:200]) + gzip.compress(IMAGE.tobytes()[200:])),
        ("bz2", bz2.compress(IMAGE.tobytes())),
        ("lzma", lzma.compress(IMAGE.tobytes())),
        ("zlib", zlib.compress(IMAGE.tobytes())),
    ],
)
def test_what_other_libraries_pack_is_read(tmp_path, name, content):
    write(tmp_path / "a.zarr", COMPRESSORS[name]).write_bytes(content)
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").array[...], IMAGE)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("content", [b"", b"\0", b"no such thing", bytes(100), b"\xff" * 30])
def test_damage_is_one_sentence(tmp_path, name, content):
    write(tmp_path / "a.zarr", COMPRESSORS[name]).write_bytes(content)
    with pytest.raises(InputError, match=r"a.zarr .*; "):
        open_image(tmp_path / "a.zarr").array[0, 0, 0]


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["compressor", "filters"])
@pytest.mark.parametrize("dtype", ["|u1", "|O"])
def test_nothing_is_unpickled(tmp_path, place, dtype):
    chunk = write(tmp_path / "a.zarr", None, IMAGE.astype(np.uint8))
    metadata = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    metadata |= {place: {"id": "pickle"} if place == "compressor" else [{"id": "pickle"}], "dtype": dtype}
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(metadata))
    chunk.write_bytes(pickle.dumps(Evil(tmp_path / "proof")))
    with pytest.raises(InputError, match=r"a.zarr"):
        open_image(tmp_path / "a.zarr").array[0, 0, 0]
    assert not (tmp_path / "proof").exists()


class Unknown(numcodecs.Zlib):
    codec_id = "unknown"


def test_codecs_that_nobody_knows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(codec_registry, "unknown", Unknown)
    write(tmp_path / "a.zarr", Unknown())
    with pytest.raises(InputError, match=r"a.zarr is packed with 'unknown', which is not read here; pack it with"):
        open_image(tmp_path / "a.zarr")


def test_codecs_within_shards_are_looked_at(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=IMAGE, chunks=(2, 3, 4), shards=SHAPE)
    array = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert guarded(array, "a") is not None
    text = (tmp_path / "a.zarr" / "zarr.json").read_text()
    (tmp_path / "a.zarr" / "zarr.json").write_text(text.replace('"zstd"', '"vlen-utf8"').replace('"level"', '"x"'))
    with pytest.raises(InputError, match=r"a.zarr"):
        open_image(tmp_path / "a.zarr")


def test_chunks_are_bounded(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(2**16,) * 3, chunks=(1, 2**16, 2**16), dtype="u1", zarr_format=2)
    with pytest.raises(InputError, match=r"a.zarr has chunks of 4294967296 bytes; copy it into smaller ones"):
        open_image(tmp_path / "a.zarr")


def test_metadata_are_bounded(tmp_path):
    write(tmp_path / "a.zarr", None)
    with (tmp_path / "a.zarr" / ".zarray").open("r+b") as file:
        file.truncate(1 << 30)  # a hole: it takes no room on disk
    with pytest.raises(InputError, match=r"a.zarr has metadata of 1073741824 bytes \(.zarray\)"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["../secret.zarr", "/secret.zarr", "a::file:///secret.zarr", "..\\secret.zarr", ".."])
def test_levels_and_labels_lie_within(tmp_path, name):
    zarr.create_array(tmp_path / "secret.zarr", data=IMAGE, zarr_format=2)
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    axes = [{"name": letter, "type": "space"} for letter in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": name, "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    with pytest.raises(InputError, match=r"a.zarr .*; "):
        open_image(tmp_path / "a.zarr")
    group.create_group("labels").attrs["labels"] = [name]
    with pytest.raises(InputError, match=r"a.zarr names labels outside its folder"):
        open_annotation(tmp_path / "a.zarr")


def test_a_header_of_blosc_that_contradicts_itself_takes_no_memory(tmp_path):
    chunk = write(tmp_path / "a.zarr", numcodecs.Blosc("lz4"))
    content = bytearray(chunk.read_bytes())
    content[4:8] = struct.pack("<I", 0x7FFFFFFF)
    chunk.write_bytes(content[:-1])
    with pytest.raises(InputError, match="holds more than it should"):
        open_image(tmp_path / "a.zarr").array[0, 0, 0]
