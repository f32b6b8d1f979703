"""Average linkage: the same as looking at all pairs of clusters again after each union."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg.engine.objects.linkage import average_linkage


def random_graph(n, seed):
    """Edges of up to `n` nodes; no two means are the same."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(np.triu(rng.random((n, n)) < 0.5, 1))
    counts = rng.integers(1, 50, len(pairs))
    sums = np.rint(counts * rng.random(len(pairs)) * 1e9).astype(np.int64)
    return pairs, sums, counts, rng.random(len(pairs)) < 0.7


def by_looking_at_all(n, pairs, sums, counts, touches, threshold):
    table = np.zeros((3, n, n))
    for (a, b), *values in zip(pairs, sums, counts, touches, strict=True):
        table[:, a, b] = table[:, b, a] = values
    clusters = [[i] for i in range(n)]
    while True:
        best = (threshold, None)
        for i, first in enumerate(clusters):
            for j in range(i):
                total, count, touch = table[np.ix_(range(3), first, clusters[j])].sum((1, 2))
                if touch and count and total / count >= best[0]:
                    best = (total / count, (i, j))
        if best[1] is None:
            return np.array([min(next(c for c in clusters if i in c)) for i in range(n)])
        i, j = best[1]
        clusters[j] += clusters.pop(i)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 10**6), threshold=st.floats(0.1, 0.9))
def test_it_unites_what_looking_at_all_pairs_unites(n, seed, threshold):
    graph = random_graph(n, seed)
    np.testing.assert_array_equal(
        average_linkage(n, *graph, threshold * 1e9), by_looking_at_all(n, *graph, threshold * 1e9)
    )


def test_a_broad_contact_outweighs_a_small_one():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    sums, counts = np.array([9, 10, 8]), np.array([10, 100, 10])
    found = average_linkage(3, pairs, sums, counts, np.ones(3, bool), 0.5)
    assert found.tolist() == [0, 0, 2]  # alone, the last two would belong together
