"""Classes that are added or removed while training: the outputs follow, everything else stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_sparseseg.engine.network import SparseNet

_NEW_BIAS = -2.0  # a class that nobody has shown yet starts out unlikely

Sources = Sequence[int | None]
"""For each new output the old one that it continues, or None for a new class."""


def sources_of(old: Sequence[int], new: Sequence[int]) -> list[int | None]:
    """Which old output each new one continues, by class id."""
    return [old.index(class_id) if class_id in old else None for class_id in new]


def change_outputs(network: SparseNet, sources: Sources) -> None:
    """Give the network other outputs; those without a source start unlikely."""
    for layer in (network.pixel.classify, network.unet.classify):
        _change_layer(layer, sources)
    network.shift = torch.zeros(len(sources), device=network.shift.device)


def rows_from(rows: Tensor, sources: Sources, fill: float) -> Tensor:
    """A tensor whose row i is row `sources[i]` of `rows`, or holds `fill`."""
    chosen = torch.full((len(sources), *rows.shape[1:]), fill, dtype=rows.dtype, device=rows.device)
    for number, source in enumerate(sources):
        if source is not None:
            chosen[number] = rows[source]
    return chosen


def _change_layer(layer: nn.Linear, sources: Sources) -> None:
    layer.weight = nn.Parameter(rows_from(layer.weight.detach(), sources, 0.0))
    layer.bias = nn.Parameter(rows_from(layer.bias.detach(), sources, _NEW_BIAS))
    layer.out_features = len(sources)
