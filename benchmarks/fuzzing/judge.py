"""What counts as a failure when an input is opened and used."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzzing.mutators import DECOY
from napari_sparseseg.errors import SparseSegError

MEMORY_BYTES = 1 << 29
"""So much more memory than before is a memory bomb: all inputs are small."""

_LONGEST_MESSAGE = 1500


class Verdict(NamedTuple):
    """`kind` is "fine", "refused", or a failure: "memory", "escape", "unclear"; `detail` says more."""

    kind: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        return self.kind not in ("fine", "refused")


class Escapes:
    """Notes when Python opens a decoy. Hooks cannot be removed, so there should be one for a process."""

    def __init__(self) -> None:
        self._found: list[str] = []
        sys.addaudithook(self._hear)

    def taken(self) -> list[str]:
        """What was opened since the last call."""
        found, self._found = self._found, []
        return found

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "mmap.__new__", "os.listdir", "socket.connect", "os.system", "subprocess.Popen"):
            target = str(arguments[0]) if arguments else ""
            # a socket pair, which asyncio makes, connects to nothing outside
            if (
                event not in ("open", "os.listdir", "mmap.__new__")
                or DECOY in target
                or target.startswith("/etc/passwd")
            ):
                self._found.append(f"{event} {target}")


def judge(path: Path, use: Callable[[Path], object], escapes: Escapes, peak: Callable[[], int]) -> Verdict:
    """Use an input. `peak` tells the largest memory so far."""
    before = peak()
    escapes.taken()
    verdict = _outcome(path, use)
    found = escapes.taken()
    if found:
        return Verdict("escape", found[0])
    if not verdict.is_failure and peak() - before > MEMORY_BYTES:
        return Verdict("memory", f"took {(peak() - before) >> 20} MB; {verdict.detail}")
    return verdict


def _outcome(path: Path, use: Callable[[Path], object]) -> Verdict:
    try:
        use(path)
    except SparseSegError as error:
        if _ran_out_of_memory(error):
            return Verdict("memory", _trace(error))
        problem = unclear(str(error), path)
        return Verdict("unclear", f"{problem}: {error}"[:2000]) if problem else Verdict("refused", str(error))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return Verdict("memory" if _ran_out_of_memory(error) else "unclear", _trace(error))
    return Verdict("fine")


def unclear(message: str, path: Path) -> str:
    """What a message lacks; empty if it names the file and says what to do, in a line that can be read."""
    if path.name not in message:
        return "does not name the file"
    if "\n" in message or len(message) > _LONGEST_MESSAGE:
        return f"is {len(message)} characters in {message.count(chr(10)) + 1} lines"
    if ";" not in message:
        return "does not say what to do"
    return ""


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        # what was raised "from None" tells of a size that was refused
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]
