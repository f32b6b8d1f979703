"""Kills the program while somebody paints, cuts its power, and looks for every stroke that was acknowledged.

    python benchmarks/crash.py --kills 100

A child process paints through `LiveSegmenter` on a project, while folds, models and predictions are written all the
time. It is killed with SIGKILL at random moments, from its start on; now and then it is killed while it migrates a
project of an older version. After each kill the project is opened and compared with everything that was acknowledged.
Then the writes of whole runs are recorded and replayed up to random moments, with everything dropped that had not been
synced, or with a random part of it kept. The last line is JSON; `strokes_lost` and `projects_unopenable` should be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch

import napari_sparseseg.live.loop  # noqa: F401
from crashing import painter
from napari_sparseseg import Project
from napari_sparseseg.storage.power_loss import Medium, RecordingDisk

PATIENCE = 120.0  # seconds; who is slower hangs


def main() -> None:
    """Kill, cut the power, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--power-losses", type=int, default=None, help="default: as many as kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="copy projects that went wrong into this folder")
    arguments = parser.parse_args()

    bench = Bench(np.random.default_rng(arguments.seed), arguments.keep)
    n_losses = arguments.kills if arguments.power_losses is None else arguments.power_losses
    with tempfile.TemporaryDirectory() as folder:
        bench.kill(Path(folder), arguments.kills)
        bench.cut_power(Path(folder), n_losses)
    print(json.dumps(bench.figures))
    sys.exit(1 if bench.lost or bench.unopenable else 0)


class Bench:
    """Counts what happened."""

    def __init__(self, rng: np.random.Generator, keep: Path | None) -> None:
        self.rng = rng
        self.keep = keep
        self.kills, self.losses, self.acknowledged, self.lost, self.unopenable = 0, 0, 0, 0, 0
        self.during: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "power_losses": self.losses,
            "strokes_acknowledged": self.acknowledged,
            "strokes_lost": self.lost,
            "projects_unopenable": self.unopenable,
            "killed_during": dict(self.during),
            "problems_told": dict(self.problems),
        }

    # --- kills ---

    def kill(self, folder: Path, n_kills: int) -> None:
        """One project that is killed and gone on with again and again; a new one now and then."""
        project, known = folder / "0.sparseseg", None
        while self.kills < n_kills:
            if self.rng.random() < 0.1:
                project, known = folder / f"{self.kills}.sparseseg", None
            if known is not None and self.rng.random() < 0.15:
                self.kill_migration(project, known)
                continue
            known = self.kill_painting(project, known)
            print(f"{self.kills} kills, {self.acknowledged} strokes, {self.lost} lost, {self.unopenable} unopenable")

    def kill_painting(self, project: Path, known: int | None) -> int | None:
        seed = int(self.rng.integers(2**31))
        seconds = float(self.rng.choice([self.rng.uniform(0, 0.5), self.rng.uniform(0.5, 3), self.rng.uniform(3, 8)]))
        events = run_and_kill(lambda tell: painter.paint(project, seed, tell), seconds)
        self.kills += 1
        self.during.update(under_way(events))
        for event in events:
            if event["event"] in ("failed", "crashed"):
                print("the child failed:", event)
                self.problems[event["event"]] += 1
        return self.compare(project, Told.of(events, known))

    def kill_migration(self, project: Path, known: int) -> None:
        older = project.with_name(f"older-{self.kills}.sparseseg")
        shutil.copytree(project, older)
        painter.make_older(older)

        def migrate(tell: painter.Tell) -> None:
            painter.know_older()
            tell("begin", what="migration")
            Project.open(older).close()
            tell("end", what="migration")

        events = run_and_kill(migrate, float(self.rng.uniform(0, 0.15)))
        self.kills += 1
        self.during.update(under_way(events))
        self.compare(older, Told([known]))

    def compare(self, project: Path, told: Told) -> int | None:
        """Open the project, and count what is missing; the checksum that was found."""
        found = ask(lambda: look_at(project))
        self.acknowledged += told.n_acknowledged
        self.problems.update({str(problem)[-60:]: 1 for problem in found.get("problems", ())})
        if "error" in found:
            self.unopenable += 1
            self.complain(project, found["error"])
            return None
        n_lost = told.n_lost(found["checksum"])
        if n_lost:
            self.lost += n_lost
            self.complain(project, f"{n_lost} strokes are lost; {found}")
        checksum: int | None = found["checksum"]
        return checksum

    def complain(self, project: Path, what: str) -> None:
        print(f"WRONG: {project.name}: {what}")
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            shutil.copytree(project, self.keep / f"{len(list(self.keep.iterdir()))}-{project.name}")

    # --- power ---

    def cut_power(self, folder: Path, n_losses: int) -> None:
        """Record runs, and look at what is left of each at some moments."""
        while self.losses < n_losses:
            n_cuts = min(25, n_losses - self.losses)
            seed = int(self.rng.integers(2**31))
            where = folder / f"power-{seed}"
            where.mkdir()
            results = ask(lambda where=where, seed=seed, n_cuts=n_cuts: record_and_cut(where, seed, n_cuts))
            if "error" in results:
                raise SystemExit(f"the recorded run failed: {results['error']}")
            self.losses += n_cuts
            for cut in results["cuts"]:
                self.acknowledged += cut["acknowledged"]
                self.lost += cut["lost"]
                self.unopenable += bool(cut["error"])
                if cut["lost"] or cut["error"]:
                    self.complain(Path(cut["project"]), f"after a power failure: {cut}")
            print(f"{self.losses} power losses, {self.lost} lost, {self.unopenable} unopenable")
            shutil.rmtree(where)


