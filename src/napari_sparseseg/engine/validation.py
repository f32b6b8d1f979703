"""Scoring on held-out paint: the Dice estimate, and how much of the answer should be the U-Net's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.losses import multi_label_loss
from napari_sparseseg.engine.metrics import dice, dice_of_overlapping
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint, sufficiency

_MIXES = (0.0, 0.25, 0.5, 0.75)  # the U-Net alone was nowhere better than with a quarter of the pixel head
# Held-out squares lie beside what was learnt, which flatters the pixel head: to win it must be clearly likelier.
_DOUBT_OF_PIXELS = 0.6
_FEWEST_TO_CHOOSE = 100  # held-out voxels of each class
_MOST_PATCHES = 8  # of a volume
_MOST_IN_ALL = 24  # else the checks of a long time series would take longer than the steps between them
# For the mix where held-out paint cannot choose it:
_GROWN_UP = 200  # steps after which the U-Net has its full say
_MOST_OF_PUPIL = 0.8  # share of a U-Net that learns from the pixel head, and has learnt
# Dice between the answers of both from which a pupil has a say, and from which it has its full say; measured
_BEGINS, _HAS_LEARNT = 0.4, 0.75
_FITTED = 50  # steps after which new outputs on a trunk that was learnt elsewhere have their full say


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """Of the likeliest mix: mean Dice over the held-out classes but the background, mean -log p, and the U-Net's share.

    `dice` is None if only background is held out, `context` if a class has too few held-out voxels to choose by.
    """

    dice: float | None
    loss: float
    context: float | None


@dataclass(frozen=True, slots=True)
class _Patch:
    volume: int
    box: Box
    members: npt.NDArray[np.intp]


class HeldOutSet:
    """A few patches that cover held-out voxels; empty (falsy) where nothing is held out."""

    def __init__(self, paints: Sequence[Paint], patch_shapes: Sequence[Shape3D], shapes: Sequence[Shape3D]) -> None:
        self._paints = paints
        self._patches: list[_Patch] = []
        for volume, paint in enumerate(paints):
            open_voxels = paint.held_out.copy()
            for first in _slice_by_slice(paint):
                if len(self._patches) >= _MOST_PATCHES * (volume + 1):
                    break
                if not open_voxels[first]:
                    continue
                box = _box_around(paint.coordinates[first], patch_shapes[int(paint.axis[first])], shapes[volume])
                inside = paint.within(box)
                members = inside[open_voxels[inside]]
                open_voxels[members] = False
                self._patches.append(_Patch(volume, box, members))
        self._patches = _in_turn(self._patches)

    def __bool__(self) -> bool:
        return bool(self._patches)

    def score(
        self, network: SparseNet, maps: Sequence[FeatureMap], classes: ClassTable, *, has_context: bool
    ) -> HeldOutScore:
        """Score every mix on the held-out voxels and return that of the likeliest.

        `has_context` is False before the U-Net's first step: then only the pixel head answers.
        """
        pixel, unet = [], []
        with torch.no_grad():
            for patch in self._patches:
                of_pixel, of_unet = self._logits(network, maps[patch.volume], patch, has_context)
                pixel.append(of_pixel)
                unet.append(of_unet)
        known = self._truth(classes, pixel[0].device)
        mixes = _MIXES if has_context else (0.0,)
        heads = torch.cat(pixel), torch.cat(unet)
        scores = [known.score(network.mixed(*heads, mix), mix, classes) for mix in mixes]
        best = min(scores, key=lambda s: s.loss * (1 + _DOUBT_OF_PIXELS * (1 - (s.context or 0.0))))
        return best if known.is_enough(classes) else replace(best, context=None)

    def _truth(self, classes: ClassTable, device: torch.device) -> _Truth | _OverlappingTruth:
        """What was painted in the held-out voxels, patch by patch."""
        members = [(self._paints[patch.volume], patch.members) for patch in self._patches]
        weights = torch.from_numpy(np.concatenate([paint.weights[rows] for paint, rows in members])).to(device)
        if not classes.overlapping:
            answers = np.concatenate([paint.allowed[rows].argmax(1) for paint, rows in members])
            return _Truth(torch.from_numpy(answers).to(device), weights)
        kinds = np.concatenate([paint.kinds[rows] for paint, rows in members])
        present, absent = (torch.from_numpy(part).to(device) for part in np.hsplit(kinds, 2))
        return _OverlappingTruth(present, absent, weights)

    def _logits(
        self, network: SparseNet, feature_map: FeatureMap, patch: _Patch, has_context: bool
    ) -> tuple[Tensor, Tensor]:
        """Of pixel head and U-Net at the held-out voxels of a patch; the pixel head's twice where there is no other."""
        coordinates = self._paints[patch.volume].coordinates[patch.members]
        if not has_context:
            pixel = network.pixel(network.standardised(feature_map.at(coordinates)))
            return pixel, pixel
        known = network.standardised(feature_map.read(patch.box))
        positions = coordinates - patch.box.start
        where = tuple(torch.from_numpy(positions.T.astype(np.int64)).to(known.device))
        unet = network.unet(known.movedim(-1, 0)[None])[0].movedim(0, -1)
        return network.pixel(known[where]), unet[where]


def untested_context(paints: Sequence[Paint], step: int, *, is_started: bool = False) -> float:
    """Share of the U-Net where too little paint can be held out to choose.

    It grows as the U-Net learns, and stays low where a class has little paint, which the U-Net would learn by heart.
    One whose trunk was learnt elsewhere (`is_started`) knows more than what was painted here.
    """
    if is_started:
        return 0.75 * min(1.0, step / _FITTED)
    return 0.75 * sufficiency(paints) * min(1.0, step / _GROWN_UP)


