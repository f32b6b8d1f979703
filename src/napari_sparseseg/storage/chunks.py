"""Zarr arrays from strangers: which codecs may run, and that a chunk unpacks to no more than the array says."""

from __future__ import annotations

import bz2
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from napari_sparseseg.errors import InputError

_LARGEST_CHUNK = 2**31
_SLACK = 4096  # headers and checksums of codecs
_WIDENING = 8  # filters may store a byte as float64
_PIECE = 1 << 16
_ZSTD_BLOCK = 1 << 17
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHECKSUM = 4
_NO_CHUNK = b"\xff" * 8  # in the index of a shard
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""Ends of keys that hold no chunk."""

# no codec that holds Python objects is among them: numcodecs' "pickle" runs whatever the file says
_CODECS = frozenset(
    {
        *("bytes", "endian", "transpose", "sharding_indexed"),
        *("blosc", "bz2", "gzip", "lz4", "lzma", "packbits", "pcodec", "zfpy", "zlib", "zstd"),
        *("astype", "bitround", "delta", "fixedscaleoffset", "quantize", "shuffle"),
        *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    }
)
_OTHER_CODECS = "imagecodecs_"  # of the library imagecodecs, which microscopes' converters use


def guarded(array: zarr.Array[Any], path: object) -> zarr.Array[Any]:
    """The same array, of which a chunk that would unpack to more than it should is an error when it is read.

    Raises `InputError` for codecs that are not known to be harmless, and
    for chunks too large to be unpacked; `path` is what the message calls the file.
    """
    metadata: Any = array.metadata
    names = _codec_names(metadata)
    for name in names:
        if name not in _CODECS and not name.startswith(_OTHER_CODECS):
            raise InputError(f"{path} is packed with {name!r:.40}, which is not read here; pack it with blosc or zstd")
    n_bytes = math.prod(array.shards or array.chunks) * np.dtype(array.dtype).itemsize
    if n_bytes > _LARGEST_CHUNK:
        raise InputError(f"{path} has chunks of {n_bytes} bytes; copy it into smaller ones, of some megabytes")
    codecs: Sequence[Any] = metadata.to_dict()["codecs"] if metadata.zarr_format == 3 else []
    n_within = 0
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        names = [name for codec in codecs[0]["configuration"]["codecs"] for name in _names_of(codec)]
        n_within = math.prod(n // m for n, m in zip(array.shards or (), array.chunks, strict=True))
        n_bytes = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    measure = _MEASURES.get(names[-1]) if names else None
    if measure is None or (n_within and measure is _lz4):  # which has no signature, and may not be seen in an index
        return array
    store = _Guard(array.store, measure, _WIDENING * n_bytes + _SLACK, n_within, str(path))
    return zarr.open_array(store, path=array.path, mode="r", zarr_format=metadata.zarr_format)


class _Guard(WrapperStore[Store]):
    """A store of which a chunk is measured before it is handed out to be unpacked."""

    def __init__(
        self, store: Store, measure: Callable[[bytes, int], int], limit: int, n_within: int, name: str
    ) -> None:
        super().__init__(store)
        self._measure, self._limit, self._n_within, self._name = measure, limit, n_within, name

    def _with_store(self, store: Store) -> _Guard:
        return _Guard(store, self._measure, self._limit, self._n_within, self._name)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What is stored under a key."""
        found = await super().get(key, prototype, byte_range)
        if found is None or key.endswith(METADATA):
            return found
        content = found.to_bytes()
        is_shard = self._n_within and byte_range is None
        for chunk in _chunks_of(content, self._n_within) if is_shard else (content,):
            if self._measure(chunk, self._limit) > self._limit:
                raise InputError(f"{self._name} has a chunk ({key}) that holds more than it should; copy it again")
        return found


def _chunks_of(shard: bytes, n_chunks: int) -> Iterator[bytes]:
    """Chunks of a shard, as the index at its end or at its beginning names them; both are tried."""
    n_bytes = 16 * n_chunks
    for start in (len(shard) - n_bytes - _CHECKSUM, len(shard) - n_bytes, 0):
        index = shard[max(start, 0) : max(start, 0) + n_bytes]
        for offset, size in struct.iter_unpack("<QQ", index[: len(index) // 16 * 16]):
            if offset + size <= len(shard):
                yield shard[offset : offset + size]


def _codec_names(metadata: Any) -> list[str]:
    """Ids of all codecs; the last is what a stored chunk is unpacked with first."""
    if metadata.zarr_format == 2:
        codecs = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
        return [str(getattr(codec, "codec_id", type(codec).__name__)) for codec in codecs]
    return [name for codec in metadata.to_dict()["codecs"] for name in _names_of(codec)]


def _names_of(codec: Any) -> list[str]:
    """The name of a codec, behind those that it holds."""
    configuration = codec.get("configuration") or {}
    inner = [*configuration.get("codecs", ()), *configuration.get("index_codecs", ())]
    return [*(name for part in inner for name in _names_of(part)), str(codec["name"]).removeprefix("numcodecs.")]


# --- how much a chunk unpacks to: exactly, or at least whether it is more than `limit` ---


def _blosc(content: bytes, _limit: int) -> int:
    if content[:8] == _NO_CHUNK:
        return 0
    return int.from_bytes(content[4:8], "little")


def _lz4(content: bytes, _limit: int) -> int:
    return int.from_bytes(content[:4], "little")


def _zstd(content: bytes, _limit: int) -> int:
    """What the first frame says, or as much as its blocks can hold."""
    if content[:4] != _ZSTD_MAGIC or len(content) < 6:
        return 0
    flags = content[4]
    is_single, id_bytes = bool(flags & 0x20), (0, 1, 2, 4)[flags & 3]
    size_bytes = (int(is_single), 2, 4, 8)[flags >> 6]
    at = 5 + (not is_single) + id_bytes
    if size_bytes:
        return int.from_bytes(content[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    total, is_last = 0, False
    while not is_last and at + 3 <= len(content):
        header = int.from_bytes(content[at : at + 3], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
        # how much a packed block holds is not known; an eighth allows for writers that end them early
        total += _ZSTD_BLOCK // 8 if kind == 2 else size
    return total


def _counted(make: Callable[[], Any], *damage: type[Exception]) -> Callable[[bytes, int], int]:
    """Unpack piece by piece, keep nothing, and stop beyond the limit; what is damaged is left to the codec."""

    def measure(content: bytes, limit: int) -> int:
        total, left = 0, content
        while left and total <= limit:
            unpacker = make()
            piece = left
            try:
                while total <= limit and not unpacker.eof:
                    found = len(unpacker.decompress(piece, _PIECE))
                    piece = getattr(unpacker, "unconsumed_tail", b"")
                    total += found
                    if not found and not piece:
                        break
            except damage:
                break
            left = unpacker.unused_data
        return total

    return measure


_MEASURES: dict[str, Callable[[bytes, int], int]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": _counted(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32), zlib.error),
    "zlib": _counted(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32), zlib.error),
    "bz2": _counted(bz2.BZ2Decompressor, OSError, EOFError, ValueError),
    "lzma": _counted(lzma.LZMADecompressor, lzma.LZMAError, EOFError),
}
