"""Runner: the one thread that computes, and how others ask it for something."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)
_NICENESS = 10
_BELOW_NORMAL = -1  # THREAD_PRIORITY_BELOW_NORMAL of Windows


class Runner:
    """Calls `work` again and again on a thread of its own, as long as that finds something to do.

    `work` does one short piece and returns whether it did anything; without, the thread sleeps until `wake`. What was
    asked for by `call` is done between two pieces. An exception goes to `on_error`, and the thread lives on.
    """

    def __init__(self, work: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self._work = work
        self._on_error = on_error
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._is_awake = False
        self._is_closing = False
        self._thread: threading.Thread | None = None

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
                self._thread.start()
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called on the compute thread, between two pieces of work. Any thread.

        The future holds its result or exception; after `close` it is cancelled.
        """
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(error)

        with self._changed:
            if self._is_closing:
                future.cancel()
                return future
            self._calls.append(do)
        self.wake()
        return future

    def close(self, timeout: float = 1.0) -> bool:
        """End after the current piece of work; whether the thread has ended in time. Any thread but its own."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        lower_priority()
        while self._wait():
            try:
                self._do_calls()
                if not self._is_closing and self._work():
                    self._is_awake = True
            except Exception as error:  # noqa: BLE001 - the thread must live, and the user must be told
                self._on_error(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False once it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._is_closing)
            self._is_awake = False
            return not self._is_closing

    def _do_calls(self) -> None:
        while self._calls and not self._is_closing:
            self._calls.popleft()()


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
