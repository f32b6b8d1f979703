"""What a file may lead to: never out of its folder, and never to more memory than what it holds can fill."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from napari_sparseseg.errors import InputError

HEADER_LIMIT = 1 << 24
"""Bytes before the voxels; no program writes as many."""

_PIECE = 1 << 20
# no byte stands for more: of bzip2, 900 kB of runs take 45 bytes or more
_RATIOS = {"raw": 1, "gzip": 1032, "bzip2": 1 << 21}


def beside(path: Path | str, name: str) -> Path:
    """The file that `path` names, which lies in its folder or below.

    Raises `InputError` for a name that leads elsewhere: a file from a stranger could show what is not meant for it.
    """
    if not leads_inside(name):
        raise InputError(f"{path} names a file outside its folder ({name!r:.80}); put all its files into one folder")
    return Path(path).parent / name


def leads_inside(name: str) -> bool:
    """Whether a relative path goes nowhere but down, on every system and for fsspec."""
    if not name or ":" in name or "\0" in name or "\n" in name:
        return False
    both = PurePosixPath(name), PureWindowsPath(name)
    return not any(kind.anchor or ".." in kind.parts for kind in both)


def check_claim(path: Path | str, packing: str, n_bytes: int, file: Path | None = None) -> None:
    """Refuse a file, packed as "gzip", "bzip2" or "raw", that claims more bytes than can come out of it.

    `file` is where they are, if not in `path` itself. Raises `InputError`, before memory is taken for them.
    """
    if n_bytes > Path(file or path).stat().st_size * _RATIOS[packing]:
        raise InputError(f"{path} is too short for the {n_bytes} bytes that it claims; copy it again from its source")


def unpacked(file: BinaryIO, packing: str, n_skipped: int, n_wanted: int) -> bytearray:
    """`n_wanted` bytes of what is packed in the rest of a file, "gzip" or "bzip2", behind `n_skipped`.

    Fewer if there are no more, and never more, however much there is.
    """
    with gzip.GzipFile(fileobj=file) if packing == "gzip" else bz2.BZ2File(file) as reader:
        while n_skipped:
            piece = reader.read(min(n_skipped, _PIECE))
            if not piece:
                break
            n_skipped -= len(piece)
        found = bytearray()
        # in pieces: a reader takes memory for all that it is asked for
        while len(found) < n_wanted and (piece := reader.read(min(n_wanted - len(found), _PIECE))):
            found += piece
    return found
