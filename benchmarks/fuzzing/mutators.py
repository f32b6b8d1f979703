"""Damage and malice: bytes, numbers and names in text, JSON. Chance comes from a generator that is passed in."""

from __future__ import annotations

import copy
import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutator = Callable[[Path, Rng], None]
"""Changes the input at a path, a file or a folder, in place."""

DECOY = "decoy"
"""Name, without ending, of files that lie outside the input and that no input may lead to."""

_ODD_INTEGERS = (0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_ODD_WORDS = (
    *("0", "-1", "1", "0.5", "-0.0", "7", "65536", "2147483648", "4294967295", "1099511627776"),
    *("18446744073709551616", "1" + "0" * 40, "1" + "0" * 5000, "1e308", "1e999", "-1e999", "nan", "", "x" * 5000),
    *(f"../{DECOY}", f"../../{DECOY}", "/dev/zero", "/etc/passwd", "..", ".", "a/b", "a\\b", "x::file:///etc"),
    *("http://localhost:9/x", "\0", "\\ud800", "é", "|O", "pickle", "__class__", "%s%n", "{0}", "null", "true", "[]"),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 255, 2**31, 2**32, 2**40, 2**63, 2**64, 10**40, 0.5, -0.5, 1e308, 1e-308),
    *(float("nan"), float("inf"), float("-inf"), None, True, False, "", [], {}, [[]], [None], {"a": {}}),
    *([0] * 50, [2**40] * 3, [2**40] * 4, [-1, -1, -1], ["a", "b", "c"], [0.5, 0.5, 0.5], [1, 2, 3], [10**4] * 2000),
    *({"id": "pickle"}, {"name": "numcodecs.pickle"}, [{"id": "pickle"}]),
)
_TOKEN = re.compile(rb'"[^"\n]{0,80}"|(?<![A-Za-z])-?\d+(?:\.\d+)?')
_TEXT_BYTES = 1 << 16


def pick(rng: Rng, things: Sequence[Any]) -> Any:
    """One of several, by chance."""
    return things[int(rng.integers(len(things)))]


# --- bytes ---


