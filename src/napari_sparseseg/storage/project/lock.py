"""One writer: whoever opens a project second may only read."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.project.manifest import read_json

LOCK, WRITER = "lock", "writer.json"
UNCOPIED = (LOCK, WRITER)
_LARGEST = 2**16


class ProjectLock:
    """The lock of a project folder, held by the system for a process: with the process it goes.

    `reason` says why it could not be had, in one sentence; empty while it is held.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        self.reason = self._acquire()

    def release(self) -> None:
        """Let others write."""
        self._lock.release()

    def _acquire(self) -> str:
        try:
            self._lock.acquire()
        except Timeout:
            return (
                f"{self._folder.name} is open in another window{self._writer()}; it can be looked at here, not changed"
            )
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            return f"{self._folder.name} cannot be written to ({reason}); it can be looked at, not changed"
        return self._sign()

    def _sign(self) -> str:
        """Say who writes, for the message that others get; the lock itself does not depend on it."""
        who = {"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        try:
            (self._folder / WRITER).write_text(json.dumps(who))
        except OSError as error:
            self._lock.release()
            return f"{self._folder.name} cannot be written to ({error.strerror}); it can be looked at, not changed"
        return ""

    def _writer(self) -> str:
        try:
            who = read_json(self._folder / WRITER, _LARGEST)
            since = time.strftime("%H:%M", time.localtime(float(who["since"])))
            return f" (process {int(who['process'])} on {str(who['host'])[:100]}, since {since})"
        except (ProjectError, KeyError, TypeError, ValueError, OverflowError, OSError):
            return ""
