"""What is settled at the regular checks, on paint and by no gradient.

That is the mix of pixel head and U-Net, how common the classes are, and what the other heads compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint, surrounded
from napari_sparseseg.engine.prevalence import painted_share, prevalence, shift_towards, without_class_weights
from napari_sparseseg.engine.sampler import PatchSampler
from napari_sparseseg.engine.validation import HeldOutScore, HeldOutSet, agreement, pupil_context, untested_context
from napari_sparseseg.engine.weak.heads import Surroundings, calibrate_heads

_SURVEY_PATCHES = 4

Survey: TypeAlias = Callable[[], tuple[Tensor, Tensor]]
"""What pixel head and U-Net say of some patches around the paint, logits (n, classes) each, if somebody asks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far learning has come when a network is checked.

    `seeds` begin the random numbers of this check: they are not the trainer's, so a check changes no later step.
    `is_started` says that the trunk was learnt elsewhere.
    """

    step: int
    seeds: tuple[int, ...]
    is_started: bool


@dataclass(frozen=True, slots=True)
class Checks:
    """Settles what a network answers beside its weights, by these volumes and their paint.

    `unguided` is the share of the paint that is strokes (`stroke_share`) made before there was a prediction: what is
    filled tells how common classes are, and what corrects a prediction tells where it went wrong.
    `taught` is how much the U-Net learns from the pixel head (`need_of_teaching`).
    """

    maps: Sequence[FeatureMap]
    paints: Sequence[Paint]
    sampler: PatchSampler
    held_out: HeldOutSet
    unguided: float
    taught: float

    def settle(
        self, network: SparseNet, classes: ClassTable, painting: PaintConfig, last: HeldOutScore | None, at: Standing
    ) -> HeldOutScore | None:
        """Choose the mix, as `choose_mix` does, and shift the answers towards classes that are common."""
        survey: Survey = cache(partial(self._survey, network, at))
        score = self.choose_mix(network, classes, last, at, survey)
        self._adapt_to_prevalence(network, classes, painting, survey)
        return score

    def choose_mix(
        self,
        network: SparseNet,
        classes: ClassTable,
        last: HeldOutScore | None,
        at: Standing,
        survey: Survey | None = None,
    ) -> HeldOutScore | None:
        """Score the network on held-out paint, and mix pixel head and U-Net accordingly.

        Where nothing is held out, the `last` score counts on, and is returned. A U-Net that is taught by the pixel head
        has its say by how far it agrees with it.
        """
        score = last
        if self.held_out:
            score = self.held_out.score(network, self.maps, classes, has_context=at.step > 0)
        context = score.context if score else None
        if context is None:
            context = untested_context(self.paints, at.step, is_started=at.is_started)
        if self.taught and at.step:
            said = survey() if survey else self._survey(network, at)
            context += self.taught * (pupil_context(agreement(*said, classes), at.step) - context)
        network.context = context
        return score

    def _survey(self, network: SparseNet, at: Standing) -> tuple[Tensor, Tensor]:
        """The pixel head's twice before the U-Net's first step."""
        pixel, unet = [], []
        with torch.no_grad():
            for place in self.sampler.survey(_SURVEY_PATCHES, np.random.default_rng(at.seeds)):
                known = network.standardised(self.maps[place.volume].read(place.box))
                pixel.append(network.pixel(known).flatten(0, 2))
                if at.step:
                    unet.append(network.unet(known.movedim(-1, 0)[None])[0].movedim(0, -1).flatten(0, 2))
        return torch.cat(pixel), torch.cat(unet or pixel)

    def _adapt_to_prevalence(
        self, network: SparseNet, classes: ClassTable, painting: PaintConfig, survey: Survey
    ) -> None:
        """Estimate how common the classes are around the paint, so far as that is strokes, and shift the answers."""
        if classes.overlapping or painting.learns_unlabelled:
            # how common a class is does not follow from how common the others are, or is told by the unlabelled
            network.shift.zero_()
            return
        before, painted = network.shift.clone(), painted_share(self.paints).to(network.shift.device)
        answers = network.mixed(*survey()).log_softmax(-1)
        unweighted = without_class_weights(painted, painting.class_weights) if painting.class_weights else painted
        found = shift_towards(prevalence(answers, painted), unweighted) * self.unguided
        # four patches tell it roughly: half of what was known before counts on
        network.shift.copy_(found if not before.any() else (before + found) / 2)

    def calibrate(self, network: SparseNet, painting: PaintConfig, at: Standing, *, only_new: bool = False) -> None:
        """Settle what the other heads compare with, or those of which it never was."""
        known = Surroundings(self.maps, self.paints, self.sampler)
        calibrate_heads(network, known, painting, np.random.default_rng((*at.seeds, 1)), only_new=only_new)


def stroke_share(maps: Sequence[FeatureMap], paints: Sequence[Paint]) -> float:
    """How much of the paint is strokes rather than filled areas, 0..1."""
    filled = float(np.concatenate([surrounded(p, m.shape) for m, p in zip(maps, paints, strict=True)]).mean())
    return max(0.0, 1 - 2 * filled)  # the rims of filled areas look like strokes, too
