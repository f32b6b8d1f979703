"""Progress bars for terminals and notebooks."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Any


def open_bar(title: str, wanted: bool | None) -> Any:
    """A tqdm bar from 0 to 1; `wanted` None shows it on a terminal and in a notebook only."""
    from tqdm.auto import tqdm

    if wanted is None:
        wanted = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(
        total=1.0,
        desc=title,
        disable=not wanted,
        bar_format="{desc} {percentage:3.0f}% {bar:24}{postfix}",
        ncols=get_terminal_size((100, 24)).columns,
    )


def move_bar(bar: Any, share: float, text: str) -> None:
    """Set the bar to `share` (0..1) with a text behind it."""
    bar.set_postfix_str(text, refresh=False)
    bar.update(max(0.0, min(1.0, share) - bar.n))


def duration(seconds: float) -> str:
    """Seconds as people read them: `48 s`, `3:05 min`."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02d} min"
