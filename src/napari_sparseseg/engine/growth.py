"""Outputs that come and go while training: classes, and the heads beside them. Everything else stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_sparseseg.engine.heads import AffinityHead, CandidateHead, EmbeddingHead, Heads
from napari_sparseseg.engine.network import SparseNet, familiar_of
from napari_sparseseg.engine.optimiser import AdamW

_OF_CLASSES = ("classify.", "candidates.")  # parameters with a row for each class
_NEW_BIAS = -2.0  # a class that nobody has shown yet starts out unlikely

Sources = Sequence[int | None]
"""For each new output the old one that it continues, or None for a new class."""


def sources_of(old: Sequence[int], new: Sequence[int]) -> list[int | None]:
    """Which old output each new one continues, by class id."""
    return [old.index(class_id) if class_id in old else None for class_id in new]


def change_outputs(network: SparseNet, sources: Sources) -> None:
    """Give the network other outputs; those without a source start unlikely."""
    for layer in (network.pixel.classify, network.unet.classify, network.unet.candidates):
        if layer is not None:
            _change_layer(layer, sources)
    network.shift = torch.zeros(len(sources), device=network.shift.device)


def change_heads(network: SparseNet, heads: Heads) -> None:
    """Give the network fresh heads where it lacks them, and take away those that it should not have."""
    unet, has, device = network.unet, network.heads, network.mean.device
    width = unet.classify.in_features
    if has.offsets != heads.offsets:
        unet.affinity = AffinityHead(width, heads.offsets).to(device) if heads.offsets else None
    if has.candidates != heads.candidates:
        unet.candidates = CandidateHead(width, network.n_classes).to(device) if heads.candidates else None
    if has.novelty != heads.novelty:
        unet.embedding = EmbeddingHead(width).to(device) if heads.novelty == "embedding" else None
        familiar = familiar_of(heads, len(network.mean), width)
        network.familiar = familiar if familiar is None else familiar.to(device)


def named_moments(unet: nn.Module, optimiser: AdamW) -> dict[str, tuple[Tensor, Tensor]]:
    """What the optimiser remembers of each parameter, by the parameter's name."""
    names = (name for name, _ in unet.named_parameters())
    return dict(zip(names, zip(optimiser.means, optimiser.squares, strict=True), strict=True))


def remember(optimiser: AdamW, unet: nn.Module, moments: dict[str, tuple[Tensor, Tensor]], sources: Sources) -> None:
    """Let a new optimiser of the changed U-Net go on from these `moments`.

    Rows of the class outputs follow their `sources`; new parameters start without memory.
    """
    for number, (name, _) in enumerate(unet.named_parameters()):
        if name in moments:
            mean, square = moments[name]
            is_output = name.startswith(_OF_CLASSES)
            optimiser.means[number] = rows_from(mean, sources, 0.0) if is_output else mean
            optimiser.squares[number] = rows_from(square, sources, 0.0) if is_output else square


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