def mutate_bytes(content: bytes, rng: Rng) -> bytes:
    """A few bytes changed, moved, lost or added; more often near the beginning, where headers are."""
    changed = bytearray(content)
    size = len(changed)
    if not size:
        return rng.bytes(16)
    at = int(rng.integers(min(size, 512) if rng.random() < 0.5 else size))
    n = int(rng.integers(1, 64))
    match int(rng.integers(7)):
        case 0:
            changed[at] ^= 1 << int(rng.integers(8))
        case 1:
            changed[at : at + n] = rng.bytes(n)
        case 2:
            del changed[at:]
        case 3:
            del changed[at : at + n]
        case 4:
            source = int(rng.integers(size))
            changed[at:at] = changed[source : source + n]
        case 5:
            source = int(rng.integers(size))
            changed[at : at + n] = changed[source : source + n]
        case _:
            form = pick(rng, ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q", "<f", ">f"))
            value = pick(rng, _ODD_INTEGERS)
            width = struct.calcsize(form)
            packed = struct.pack(form, value if form[1] == "f" else value % (1 << 8 * width))
            changed[at : at + width] = packed
    return bytes(changed)


def bytes_of_some_file(path: Path, rng: Rng) -> None:
    """`mutate_bytes` on the input, or on one of its files."""
    file = pick(rng, files_of(path))
    file.write_bytes(mutate_bytes(file.read_bytes(), rng))


def lose_some_file(path: Path, rng: Rng) -> None:
    """A file of several is missing, empty, a folder, or the copy of another."""
    files = files_of(path)
    file, other = pick(rng, files), pick(rng, files)
    content = other.read_bytes()
    match int(rng.integers(4)):
        case 0 if len(files) > 1:
            file.unlink()
        case 1 if len(files) > 1:
            file.unlink()
            file.mkdir()
        case 2:
            file.write_bytes(b"")
        case _:
            file.write_bytes(content)


def files_of(path: Path) -> list[Path]:
    """The input, if it is a file, else all files in it, in a fixed order."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


# --- text ---


def mutate_text(content: bytes, rng: Rng) -> bytes:
    """One number or quoted name near the beginning replaced by an odd one, without care for what it was."""
    tokens = list(_TOKEN.finditer(content[:_TEXT_BYTES]))
    if not tokens:
        return mutate_bytes(content, rng)
    token = pick(rng, tokens)
    word = pick(rng, _ODD_WORDS).encode()
    if token[0].startswith(b'"'):
        word = b'"' + word + b'"'
    return content[: token.start()] + word + content[token.end() :]


def text_of_some_file(path: Path, rng: Rng) -> None:
    """`mutate_text` on the input, or on one of its files."""
    file = pick(rng, files_of(path))
    file.write_bytes(mutate_text(file.read_bytes(), rng))


# --- JSON ---


def mutate_json(value: Any, rng: Rng) -> Any:
    """A copy in which something is replaced, lost, doubled, nested or moved."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    if not places:
        return pick(rng, _ODD_VALUES)
    holder, key = pick(rng, places)
    match int(rng.integers(8)):
        case 0:
            del holder[key]
        case 1:
            holder[key] = [holder[key]]
        case 2:
            other, other_key = pick(rng, places)
            holder[key] = copy.deepcopy(other[other_key])
        case 3 if isinstance(holder[key], list) and holder[key]:
            holder[key] = [*holder[key], copy.deepcopy(pick(rng, holder[key]))]
        case 4 if isinstance(holder[key], list):
            holder[key] = holder[key][:-1]
        case 5 if isinstance(holder, dict):
            holder[pick(rng, _ODD_WORDS)] = holder.pop(key)
        case 6:
            holder[key] = pick(rng, _ODD_WORDS)
        case _:
            holder[key] = pick(rng, _ODD_VALUES)
    return changed


def odd_json(value: Any, rng: Rng) -> bytes:
    """JSON text of a mutated value; now and then with the same key twice, or nested beyond any reader's patience."""
    text = json.dumps(mutate_json(value, rng)).encode()
    match int(rng.integers(12)):
        case 0 if text.startswith(b'{"'):
            first = text[1 : text.index(b":")]
            return b"{" + first + b":" + json.dumps(pick(rng, _ODD_VALUES)).encode() + b"," + text[1:]
        case 1:
            depth = int(pick(rng, (100, 2000, 100_000)))
            tokens = list(_TOKEN.finditer(text))
            token = pick(rng, tokens) if tokens else None
            at, end = (token.start(), token.end()) if token else (0, len(text))
            return text[:at] + b"[" * depth + b"]" * depth + text[end:]
        case _:
            return text


def json_of_some_file(path: Path, rng: Rng) -> None:
    """`odd_json` on one of the files that hold JSON."""
    files = [file for file in files_of(path) if is_json(file)]
    if not files:
        return bytes_of_some_file(path, rng)
    file = pick(rng, files)
    file.write_bytes(odd_json(json.loads(file.read_bytes()), rng))
    return None


def is_json(file: Path) -> bool:
    """Whether a whole file is one JSON object."""
    content = file.read_bytes()
    if not content.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _places(value: Any) -> Any:
    """Each holder and key below a value; holders can be changed."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


# --- bombs ---


@cache
def deflated_bomb(n_gigabytes: int = 4) -> bytes:
    """Raw deflate of so many gigabytes of zeros, some megabytes long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(1 << 26)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (n_gigabytes * 16) + b"\x03\x00"


def zlib_bomb() -> bytes:
    """As zlib packs it; without the checksum at the end, which comes too late anyhow."""
    return b"\x78\xda" + deflated_bomb()


def gzip_bomb() -> bytes:
    """As gzip packs it."""
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03" + deflated_bomb()
