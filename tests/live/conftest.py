"""Live segmenters that are closed, threads and all, when a test ends."""

from __future__ import annotations

import threading

import pytest
import torch
from livekit import PATIENCE, QUICK, SMALL, Listener, make_image, make_truth

from napari_sparseseg.live.live_segmenter import LiveSegmenter


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small volumes gain nothing from several threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_live():
    """Make live segmenters with a small model; they are closed, and their threads must be gone, when the test ends."""
    made = []

    def make(**options):
        live = LiveSegmenter(**{"device": "cpu", "model": SMALL, "training": QUICK, **options})
        live.heard = Listener(live)
        made.append(live)
        return live

    yield make
    for live in made:
        live.close()
    for thread in threading.enumerate():
        if thread.name == "sparseseg compute":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def live(make_live):
    return make_live()


@pytest.fixture
def truth():
    return make_truth()


@pytest.fixture
def image(truth):
    return make_image(truth)
