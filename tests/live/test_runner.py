"""The thread that computes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from napari_sparseseg.live.runner import Runner

PATIENCE = 30


@pytest.fixture
def make_runner():
    made = []

    def make(work=lambda: False, on_error=lambda error: None):
        runner = Runner(work, on_error)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        assert runner.close(PATIENCE)


class Work:
    """Counts pieces of work; does so many, then says that there is nothing left."""

    def __init__(self, n_pieces=0):
        self.left = n_pieces
        self.n_calls = 0
        self.has_rested = threading.Event()
        self.threads = set()

    def __call__(self):
        self.n_calls += 1
        self.threads.add(threading.current_thread())
        if self.left:
            self.left -= 1
            return True
        self.has_rested.set()
        return False


def test_no_thread_starts_before_there_is_something_to_do(make_runner):
    runner = make_runner()
    assert not runner.is_alive
    assert runner.close()


def test_it_works_until_nothing_is_left_on_a_thread_of_its_own(make_runner):
    work = Work(5)
    make_runner(work).wake()
    assert work.has_rested.wait(PATIENCE)
    assert work.n_calls == 6
    (thread,) = work.threads
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_it_does_not_work_again_and_again_when_there_is_nothing_to_do(make_runner):
    work = Work()
    runner = make_runner(work)
    runner.wake()
    assert work.has_rested.wait(PATIENCE)
    # each call wakes the thread once
    for _ in range(10):
        runner.call(lambda: None).result(PATIENCE)
    runner.call(lambda: None).result(PATIENCE)
    assert work.n_calls <= 12


def test_waking_makes_it_look_again(make_runner):
    work = Work()
    runner = make_runner(work)
    runner.wake()
    assert work.has_rested.wait(PATIENCE)
    work.has_rested.clear()
    work.left = 2
    runner.wake()
    assert work.has_rested.wait(PATIENCE)


def test_a_wake_during_a_piece_of_work_is_not_lost(make_runner):
    is_working, may_end, has_come_back = threading.Event(), threading.Event(), threading.Event()

    def work():
        if is_working.is_set():
            has_come_back.set()
            return False
        is_working.set()
        may_end.wait(PATIENCE)
        return False

    runner = make_runner(work)
    runner.wake()
    assert is_working.wait(PATIENCE)
    runner.wake()
    may_end.set()
    assert has_come_back.wait(PATIENCE)


def test_calls_come_between_pieces_in_order_on_the_same_thread(make_runner):
    log = []
    may_go_on = threading.Event()

    def work():
        log.append("work")
        may_go_on.wait(PATIENCE)
        return len(log) < 6

    runner = make_runner(work)
    runner.wake()
    futures = [runner.call(lambda n=n: log.append(n) or threading.current_thread().name) for n in range(2)]
    may_go_on.set()
    assert [future.result(PATIENCE) for future in futures] == ["sparseseg compute"] * 2
    assert log.index(0) + 1 == log.index(1)


def test_a_call_hands_out_result_or_exception(make_runner):
    runner = make_runner()
    assert runner.call(lambda: 3).result(PATIENCE) == 3
    with pytest.raises(ZeroDivisionError):
        runner.call(lambda: 1 / 0).result(PATIENCE)
    assert runner.call(lambda: 4).result(PATIENCE) == 4


def test_an_exception_is_reported_and_the_thread_lives_on(make_runner):
    reported, told = [], threading.Event()
    work = Work(1)

    def fail_once():
        if not reported:
            raise ValueError("no")
        return work()

    runner = make_runner(fail_once, lambda error: (reported.append(error), told.set()))
    runner.wake()
    assert told.wait(PATIENCE)
    runner.wake()
    assert work.has_rested.wait(PATIENCE)
    assert [str(error) for error in reported] == ["no"]


def test_an_exception_of_who_is_told_does_not_end_the_thread(make_runner, caplog):
    def fail(_=None):
        raise ValueError("no")

    runner = make_runner(fail, fail)
    runner.wake()
    runner.call(lambda: None).result(PATIENCE)
    assert runner.call(lambda: 1).result(PATIENCE) == 1
    assert "could not be told" in caplog.text


class TestClose:
    def test_it_ends_after_the_current_piece(self, make_runner):
        is_working, may_end = threading.Event(), threading.Event()

        def work():
            is_working.set()
            may_end.wait(PATIENCE)
            return True

        runner = make_runner(work)
        runner.wake()
        assert is_working.wait(PATIENCE)
        assert not runner.close(0.01)
        may_end.set()
        assert runner.close(PATIENCE)
        assert not runner.is_alive
        assert not any(thread.name == "sparseseg compute" for thread in threading.enumerate())

    def test_what_waits_is_cancelled_and_so_is_what_comes_after(self, make_runner):
        is_working, may_end = threading.Event(), threading.Event()
        runner = make_runner(lambda: is_working.set() or may_end.wait(PATIENCE))
        runner.wake()
        assert is_working.wait(PATIENCE)
        waiting = runner.call(lambda: 1)
        runner.close(0.01)
        may_end.set()
        for future in (waiting, runner.call(lambda: 2)):
            with pytest.raises(CancelledError):
                future.result(PATIENCE)

    def test_it_can_be_closed_twice_and_is_not_woken_again(self, make_runner):
        runner = make_runner()
        runner.wake()
        assert runner.close(PATIENCE)
        assert runner.close(PATIENCE)
        runner.wake()
        assert not runner.is_alive

    def test_its_own_thread_may_close_it(self, make_runner):
        runner = make_runner()
        assert runner.call(runner.close).result(PATIENCE) is False
        assert runner.close(PATIENCE)

    def test_the_program_ends_without_a_crash_in_the_midst_of_work(self):
        code = (
            "import torch, threading\n"
            "from napari_sparseseg.live.runner import Runner\n"
            "busy = threading.Event()\n"
            "def work():\n"
            "    busy.set(); torch.rand(400, 400) @ torch.rand(400, 400); return True\n"
            "runner = Runner(work, print); runner.wake(); busy.wait(60)\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread's priority cannot be read")
def test_the_thread_has_a_lower_priority(make_runner):
    runner = make_runner()
    of_thread = runner.call(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result(PATIENCE)
    assert of_thread > os.getpriority(os.PRIO_PROCESS, 0)
