"""What arrays are made of that read others, so that a change of these is noticed."""

from __future__ import annotations

from typing import Any, NamedTuple


class Origin(NamedTuple):
    """`sources`: the arrays below, or the path or URL of a file; `view`: how they are looked at, as JSON holds it.

    Arrays that are made of others have one as `origin`.
    """

    sources: tuple[Any, ...]
    view: Any = None
