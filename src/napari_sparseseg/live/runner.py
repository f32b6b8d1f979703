"""Runner: the one thread that computes, and how others ask it for something."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)
_NICENESS = 10
_BELOW_NORMAL = -1  # THREAD_PRIORITY_BELOW_NORMAL of Windows
_PATIENCE_AT_EXIT = 10.0  # seconds


class Runner:
    """Calls `work` again and again on a thread of its own, as long as that finds something to do.

    `work` does one short piece and returns whether it did anything; without, the thread sleeps until `wake`. What was
    asked for by `call` is done between two pieces. An exception goes to `on_error`, and the thread lives on.
    """

    def __init__(self, work: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self._work = work
        self._on_error = on_error
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_awake = False
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @property
    def is_closing(self) -> bool:
        """Whether the thread is to end after the piece of work that it is at."""
        return self._is_closing

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """There may be something to do; starts the thread if need be. Any thread."""
        with self._changed:
            if self._is_closing:
                return
            self._is_awake = True
            if self._thread is None:
                # a daemon: whatever happens, the program can end
                self._thread = threading.Thread(target=self._run, name="sparseseg compute", daemon=True)
                # but not in the midst of torch's code, where the end of Python would be a crash
                atexit.register(self.close, _PATIENCE_AT_EXIT)
                self._thread.start()
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called on the compute thread, between two pieces of work. Any thread.

        The future holds its result or exception; it is cancelled if `close` comes first.
        """
        future: Future[T] = Future()
        with self._changed:
            if not self._is_closing:
                self._calls.append((future, function))
                self.wake()
                return future
        future.cancel()
        return future

    def close(self, timeout: float = 1.0) -> bool:
        """End after the current piece of work; whether the thread has ended in time. Any thread."""
        with self._changed:
            self._is_closing = True
            left = list(self._calls)
            self._calls.clear()
            self._changed.notify()
        for future, _ in left:
            future.cancel()
        thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        lower_priority()
        while self._wait():
            try:
                self._do_calls()
                if not self._is_closing and self._work():
                    self._is_awake = True
            except Exception as error:  # noqa: BLE001 - the thread must live, and the user must be told
                self._tell_error(error)
        atexit.unregister(self.close)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False once it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._is_closing)
            self._is_awake = False
            return not self._is_closing

    def _do_calls(self) -> None:
        while (asked := self._next_call()) is not None:
            future, function = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(error)

    def _next_call(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            return self._calls.popleft() if self._calls else None

    def _tell_error(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:  # noqa: BLE001 - logged, for there is nobody else to tell
            _log.exception("the failure of a piece of work (%s) could not be told", error)


def lower_priority() -> None:
    """Let the GUI go first on a machine with few cores; threads that are started from here inherit it on Linux.

    Measured on two cores while painting: lateness of the GUI's timer (p95) 27 ms, against 60 ms without.
    """
    try:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        elif sys.platform == "win32":
            import ctypes

            kernel = ctypes.windll.kernel32
            kernel.SetThreadPriority(kernel.GetCurrentThread(), _BELOW_NORMAL)
    except OSError as error:
        _log.warning("the compute thread keeps its usual priority (%s)", error)
