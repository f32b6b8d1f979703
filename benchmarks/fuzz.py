"""Opens files that strangers may have made; one JSON object at the end.

    python benchmarks/fuzz.py --seconds 60
    python benchmarks/fuzz.py --replay fuzz-failures/1234-tiff/input/plain.tif

Valid model files, journals, images, annotations and projects are damaged, or changed as somebody would who knows the
format, then opened and used. This happens in a child process with little memory and a watchdog, since it may die or
hang. The same seed gives the same inputs. Inputs that fail are kept. These figures should be 0:

- `crashes`: the process died, or took memory for what a small file claims to hold, or opened a file that it was led to
- `hangs`: it took longer than 10 s of computing
- `unclear_errors`: anything but the project's own error types, or a message without the file or what to do
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch

from fuzzing import images, models, paint, projects
from fuzzing.judge import Escapes, Verdict, judge
from fuzzing.mutators import DECOY, pick
from fuzzing.target import Target

TARGETS: tuple[Target, ...] = (*models.TARGETS, *paint.TARGETS, *projects.TARGETS, *images.TARGETS)
MEMORY = 3 << 29
"""Bytes of address space that a child may take besides what it has already."""
CPU_SECONDS = 10
WALL_SECONDS = 120
"""Only for what waits without computing: other processes may slow a child down."""


def main() -> int:
    """Fuzz, or replay one input; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=None, help="stop after so many inputs instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    parser.add_argument("--replay", type=Path, help="an input that was kept")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # and no other threads before children are forked
    if arguments.replay:
        verdict = replay(arguments.replay.resolve())
        print(verdict.detail)
        print(json.dumps({"verdict": verdict.kind}))
        return int(verdict.is_failure)
    targets = [target for target in TARGETS if not arguments.only or target.name in arguments.only]
    with tempfile.TemporaryDirectory(prefix="sparseseg-fuzz-") as folder:
        fuzzer = Fuzzer(targets, arguments.seed, Path(folder), arguments.keep.resolve())
        fuzzer.run(arguments.seconds, arguments.inputs)
    print(json.dumps(fuzzer.figures))
    return int(any(fuzzer.figures[name] for name in ("crashes", "hangs", "unclear_errors")))


class Fuzzer:
    """Makes inputs from a seed and has children use them."""

    def __init__(self, targets: Sequence[Target], seed: int, folder: Path, keep: Path) -> None:
        self._targets, self._seed, self._folder, self._keep = targets, seed, folder, keep
        self._counts: Counter[str] = Counter()
        (folder / "inputs").mkdir()
        make_decoys(folder)
        make_decoys(folder / "inputs")
        in_child(self._make_samples)
        self._samples = {t.name: json.loads((folder / t.name / "samples.json").read_text()) for t in targets}

    @property
    def figures(self) -> dict[str, int]:
        """What was found so far."""
        counts = self._counts
        crashes = counts["crash"] + counts["memory"] + counts["escape"]
        return {
            "inputs": counts.total(),
            "crashes": crashes,
            "hangs": counts["hang"],
            "unclear_errors": counts["unclear"],
            "refused": counts["refused"],
        }

    def run(self, seconds: float, n_inputs: int | None = None) -> None:
        """Go on for a time, or for a number of inputs; a child that died is followed by another."""
        deadline = time.monotonic() + (seconds if n_inputs is None else 1e9)
        number = 0
        while time.monotonic() < deadline and (n_inputs is None or number < n_inputs):
            number = self._run_child(number, deadline, 10**9 if n_inputs is None else n_inputs)

    def _run_child(self, first: int, deadline: float, stop: int) -> int:
        """Use inputs until one kills the child or time is over; the number of the next input."""

        def work(report: IO[str]) -> None:
            escapes = Escapes()
            for number in range(first, stop):
                if time.monotonic() > deadline:
                    return
                target = self._targets[number % len(self._targets)]
                path = self._make_input(target, number)
                verdict = limited(partial(judge, path, target.use, escapes, peak_bytes))
                print(json.dumps([number, *verdict]), file=report, flush=True)
                if verdict.kind == "memory":
                    return  # the largest memory of this child says nothing any more

        number = first
        child = Child(work)
        for line in child.lines():
            number, kind, detail = json.loads(line)
            self._note(number, Verdict(kind, detail))
            number += 1
        if child.death:
            self._note(number, child.death)
            number += 1
        return number

    def _note(self, number: int, verdict: Verdict) -> None:
        self._counts[verdict.kind] += 1
        if not verdict.is_failure:
            return
        target = self._targets[number % len(self._targets)]
        kept = self._keep / f"{number}-{target.name}"
        shutil.rmtree(kept, ignore_errors=True)
        path = self._make_input(target, number)  # a child that goes on has made others in its place
        kept.mkdir(parents=True)
        make_decoys(kept)
        shutil.copytree(path.parent, kept / "input", symlinks=True)
        last = (verdict.detail.strip().splitlines() or [""])[-1]
        print(f"{verdict.kind}: {last[:300]}\n  --replay {kept / 'input' / path.name}", flush=True)

    def _make_samples(self, _report: IO[str]) -> None:
        for target in self._targets:
            folder = self._folder / target.name / "samples"
            folder.mkdir(parents=True)
            paths = [str(path.relative_to(folder)) for path in target.make(folder)]
            (folder.parent / "samples.json").write_text(json.dumps(paths))

    def _make_input(self, target: Target, number: int) -> Path:
        """Input of this number: a copy of a sample, changed once or twice."""
        rng = np.random.default_rng([self._seed, number])
        sample = self._folder / target.name / "samples" / pick(rng, self._samples[target.name])
        folder = self._folder / "inputs" / f"{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = folder / sample.name
        # a file that lies in a folder of its own needs what is beside it
        if sample.is_dir() or sample.parent.name != "samples":
            shutil.copytree(
                sample if sample.is_dir() else sample.parent, path if sample.is_dir() else folder, dirs_exist_ok=True
            )
        else:
            shutil.copyfile(sample, path)
        for _ in range(1 + (rng.random() < 0.25)):
            # who knows the format may not know what another made of it
            with suppress(Exception):
                pick(rng, target.mutators)(path, rng)
        return path


