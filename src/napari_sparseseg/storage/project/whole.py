"""Predictions of all of an image in a project: a complete one, and one under way that will take its place.

    whole/done/   0000.ome.zarr, one for each time point, and the model that made them
    whole/next/   the same of the one under way

The complete one stays until the one under way is complete. A time point is complete once its result has a note.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import DROPPED, Disk, drop_folder, replace_file, set_aside
from napari_sparseseg.storage.unfinished import RESULT_NOTE, Unfinished, result_note

_DONE, _NEXT, _MODEL = "done", "next", "model.safetensors"


class WholeFolder:
    """The folder of both, for an image of `n_frames` time points; it need not exist. Methods raise OSError."""

    def __init__(self, path: Path, n_frames: int, disk: Disk) -> None:
        self.path, self.n_frames = path, n_frames
        self._disk = disk

    @property
    def model(self) -> Path:
        """The model of what is under way."""
        return self.path / _NEXT / _MODEL

    @property
    def targets(self) -> list[Path]:
        """Paths of the results under way, one for each time point."""
        return self._frames(_NEXT)

    @property
    def complete(self) -> tuple[Path, ...]:
        """The OME-Zarrs of all time points; none if they are not complete."""
        found = self._frames(_DONE)
        return tuple(found) if all(map(result_note, found)) else ()

    @property
    def left(self) -> list[int]:
        """Numbers of the time points of what is under way that are not complete."""
        return [number for number, path in enumerate(self.targets) if not result_note(path)]

    @property
    def share(self) -> float | None:
        """How much of what is under way is finished, 0..1; None if nothing is under way."""
        if not self.model.is_file():
            return None
        shares = [1.0 if result_note(path) else Unfinished.share_of(path) or 0.0 for path in self.targets]
        return sum(shares) / self.n_frames

    def check(self) -> None:
        """Raise `ProjectError` if one of the two, or a prediction in them, is a link."""
        _refuse_link(self.path)
        for part in (_DONE, _NEXT):
            for path in (self.path / part, self.path / part / _MODEL, *self._frames(part)):
                _refuse_link(path)
            for path in self._frames(part):
                _refuse_link(path / RESULT_NOTE)
        for target in self.targets:
            for path in Unfinished.files_of(target):
                _refuse_link(path)

    def check_unfinished(self) -> None:
        """Do the same for each file under way; there may be many, so not on the GUI's thread."""
        for folder, names, files in os.walk(self.path / _NEXT):
            for name in (*names, *files):
                _refuse_link(Path(folder, name))

    def begin(self, model: bytes) -> None:
        """Begin again, with this model; what was under way is dropped."""
        drop_folder(self._disk, self.path / _NEXT)
        for folder in (self.path, self.path / _NEXT):
            self._disk.make_folder(folder)
        replace_file(self._disk, self.model, model)

    def finish(self) -> None:
        """Put what was under way, now complete, in the place of the older one."""
        older = set_aside(self._disk, self.path / _DONE)
        self._disk.rename(self.path / _NEXT, self.path / _DONE)
        self._disk.sync_folder(self.path)
        with suppress(OSError):  # somebody may still read it; removed another time
            self._disk.remove(older)

    def clean(self) -> None:
        """Remove older ones whose removal was interrupted; not to be called while one may be removed here."""
        for dropped in self.path.glob(f"*{DROPPED}"):
            with suppress(OSError):
                self._disk.remove(dropped)

    def _frames(self, part: str) -> list[Path]:
        return [self.path / part / f"{number:04}.ome.zarr" for number in range(self.n_frames)]


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ProjectError(f"{path} is a link, which no project has; remove it")
