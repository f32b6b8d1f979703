"""Progress bars for terminals and notebooks."""

from __future__ import annotations

import os
import sys
from typing import Any

_SIZE = (100, 24)  # of a terminal that does not tell
_TEXT_WIDTH = 67  # of title, percentage and "step 12345, loss 0.123, Dice ~0.99, 10:00 min left"


def open_bar(title: str, wanted: bool | None) -> Any:
    """A tqdm bar from 0 to 1; `wanted` None shows it on a terminal and in a notebook only."""
    from tqdm.auto import tqdm

    if wanted is None:
        wanted = _is_notebook() or sys.stderr.isatty()
    columns, rows = _terminal_size()
    return tqdm(
        total=1.0,
        desc=title,
        disable=not wanted,
        # the text stands in for the unit: tqdm would put a comma before a postfix
        unit="",
        bar_format=f"{{desc}} {{percentage:3.0f}}% {{bar:{_bar_width(columns)}}} {{unit}}",
        ncols=columns,
        nrows=rows,
    )


def _is_notebook() -> bool:
    """As tqdm.auto finds out; that ipykernel is loaded says nothing, napari's console does that too."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


def move_bar(bar: Any, share: float, text: str) -> None:
    """Set the bar to `share` (0..1) with a text behind it."""
    bar.unit = text
    bar.update(max(0.0, min(1.0, share) - bar.n))


def duration(seconds: float) -> str:
    """Seconds as people read them: `48 s`, `3:05 min`, `2:10 h`."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def _bar_width(columns: int) -> int:
    """Short enough to leave room for the text, whose end is the time that is left."""
    return max(4, min(24, columns - _TEXT_WIDTH))


def _terminal_size() -> tuple[int, int]:
    """Columns and rows of the terminal behind standard error, where the bar is; never 0, at which tqdm shows nothing.

    Standard output may be a file meanwhile, so `shutil.get_terminal_size` looks at the wrong one.
    """
    try:
        columns, rows = os.get_terminal_size(sys.__stderr__.fileno())  # type: ignore[union-attr]  # None is caught
    except (AttributeError, ValueError, OSError):
        columns, rows = 0, 0
    return columns or _SIZE[0], rows or _SIZE[1]
