"""Errors of other libraries, told in one sentence that names the file and says what to do."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_sparseseg.errors import InputError, SparseSegError

_LONGEST_REASON = 200


@contextmanager
def readable(
    path: Path | str, what: str, remedy: str = "copy it again from its source, or convert it"
) -> Iterator[None]:
    """Turn whatever a library raises while it reads `path` into an `InputError`; `what` is "TIFF", "zarr", ..."""
    try:
        yield
    except SparseSegError:
        raise
    except PermissionError as error:
        raise may_not_be_read(path) from error
    except ImportError as error:
        raise InputError(
            f"{path} needs a library that is not installed ({reason(error)}); get it with pip or conda"
        ) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory; convert it to OME-Zarr, which is read in parts") from error
    # libraries raise anything at damaged files: struct, zlib and index errors, assertions, attributes of None
    except Exception as error:
        if isinstance(path, str) and _is_of_network(error):
            raise _unreachable(path, error) from error
        raise InputError(f"{path} cannot be read as {what} ({reason(error)}); {remedy}") from error


def _is_of_network(error: BaseException) -> bool:
    """Whether obstore or fsspec's libraries raised it, which the packages are not imported for to find out."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("obstore", "aiohttp", "botocore")


def _unreachable(url: str, error: BaseException) -> InputError:
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return refused_by_server(url)
    return InputError(f"{url} cannot be reached ({reason(error)}); check the address and the network, then try again")


def refused_by_server(url: str) -> InputError:
    """What to say where a server denies what lies at a URL."""
    return InputError(
        f"{url} is forbidden by its server, or does not exist; check the address, or give a key that may read it (for "
        "S3 the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION)"
    )


def may_not_be_read(path: Path | str) -> InputError:
    """What to say where the system denies a file."""
    if isinstance(path, str):
        return refused_by_server(path)
    return InputError(f"{path} may not be read; change its permissions, or copy it to a folder of yours")


def reason(error: BaseException) -> str:
    """First line of what an exception says, shortened; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".;:") if lines else ""
    if len(text) > _LONGEST_REASON:
        text = f"{text[:_LONGEST_REASON]}..."
    return text or type(error).__name__


def shown(text: object, longest: int = 40) -> str:
    """What a file says of itself, as messages quote it: short, in one line, nothing that does not print."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def optional(module: str, path: Path | str, extra: str) -> Any:
    """Import a library that only some users have.

    Raises `InputError` with the name of the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{path} needs the library {module}, which is not installed; get it with "
            f'pip install "napari-sparseseg[{extra}]"'
        ) from error
