"""Progress for those who watch, silence for scripts, and Ctrl-C."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import time

import pytest
from command_line import COMMAND, ONE_THREAD, SMALL

fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals and POSIX signals")


class Watched:
    """The command with its error output on a terminal."""

    def __init__(self, *arguments, columns=80):
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
        self.process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=slave,
            stdin=slave,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, pattern, seconds=60):
        """Read what is shown until the pattern is met, or the command ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if re.search(pattern, self.seen):
                return self.seen
            if not select.select([self._master], [], [], 1)[0]:
                continue
            try:
                self.seen += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        assert re.search(pattern, self.seen), self.seen
        return self.seen

    def finish(self):
        """Read to the end; the exit code, and standard output."""
        while True:
            try:
                piece = os.read(self._master, 4096)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece.decode(errors="replace")
        os.close(self._master)
        stdout = self.process.communicate(timeout=120)[0]
        return self.process.returncode, stdout


def test_whoever_watches_sees_progress_with_the_time_left(files, tmp_path):
    arguments = ["train", files.image, files.annotation, "-o", tmp_path / "m", *SMALL, "--seconds", "60"]
    watched = Watched(*arguments)
    code, stdout = watched.finish()
    assert code == 0
    assert "Learning for 60 s or 3 steps from 1 painted volume." in watched.seen
    assert re.search(r"Learning +\d+%.*(step|pixel classifier).*left", watched.seen)
    assert all(len(line) <= 80 for line in re.split("[\r\n]", watched.seen) if "%" in line)
    assert "Learning for" not in stdout
    assert "Model" in stdout


def test_scripts_see_results_only(files):
    assert "Model" in files.printed  # and nothing on standard error
    assert "%" not in files.printed
    assert "\x1b" not in files.printed


# one of the two on a terminal that does not tell its size
@pytest.mark.parametrize(("keep", "columns"), [(False, 80), (True, 0)], ids=["new", "overwrite"])
def test_ctrl_c_while_learning_leaves_no_half_model(files, tmp_path, keep, columns):
    model = tmp_path / "m.safetensors"
    if keep:
        model.write_bytes(files.model.read_bytes())
    arguments = ["train", files.image, files.annotation, "-o", model, "--seconds", "120", "--overwrite"]
    watched = Watched(*arguments, columns=columns)
    watched.read_until(r"Learning +\d+%.*left")
    watched.process.send_signal(signal.SIGINT)
    code, stdout = watched.finish()
    assert code == 130
    assert stdout == ""
    assert watched.seen.rstrip().endswith("Interrupted.")
    assert "Traceback" not in watched.seen
    assert [p.name for p in tmp_path.iterdir()] == (["m.safetensors"] if keep else [])
    assert not keep or model.read_bytes() == files.model.read_bytes()
