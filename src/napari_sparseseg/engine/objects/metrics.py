"""Agreement of objects with true ones: average precision, variation of information, adapted Rand error.

Id 0 is no object. Voxels that are not `known` are left out before anything is counted. Both arrays have one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.metrics import adapted_rand_error, variation_of_information

_Ids = npt.NDArray[np.integer]
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """How well objects fit to true ones.

    `n_found` and `n_true` count objects. `voi_split` and `voi_merge` (bits) say how much of the true objects is cut
    apart, and how much of several is one: conditional entropies H(found | true) and H(true | found). `rand_error` is
    1 - F1 over pairs of voxels. These three look at voxels of true objects only, as in the CREMI challenge, and are NaN
    where there are none. `overlaps` (n,) are the intersections over union of `pairs` (n, 2) of a true and a found
    object, both numbered from 0, that have voxels in common.
    """

    n_found: int
    n_true: int
    voi_split: float
    voi_merge: float
    rand_error: float
    overlaps: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.integer]

    def average_precision(self, overlap: float = 0.5) -> float:
        """Share of matched objects among all, TP / (TP + FP + FN), 0..1; NaN where there are no objects at all.

        A true and a found object match if their intersection over union is at least `overlap`; as many are matched as
        can be, one to one. Source of the measure: Schmidt et al. 2018, arXiv:1806.03535.
        """
        near = self.pairs[self.overlaps >= overlap]
        matches = 0
        if len(near):
            ones = np.ones(len(near), np.int8)
            graph = csr_array((ones, (near[:, 0], near[:, 1])), shape=(self.n_true, self.n_found))
            matches = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
        total = self.n_true + self.n_found - matches
        return matches / total if total else _NAN


def score_objects(found: _Ids, truth: _Ids, known: npt.NDArray[np.bool_] | None = None) -> ObjectScores:
    """Compare objects with true ones, by their ids; which numbers they have does not matter."""
    if known is not None:
        found, truth = found[known], truth[known]
    n_found, found_rows = _numbered(found)
    n_true, true_rows = _numbered(truth)
    ones = np.ones(len(true_rows))
    table = coo_array((ones, (true_rows, found_rows)), shape=(n_true + 1, n_found + 1)).tocsr()
    common = table[1:, 1:].tocoo()
    union = table.sum(1)[1:][common.row] + table.sum(0)[1:][common.col] - common.data
    split, merge, rand_error = _partition_scores(table[1:])
    return ObjectScores(
        n_found, n_true, split, merge, rand_error, common.data / union, np.stack([common.row, common.col], 1)
    )


def _numbered(ids: _Ids) -> tuple[int, npt.NDArray[np.intp]]:
    """How many objects there are, and of each voxel the number of its object, 1..n, or 0."""
    values, numbers = np.unique(np.append(ids.ravel(), 0), return_inverse=True)
    return len(values) - 1, numbers[:-1]


def _partition_scores(table: csr_array) -> tuple[float, float, float]:
    """Split, merge and Rand error from the common voxels of each true (row) and found object (column)."""
    n_voxels = table.sum()
    if not n_voxels:
        return _NAN, _NAN, _NAN
    nothing = np.zeros(0)  # skimage compares the shapes of the images that the table takes the place of
    split, merge = variation_of_information(nothing, nothing, table=table / n_voxels)  # type: ignore[no-untyped-call]
    with np.errstate(divide="ignore", invalid="ignore"):  # precision and recall where no two voxels are of one object
        rand_error = adapted_rand_error(table=table)[0]  # type: ignore[no-untyped-call]
    return float(split), float(merge), float(np.nan_to_num(rand_error, nan=0.0))
