"""What a model file says of the heads beside that of the classes, besides their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch

from napari_sparseseg.engine.heads import EMBEDDING_SIZE, MOST_CENTRES, Heads
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.offsets import Offset

_MAX_OFFSETS = 256
_MAX_REACH = 4096  # voxels


@dataclass(frozen=True, slots=True)
class HeadState:
    """Which heads there are, and what they compare with; see the classes in `engine.heads`.

    `taught` and `smallest` belong to the affinities, `threshold` to the candidates (infinity: only the likeliest);
    `centres`, `reach` and `spread` to what novelty is measured from.
    """

    heads: Heads = field(default_factory=Heads)
    taught: tuple[int, ...] = ()
    smallest: int = 0
    threshold: float = math.inf
    centres: tuple[tuple[float, ...], ...] = ()
    reach: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    @classmethod
    def of(cls, network: SparseNet) -> HeadState:
        """That of a network."""
        affinity, candidates, familiar = network.unet.affinity, network.unet.candidates, network.familiar
        return cls(
            network.heads,
            affinity.taught if affinity is not None else (),
            affinity.smallest if affinity is not None else 0,
            candidates.threshold if candidates is not None else math.inf,
            tuple(map(tuple, familiar.centres.tolist())) if familiar is not None else (),
            tuple(familiar.reach.tolist()) if familiar is not None else (),
            tuple(familiar.spread.tolist()) if familiar is not None else (),
        )

    def give_to(self, network: SparseNet) -> None:
        """Let a network with these heads compare with the same."""
        affinity, candidates, familiar = network.unet.affinity, network.unet.candidates, network.familiar
        if affinity is not None:
            affinity.taught, affinity.smallest = self.taught, self.smallest
        if candidates is not None:
            candidates.threshold = self.threshold
        if familiar is not None and self.centres:
            familiar.centres = torch.tensor(self.centres, device=network.mean.device)
            familiar.reach = torch.tensor(self.reach, device=network.mean.device)
            familiar.spread = torch.tensor(self.spread, device=network.mean.device)

    def to_json(self) -> dict[str, Any]:
        """Entries of the header; none without heads."""
        entries: dict[str, Any] = {}
        if self.heads.offsets:
            entries["affinities"] = {
                "offsets": self.heads.offsets,
                "taught": self.taught,
                "smallest": self.smallest,
            }
        if self.heads.candidates:
            entries["candidates"] = {"threshold": self.threshold if math.isfinite(self.threshold) else None}
        if self.heads.novelty != "off":
            entries["novelty"] = {
                "space": self.heads.novelty,
                "centres": self.centres,
                "reach": self.reach,
                "spread": self.spread,
            }
        return entries

    @classmethod
    def from_json(cls, header: Mapping[str, Any], width: int, n_features: int) -> HeadState:
        """That of a network with a U-Net of `width` channels on so many filter features.

        Raises one of Python's own errors for what is missing, of another type or out of bounds.
        """
        offsets, taught, smallest = _checked_affinities(header["affinities"]) if "affinities" in header else ((), (), 0)
        threshold = _checked_threshold(header["candidates"]) if "candidates" in header else math.inf
        if "novelty" not in header:
            return cls(Heads(offsets, "candidates" in header), taught, smallest, threshold)
        novelty = header["novelty"]
        space = novelty["space"]
        require(space in ("features", "embedding"), "space", space)
        size = n_features if space == "features" else min(EMBEDDING_SIZE, width)
        heads = Heads(offsets, "candidates" in header, space)
        return cls(heads, taught, smallest, threshold, *_checked_points(novelty, size))


def _checked_affinities(affinities: Mapping[str, Any]) -> tuple[tuple[Offset, ...], tuple[int, ...], int]:
    offsets = tuple(tuple(offset) for offset in affinities["offsets"])
    taught = tuple(affinities["taught"])
    require(0 < len(set(offsets)) == len(offsets) == len(taught) <= _MAX_OFFSETS, "offsets", offsets)
    for offset in offsets:
        require(len(offset) == 3 and any(offset), "offset", offset)
        require(all(is_whole(step) and abs(step) <= _MAX_REACH for step in offset), "offset", offset)
    require(all(is_whole(count) and count >= 0 for count in taught), "taught", taught)
    smallest = affinities.get("smallest", 0)  # models of older versions do not say
    require(is_whole(smallest) and smallest >= 0, "smallest", smallest)
    return offsets, taught, smallest


def _checked_threshold(candidates: Mapping[str, Any]) -> float:
    threshold = candidates["threshold"]
    if threshold is None:
        return math.inf
    require(isinstance(threshold, float) and 0 <= threshold <= 1, "threshold", threshold)
    return float(threshold)


def _checked_points(
    novelty: Mapping[str, Any], size: int
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...], tuple[float, ...]]:
    centres = tuple(tuple(float(value) for value in row) for row in novelty["centres"])
    reach, spread = (tuple(float(value) for value in novelty[name]) for name in ("reach", "spread"))
    require(len(centres) == len(reach) <= MOST_CENTRES, "number of centres", len(centres))
    require({len(row) for row in centres} <= {size} and len(spread) == size, "size of centres", size)
    require(all(math.isfinite(value) for row in centres for value in row), "centres", centres)
    require(all(0 < value < math.inf for value in (*reach, *spread)), "reach", reach)
    return centres, reach, spread


def require(holds: bool, name: str, found: object) -> None:
    """Raise `ValueError` that names what is wrong, unless it holds."""
    if not holds:
        raise ValueError(f"{name} cannot be {found!r:.80}")


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether this is a whole number, which a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)
