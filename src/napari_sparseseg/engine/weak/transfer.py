"""Starting from a model that was fitted on other volumes, maybe with other classes.

What a network knows of images (its hidden layers, the U-Net's trunk above all) takes longest to learn and serves other
classes as well; what it knows of classes (the last layers) is learnt anew within seconds. Source: Yosinski et al. 2014,
How transferable are features in deep neural networks?, arXiv:1411.1792.
"""

from __future__ import annotations

import torch

from napari_sparseseg._types import Spacing
from napari_sparseseg.engine.growth import change_outputs
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.unet import plan_levels
from napari_sparseseg.errors import InputError

_ALIKE = 1.25  # the largest ratio of voxel shapes that count as the same


def started_from(start: FittedModel, fresh: FittedModel) -> FittedModel:
    """`fresh` with the hidden layers of another model, which stays as it was.

    The features are standardised as these layers know them. All outputs are new: a class that has the same id may be
    another one, which was measured to cost more than outputs of the same class gain. Raises `InputError` as
    `check_start`.
    """
    check_start(start.spec, fresh.spec)
    network, known = fresh.network, start.network.state_dict()
    kept = ("mean", "scale", "pixel.hidden.", *(f"unet.{part}." for part in network.unet.TRUNK))
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.startswith(kept):
                value.copy_(known[name])
    change_outputs(network, [None] * len(fresh.classes))
    return fresh


def check_start(start: ModelSpec, wanted: ModelSpec) -> None:
    """Raise `InputError` where a model cannot be the start of another one: it says what differs.

    Both need the same channels and network, and voxels of about the same shape (their size does not matter), since
    filters and levels follow it.
    """
    if start.n_channels != wanted.n_channels:
        raise InputError(
            f"the model to start from knows images of {_channels(start.n_channels)}, this one has "
            f"{_channels(wanted.n_channels)}; start from a model of as many channels, in the same order"
        )
    for name, value in wanted.config:
        if value != getattr(start.config, name):
            raise InputError(
                f"the model to start from has {name}={getattr(start.config, name)}, but {value} is asked for; leave "
                "the shape of the network to the model"
            )
    if start.flat != wanted.flat:
        known, here = ("planes" if any(spec.flat) else "volumes" for spec in (start, wanted))
        raise InputError(f"the model to start from knows {known}, but these are {here}; start from a model of {here}")
    if not _are_alike(start, wanted):
        raise InputError(
            f"voxels are {_proportions(wanted.spacing)} along z, y, x here, but {_proportions(start.spacing)} for the "
            "model to start from; start from a model of voxels of about this shape, whatever their size"
        )


def _are_alike(start: ModelSpec, wanted: ModelSpec) -> bool:
    levels = [plan_levels(spec.spacing, spec.config.depth, spec.flat) for spec in (start, wanted)]
    one, other = (_relative(spec.spacing) for spec in (start, wanted))
    return levels[0] == levels[1] and all(1 / _ALIKE <= a / b <= _ALIKE for a, b in zip(one, other, strict=True))


def _relative(spacing: Spacing) -> Spacing:
    """Edges of a voxel in units of the shortest."""
    z, y, x = (size / min(spacing) for size in spacing)
    return z, y, x


def _proportions(spacing: Spacing) -> str:
    return " : ".join(f"{size:.3g}" for size in _relative(spacing))


def _channels(n: int) -> str:
    return f"{n} channel" + "s" * (n != 1)