class Told:
    """What was told before the end.

    `checksums` are those of the state before the first act (the latter of two, where there may have been no project
    yet) and after each act, whether it was finished or not; acts up to `n_acknowledged` were acknowledged.
    """

    def __init__(self, checksums: list[int | None], n_acknowledged: int = 0, base: int = 0) -> None:
        self.checksums = checksums
        self.n_acknowledged = n_acknowledged
        self.base = base

    @classmethod
    def of(cls, events: list[dict[str, Any]], known: int | None) -> Told:
        """Read what a child told; `known` is what was there before, None if nothing was."""
        # a new project may have been made before the child could tell
        told = cls([known]) if known is not None else cls([None, painter.EMPTY], base=1)
        for event in events:
            if event["event"] == "start":
                if known is not None and event["checksum"] != known:
                    raise SystemExit("the child opened something else than was there")
                told = cls([known, event["checksum"]], base=1)
            elif event["event"] == "will":
                told.checksums.append(event["checksum"])
            elif event["event"] == "ack":
                told.n_acknowledged = len(told.checksums) - 1 - told.base
        return told

    def n_lost(self, found: int | None) -> int:
        """How many acknowledged acts are missing in what was found."""
        first = self.base + self.n_acknowledged if self.n_acknowledged else 0
        if found in self.checksums[first:]:
            return 0
        if found in self.checksums:
            return first - max(i for i in range(first) if self.checksums[i] == found)
        return max(1, self.n_acknowledged)


def under_way(events: list[dict[str, Any]]) -> set[str]:
    """What had begun and not ended; "strokes" if that was all."""
    names = [event["what"] for event in events if event["event"] == "begin"]
    open_ones = {
        name
        for name in set(names)
        if names.count(name) > sum(event.get("what") == name for event in events if event["event"] == "end")
    }
    has_started = any(event["event"] in ("start", "begin") for event in events)
    return open_ones or ({"strokes"} if has_started else {"opening"})


def look_at(project: Path) -> dict[str, Any]:
    painter.know_older()
    return painter.look(project)


def record_and_cut(folder: Path, seed: int, n_cuts: int) -> dict[str, Any]:
    """Paint on a disk that records, then look at what is left at random moments."""
    rng = np.random.default_rng(seed)
    written = folder / "written"
    written.mkdir()
    disk = RecordingDisk(written)
    painter.paint(
        written / "p.sparseseg", seed, lambda event, /, **v: disk.mark({"event": event, **v}), disk=disk, seconds=3
    )
    cuts = []
    for number in range(n_cuts):
        end = int(rng.integers(1, len(disk.events) + 1))
        medium = Medium()
        medium.play(disk.events[:end])
        left = folder / f"left-{number}"
        left.mkdir()
        medium.leave(left, rng if number % 2 else None)
        told = Told.of([event.mark for event in disk.events[:end] if event.op == "mark"], None)
        later = [event.mark for event in disk.events[end:] if event.op == "mark" and event.mark["event"] == "will"]
        told.checksums += [event["checksum"] for event in later[:1]]
        found = painter.look(left / "p.sparseseg")
        lost = 0 if "error" in found else told.n_lost(found["checksum"])
        cuts.append(
            {
                "acknowledged": told.n_acknowledged,
                "lost": lost,
                "error": found.get("error", ""),
                "project": str(left / "p.sparseseg"),
                "cut": end,
            }
        )
        if not lost and "error" not in found:
            shutil.rmtree(left)
    return {"cuts": cuts}


# --- children ---


def run_and_kill(work: Callable[[painter.Tell], None], seconds: float) -> list[dict[str, Any]]:
    """Do something in a child that is killed after some seconds; what it told until then."""
    process, reader = fork(lambda write: work(painter.printer(write)))
    told = read_until(reader, time.monotonic() + seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    told += read_until(reader, time.monotonic() + PATIENCE)
    os.close(reader)
    return [json.loads(line) for line in told.split(b"\n")[:-1]]


def ask(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Have something found out by a child, so that this process starts no threads of zarr or torch."""
    process, reader = fork(lambda write: write(json.dumps(work()).encode()))
    told = read_until(reader, time.monotonic() + PATIENCE)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(reader)
    found: dict[str, Any] = json.loads(told) if told else {"error": "it hung or crashed"}
    return found


def fork(work: Callable[[Callable[[bytes], object]], object]) -> tuple[int, int]:
    """Begin a child; its process id, and where it can be heard."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        try:
            torch.set_num_threads(1)
            work(lambda content: os.write(writer, content))
        except BaseException as error:  # noqa: BLE001 - it is told, and the child ends
            traceback.print_exc()
            os.write(writer, json.dumps({"event": "crashed", "error": repr(error)}).encode() + b"\n")
        os._exit(0)
    os.close(writer)
    return process, reader


def read_until(reader: int, deadline: float) -> bytes:
    """All that is heard until then, or until the child has ended."""
    heard = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            piece = os.read(reader, 2**16)
            if not piece:
                return heard
            heard += piece
    return heard


if __name__ == "__main__":
    main()