def replay(path: Path) -> Verdict:
    """Use an input that was kept, in a child."""
    name = path.parent.parent.name.partition("-")[2]
    target = next(target for target in TARGETS if target.name == name)

    def work(report: IO[str]) -> None:
        print(json.dumps(limited(lambda: judge(path, target.use, Escapes(), peak_bytes))), file=report)

    child = Child(work)
    found = [Verdict(*json.loads(line)) for line in child.lines()]
    return child.death or found[0]


def make_decoys(folder: Path) -> None:
    """Files outside an input that it may try to lead to."""
    for suffix in ("", ".tif", ".raw", ".h5", ".zarr"):
        (folder / f"{DECOY}{suffix}").write_bytes(bytes(1000))


# --- children ---


class Child:
    """A forked process that computes and reports, a line for each result."""

    def __init__(self, work: Callable[[IO[str]], None]) -> None:
        self.death: Verdict | None = None
        reader, writer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(reader)
            status = 1
            try:
                quieten()
                with os.fdopen(writer, "w") as report:
                    work(report)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        self._reader = reader

    def lines(self) -> Iterator[str]:
        """Yield lines until the child is gone; then `death` says how, if it was not in peace."""
        import select

        rest = b""
        is_killed = False
        while True:
            ready, _, _ = select.select([self._reader], [], [], WALL_SECONDS)
            if not ready:
                os.kill(self._pid, signal.SIGKILL)
                is_killed = True
            received = os.read(self._reader, 1 << 16)
            if not received:
                break
            *complete, rest = (rest + received).split(b"\n")
            yield from (line.decode() for line in complete)
        os.close(self._reader)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if is_killed or code == -signal.SIGXCPU:
            self.death = Verdict("hang", f"more than {WALL_SECONDS if is_killed else CPU_SECONDS} s")
        elif code:
            self.death = Verdict("crash", f"ended with {signal.Signals(-code).name if code < 0 else code}")


def in_child(work: Callable[[IO[str]], None]) -> None:
    """Do something that may start threads, which must not be there when other children are forked."""
    child = Child(work)
    list(child.lines())
    if child.death:
        raise RuntimeError(child.death.detail)


def quieten() -> None:
    """What libraries say on the way is of no interest, nor is what is left of a dead process."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.environ.get("FUZZ_TRACE"):
        faulthandler.enable()
    else:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)


def limited(use: Callable[[], Verdict]) -> Verdict:
    """Use an input with the limits that hold for one."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    pages = Path("/proc/self/statm")
    if pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))
    return use()


def peak_bytes() -> int:
    """The largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


if __name__ == "__main__":
    sys.exit(main())
