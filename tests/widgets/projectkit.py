"""What the tests of projects and docks share: the image they paint on, a model that learns it in a moment, waits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_sparseseg._types import Box
from napari_sparseseg.config import ModelConfig, TrainingConfig

SHAPE = (6, 48, 48)
LEFT, RIGHT = Box((3, 4, 4), (4, 20, 20)), Box((3, 28, 28), (4, 44, 44))
SMALL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
QUICK = TrainingConfig(warm_start_steps=20, patch_voxels=2048, check_every=5)
PLUGIN = ("napari-sparseseg", "Sparse Segmentation")


def cells() -> Any:
    """Voxels that are brighter at the right, uint8 of `SHAPE`."""
    voxels = np.random.default_rng(1).integers(0, 90, SHAPE).astype(np.uint8)
    voxels[:, 26:46, 26:46] += 120
    return voxels


def close_docks(docks: list[Any]) -> None:
    """Close docks that are in no window, as napari closes those in one, and let go of them."""
    for dock in docks:
        dock.session.close()
        dock.close()
        dock.deleteLater()
    docks.clear()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()


def messages() -> list[str]:
    """What napari has told so far."""
    return [record.message for record in notification_manager.records]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Let the window live until something is the case; fails if that does not come."""
    for _ in range(int(seconds * 100)):
        if condition():
            return
        QTest.qWait(10)
    pytest.fail(f"it did not happen; {messages()}")