def agreement(pixel: Tensor, unet: Tensor, classes: ClassTable) -> float:
    """Dice between the answers of both heads, from logits (n, classes), 0..1.

    The geometric mean over the classes but the background, which is low if one of them is missed, and at most that of
    the background, which is low if one of them is everywhere. Classes that neither head finds do not count.
    """
    if classes.overlapping:
        taught, learnt = ((logits > 0).cpu().numpy() for logits in (pixel, unet))
        of_class = dice_of_overlapping(learnt, taught, ~taught, range(len(classes)))
    else:
        taught, learnt = (logits.argmax(-1).cpu().numpy() for logits in (pixel, unet))
        of_class = dice(learnt, taught, range(len(classes)))
    known = {channel: score for channel, score in of_class.items() if not np.isnan(score)}
    found = [known.pop(channel) for channel in classes.foreground_channels if channel in known]
    return min(*known.values(), float(np.prod(found) ** (1 / max(1, len(found)))), 1.0)


def pupil_context(agreement: float, step: int) -> float:
    """Share of a U-Net that learns from the pixel head: more as it agrees with its teacher, whom it then surpasses.

    Before that it knows the paint by heart and misses the rare classes elsewhere, which held-out paint next to what was
    learnt does not show. After many steps it has learnt what it can: where they differ, it knows more.
    """
    by_agreement = (agreement - _BEGINS) / (_HAS_LEARNT - _BEGINS)
    by_steps = 2 * step / _GROWN_UP - 1
    return _MOST_OF_PUPIL * min(1.0, max(0.0, by_agreement, by_steps))


@dataclass(frozen=True, slots=True)
class _Truth:
    """The channels of the classes that held-out voxels have, (n,), and their weights."""

    answers: Tensor
    weight: Tensor

    def score(self, logits: Tensor, mix: float, classes: ClassTable) -> HeldOutScore:
        """Of logits (n, classes)."""
        cross_entropy = torch.nn.functional.cross_entropy(logits, self.answers, reduction="none")
        loss = (self.weight * cross_entropy).sum() / self.weight.sum()
        held_out = [channel for channel in classes.foreground_channels if bool((self.answers == channel).any())]
        found = dice(logits.argmax(-1).cpu().numpy(), self.answers.cpu().numpy(), held_out)
        return HeldOutScore(float(np.mean(list(found.values()))) if found else None, float(loss), mix)

    def is_enough(self, classes: ClassTable) -> bool:
        """Whether there are enough voxels of each class to choose by."""
        return int(torch.bincount(self.answers, minlength=len(classes)).min()) >= _FEWEST_TO_CHOOSE


@dataclass(frozen=True, slots=True)
class _OverlappingTruth:
    """Which classes are present in held-out voxels, and which absent, each (n, classes), and their weights (n,)."""

    present: Tensor
    absent: Tensor
    weight: Tensor

    def score(self, logits: Tensor, mix: float, classes: ClassTable) -> HeldOutScore:
        """Of logits (n, classes): Dice of what is known of each class, which is there from a probability of 0.5."""
        weight = self.weight[:, None]
        loss = multi_label_loss(logits, weight * self.present, weight * self.absent)
        found, present, absent = (array.cpu().numpy() for array in (logits > 0, self.present, self.absent))
        dice_of = dice_of_overlapping(found, present, absent, range(len(classes)))
        scores = [dice_of[k] for k in classes.foreground_channels if present[:, k].any()]
        return HeldOutScore(float(np.mean(scores)) if scores else None, float(loss), mix)

    def is_enough(self, classes: ClassTable) -> bool:  # noqa: ARG002 - as of classes that exclude each other
        """Whether there are enough voxels of each class to choose by."""
        return int(self.present.sum(0).min()) >= _FEWEST_TO_CHOOSE


def _in_turn(patches: Sequence[_Patch]) -> list[_Patch]:
    """At most `_MOST_IN_ALL`: the first of each volume, then the second, and so on, the last turn evenly spread."""
    volumes = np.array([patch.volume for patch in patches])
    turn = np.arange(len(patches)) - np.searchsorted(volumes, volumes)
    kept: list[int] = []
    for number in range(_MOST_IN_ALL):
        room, of_turn = _MOST_IN_ALL - len(kept), np.flatnonzero(turn == number)
        if not room or not len(of_turn):
            break
        kept += of_turn[np.linspace(0, len(of_turn) - 1, min(room, len(of_turn))).round().astype(np.intp)].tolist()
    return [patches[number] for number in sorted(kept)]


def _slice_by_slice(paint: Paint) -> npt.NDArray[np.intp]:
    """Held-out voxels in random order, one of each slice at a time, so that every slice has a say."""
    members = np.random.default_rng(0).permutation(np.flatnonzero(paint.held_out))
    members = members[np.argsort(paint.slice_id[members], kind="stable")]
    slices = paint.slice_id[members]
    turn = np.arange(len(members)) - np.searchsorted(slices, slices)
    ordered: npt.NDArray[np.intp] = members[np.argsort(turn, kind="stable")]
    return ordered


def _box_around(voxel: npt.NDArray[np.integer], patch_shape: Shape3D, shape: Shape3D) -> Box:
    """A patch with the voxel near its middle, moved into the volume where that is possible."""
    start = [max(0, min(int(v) - p // 2, s - p)) for v, p, s in zip(voxel, patch_shape, shape, strict=True)]
    z, y, x = start
    return Box((z, y, x), (z + patch_shape[0], y + patch_shape[1], x + patch_shape[2]))
