"""Images and models that the tests of large predictions share; workers of clusters import this as well."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np

SHAPE = (8, 40, 520)
"""Five shards of the smallest size in a row, and two coarser levels of resolution."""


def make_image(seed=0, shape=SHAPE):
    """Noise with brighter stripes, uint8."""
    image = np.random.default_rng(seed).integers(0, 100, shape).astype(np.uint8)
    image[..., ::7] += 100
    return image


def paint(image):
    """Two classes, 3 and 7, on one slice."""
    annotation = np.zeros(image.shape, np.uint8)
    annotation[4, :, :100] = np.where(image[4, :, :100] >= 100, 7, 3)
    return annotation


def digest(folder):
    """Names and bytes of all files in a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Slow:
    """An image whose every reading takes a moment."""

    def __init__(self, image, seconds):
        self._image, self._seconds = image, seconds
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, index):
        time.sleep(self._seconds)
        return self._image[index]


class Deadly:
    """An image that kills, once, the process that reads far inside it; the process that made it is spared."""

    def __init__(self, image, flag):
        self._image, self._flag, self._maker = image, Path(flag), os.getpid()
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, index):
        if os.getpid() != self._maker and index[-1].start > 200 and not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._image[index]
