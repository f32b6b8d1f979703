"""What arrays are made of that read others, so that a change of these is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from napari_sparseseg.storage._derived import Range

Ranges = tuple[Range, ...]


def _same(ranges: Ranges) -> Ranges:
    return ranges


class Origin(NamedTuple):
    """`sources`: the arrays below, or the path or URL of a file; `view`: how they are looked at, as JSON holds it.

    `part` says which voxels of each array below are read for a block, from first to last along its axes. Arrays that
    are made of others have one as `origin`.
    """

    sources: tuple[Any, ...]
    view: Any = None
    part: Callable[[Ranges], Ranges] = _same
