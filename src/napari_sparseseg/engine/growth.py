"""A class added while training: the outputs grow by one, everything else stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_sparseseg.engine.network import SparseNet

_NEW_BIAS = -2.0  # a class that nobody has shown yet starts out unlikely


def grow_outputs(network: SparseNet, kept: Sequence[int], n_classes: int) -> None:
    """Give the network `n_classes` outputs; output i becomes output `kept[i]`, the others start unlikely."""
    for layer in (network.pixel.classify, network.unet.classify):
        grow_layer(layer, kept, n_classes)


def grow_layer(layer: nn.Linear, kept: Sequence[int], n_classes: int) -> None:
    """Replace weight and bias of an output layer by larger ones."""
    layer.weight = nn.Parameter(spread_rows(layer.weight.detach(), kept, n_classes, 0.0))
    layer.bias = nn.Parameter(spread_rows(layer.bias.detach(), kept, n_classes, _NEW_BIAS))
    layer.out_features = n_classes


def spread_rows(rows: Tensor, kept: Sequence[int], n_rows: int, fill: float) -> Tensor:
    """A tensor of `n_rows` rows: row i of `rows` at `kept[i]`, `fill` elsewhere."""
    spread = torch.full((n_rows, *rows.shape[1:]), fill, dtype=rows.dtype, device=rows.device)
    spread[torch.as_tensor(kept, device=rows.device)] = rows
    return spread
