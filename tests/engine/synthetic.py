"""Small volumes, paint and networks that the tests of the engine share."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from napari_sparseseg._types import Annotation, Box
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume

SMALL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
QUICK = TrainingConfig(warm_start_steps=30, patch_voxels=2048, check_every=5)
CUBES = (1.0, 1.0, 1.0)


class AsItIs:
    """Intensities that are not normalised."""

    @staticmethod
    def apply(image):
        return image.astype(np.float32)


class Recorder:
    """A volume that remembers which boxes were read."""

    def __init__(self, image):
        self._volume = ArrayVolume(image)
        self.shape, self.n_channels = self._volume.shape, self._volume.n_channels
        self.boxes = []

    def read(self, box):
        self.boxes.append(box)
        return self._volume.read(box)


def make_noise(shape, seed=0, sigma=0.0):
    """Random voxels, float32, smoothed where `sigma` says so."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    if sigma:
        noise = ndimage.gaussian_filter(noise, sigma, mode="mirror")
    return (noise / (noise.std() or 1)).astype(np.float32)


def make_blobs(shape, seed=0, contrast=2.0):
    """An image that is easy to segment, and its truth: 1 outside of blobs, 2 inside."""
    truth = (1 + (make_noise(shape, seed, sigma=3.0) > 0.4)).astype(np.uint8)
    return contrast * truth + make_noise(shape, seed + 1), truth


def make_touching(shape, seed=0):
    """Objects that touch: an image with a dark line between them, classes (1 outside, 2 inside) and ids 1, 2, ..."""
    cell, gap = 9, 2
    number = np.indices(shape)[1:] // cell
    ids = 1 + number[0] * (shape[2] // cell + 1) + number[1]
    border = (np.indices(shape)[1:] % cell == 0).any(0)
    outside = np.indices(shape)[1] >= shape[1] - gap
    truth = np.where(outside, 1, 2).astype(np.uint8)
    image = np.where(outside, 0.0, np.where(border, 1.5, 3.0)) + 0.3 * make_noise(shape, seed)
    return image.astype(np.float32), truth, np.where(outside, 0, ids).astype(np.int32)


def paint_planes(truth, *planes):
    """The truth on the named `(axis, index)` planes, 0 elsewhere."""
    annotation = np.zeros_like(truth)
    for axis, index in planes:
        on_plane = (*(slice(None),) * axis, index)
        annotation[on_plane] = truth[on_plane]
    return annotation


def make_annotation(codes, allowed=None, weight=None, objects=None):
    """Painted voxels of an array of codes, and maybe one of ids of objects."""
    codes = np.asarray(codes)
    volume = ArrayVolume(np.zeros(codes.shape))
    return read_annotation(codes, volume, allowed=allowed, weight=weight, objects=objects)


def make_features(image, spacing=CUBES, scales=SMALL.scales, **options):
    """Features of an image (Z, Y, X), intensities taken as they are; or of a volume."""
    volume = image if hasattr(image, "read") else ArrayVolume(image)
    spec = ModelSpec(SMALL.with_changes(scales=scales), spacing, volume.n_channels, (False, False, False))
    return FeatureMap(volume, spec.bank, AsItIs(), **options)


def make_network(
    spacing=CUBES, n_classes=3, config=SMALL, flat=(False, False, False), context=0.5, seed=0, offsets=(), heads=None
):
    """A network whose outputs are not near uniform."""
    network = ModelSpec(config, spacing, 1, flat).build(n_classes, seed, heads or Heads(tuple(offsets)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
        if offsets:
            network.affinity.weight.normal_(generator=torch.Generator().manual_seed(seed))
    network.context = context
    return network


def standardise(network, features):
    """Measure features of any shape (..., features), none of them emphasised."""
    flat = features.reshape(-1, features.shape[-1])
    network.standardise_by(flat, (1.0,) * flat.shape[1])


def make_trainer(image, codes, config=QUICK, spacing=CUBES, seed=0, allowed=None, objects=None, paint=None):
    """A trainer that has been given its volume and paint."""
    annotation: Annotation = make_annotation(codes, allowed, objects=objects)
    ids = annotation.classes()
    flat = tuple(n == 1 for n in annotation.shape)
    network = ModelSpec(SMALL, spacing, 1, flat).build(len(ids), seed)
    trainer = Trainer(network, ClassTable(ids, ids[0]), config, paint=paint, seed=seed)
    trainer.learn_from([make_features(image, spacing)], [annotation])
    return trainer


def whole(shape):
    """The box of a whole volume."""
    return Box.whole(tuple(shape))
