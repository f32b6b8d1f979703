"""From probabilities to labels: the likeliest class of each voxel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg.engine.classes import ClassTable

PRESENT_FROM = 0.5
"""Probability above which a class that may overlap others is there."""


def best_labels(probabilities: Tensor, classes: ClassTable) -> npt.NDArray[np.unsignedinteger]:
    """Class ids (z, y, x) of the likeliest classes, in the smallest unsigned dtype; `probabilities` (classes, z, y, x).

    Where classes may overlap, voxels of which none is likelier than not become the background, 0 if there is none.
    Where the image is missing, and so no class has a probability, it is 0.
    """
    largest, channels = probabilities.max(0)  # argmax(0) is ten times slower
    labels = classes.labels_of(channels.to(torch.uint8).cpu().numpy())
    if classes.overlapping:
        labels[(largest <= PRESENT_FROM).cpu().numpy()] = classes.background
    if not largest.all():
        labels[(largest == 0).cpu().numpy()] = 0
    return labels


def present_of(probabilities: Tensor, classes: ClassTable) -> npt.NDArray[np.bool_]:
    """Which classes are there, (classes, z, y, x): all that are likelier than not where they may overlap, else one."""
    if classes.overlapping:
        found: npt.NDArray[np.bool_] = (probabilities > PRESENT_FROM).cpu().numpy()
        return found
    largest, best = probabilities.max(0)
    channels = best.masked_fill(largest == 0, -1).cpu().numpy()
    return np.stack([channels == channel for channel in range(len(classes))])


def of_objects(probabilities: Tensor, classes: ClassTable) -> Tensor:
    """Probabilities (channels, z, y, x) among which the largest decides where objects are.

    Where classes may overlap, those that make no objects are 0, and there is one channel more, which wins where none
    is likelier than not.
    """
    if not classes.overlapping:
        return probabilities
    competing = torch.zeros_like(probabilities)
    channels = list(classes.object_channels)
    competing[channels] = probabilities[channels]
    return torch.cat([competing, torch.full_like(probabilities[:1], PRESENT_FROM)])
