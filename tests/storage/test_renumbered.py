"""Labels under other numbers."""

from __future__ import annotations

import numpy as np

from napari_sparseseg.storage.renumbered import Renumbered


def test_each_number_is_what_the_table_says():
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint32)
    table = np.array([0, 7, 0, 9], np.uint16)
    found = Renumbered(labels, table)
    assert (found.shape, found.dtype) == (labels.shape, np.uint16)
    np.testing.assert_array_equal(found[1:4, :, ::2], table[labels[1:4, :, ::2]])
    np.testing.assert_array_equal(np.asarray(found), table[labels])
