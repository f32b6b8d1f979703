"""Where journals lie: one for each image that was worked on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from napari_sparseseg.storage.journal import FileJournal

JOURNALS_VARIABLE = "SPARSESEG_JOURNALS"
"""Environment variable that names the folder of the journals, instead of the user's data folder."""


def journal_folder() -> Path:
    """The folder, which may not be there yet."""
    named = os.environ.get(JOURNALS_VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("napari-sparseseg") / "journals"


def new_journal(name: str, on_error: Callable[[str], object]) -> FileJournal:
    """A journal named for an image and the time; its file appears with the first stroke."""
    folder = journal_folder()
    with suppress(OSError):  # the journal says so with the first stroke, and tries again
        folder.mkdir(parents=True, exist_ok=True)
    return FileJournal(_unused(folder, name), on_error=on_error)


def _unused(folder: Path, name: str) -> Path:
    word = re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "image"
    stem = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = folder / f"{stem}.journal", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.journal"
    return path
