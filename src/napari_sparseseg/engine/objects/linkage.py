"""Average linkage: unite what belongs together on the mean, the surest first."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.int64]
_Link = tuple[int, int, bool]  # sum and number of the opinions across, and whether the two touch


def average_linkage(
    n: int, pairs: _Numbers, sums: _Numbers, counts: _Numbers, touches: npt.NDArray[np.bool_], threshold: float
) -> _Numbers:
    """The lowest member of the cluster that each of `n` nodes ends up in.

    An edge, `pairs` (m, 2), each once, holds `counts` (m,) opinions that add up to `sums` (m,): whole numbers, so that
    no order changes a mean. Of all clusters that touch, the two with the highest mean of all opinions across unite, as
    long as it is at least `threshold`. Source: average linkage of Bailoni et al. 2022, arXiv:1906.11713.
    """
    links: list[dict[int, _Link]] = [{} for _ in range(n)]
    waiting: list[tuple[float, int, int]] = []

    def connect(a: int, b: int, link: _Link) -> None:
        links[a][b] = links[b][a] = link
        total, count, touch = link
        if touch and total >= threshold * count > 0:
            heappush(waiting, (-total / count, min(a, b), max(a, b)))

    for (a, b), *link in zip(pairs.tolist(), sums.tolist(), counts.tolist(), touches.tolist(), strict=True):
        connect(a, b, (link[0], link[1], link[2]))
    parents = list(range(n))
    while waiting:
        merit, a, b = heappop(waiting)
        if b not in links[a] or -links[a][b][0] / links[a][b][1] != merit:
            continue  # one of them has changed since
        into, gone = (a, b) if len(links[a]) >= len(links[b]) else (b, a)
        parents[gone] = into
        del links[into][gone], links[gone][into]
        for other, (total, count, touch) in links[gone].items():
            del links[other][gone]
            more, many, touched = links[into].get(other, (0, 0, False))
            connect(into, other, (total + more, count + many, touch or touched))
        links[gone] = {}
    roots = [root_of(parents, number) for number in range(n)]
    _, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
    lowest: _Numbers = first[inverse].astype(np.int64)
    return lowest


def root_of(parents: list[int], number: int) -> int:
    """Follow parents to the one that is its own, and shorten the way."""
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number
