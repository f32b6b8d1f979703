"""A kind of file that strangers may send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzing.mutators import Mutator


class Target(NamedTuple):
    """How valid inputs are made, changed and used.

    `make` writes valid inputs into a folder and returns what is opened, each a file or a folder. `mutators` change an
    input in place; one that is named twice comes twice as often. `use` opens an input and does with it what users do.
    """

    name: str
    make: Callable[[Path], Sequence[Path]]
    mutators: tuple[Mutator, ...]
    use: Callable[[Path], object]
