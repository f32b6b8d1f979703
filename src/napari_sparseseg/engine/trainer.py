"""Learning from paint: a generator of steps that its caller may stop, pause or save at any step.

First the pixel head is fitted, which takes a second or two; then every step improves the U-Net on a batch of
patches around painted voxels. Weights are averaged as they go. Every few steps the network is scored on paint
that was held out, which gives the Dice estimate and decides how pixel head and U-Net are mixed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Annotation, Box
from napari_sparseseg.config import PaintConfig, TrainingConfig
from napari_sparseseg.engine.augment import Augmentation, draw_flips, draw_turn
from napari_sparseseg.engine.checks import Standing
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.course import Planner
from napari_sparseseg.engine.device import mixed_precision
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.growth import change_heads, change_outputs, named_moments, remember, sources_of
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.lessons import Patches, Targets, box_of, gathered
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.offsets import default_offsets
from napari_sparseseg.engine.optimiser import AdamW
from napari_sparseseg.engine.paint import Paint, share_of_rarest
from napari_sparseseg.engine.painted import PaintedFeatures
from napari_sparseseg.engine.pixelfit import fit_pixel_head
from napari_sparseseg.engine.sampler import PatchLocation
from napari_sparseseg.engine.validation import HeldOutScore
from napari_sparseseg.engine.weak.consistency import margin
from napari_sparseseg.engine.weak.warm_up import warm_up

RELEASE_AT = 0.7  # share of a known budget after which held-out paint is given back
_ANNEAL_FROM = 0.7
_WARM_UP = 20  # steps over which the step size rises
_PIXEL_SHARE = 0.2  # of a budget that one fit of the pixel head may take
_USUAL_SHARE = 0.2  # of the paint: a class that has less of it takes longer to learn
_RARE_POWER = 0.4  # of how many times less that is: so many times the usual steps
_LONGEST_FIT = 2.5  # times the usual steps, at most
_PIXEL_VOXELS = 200_000  # painted voxels that the pixel head looks at, at most
_WARM_UP_STREAM = 1  # of random numbers
_WARM_UP_SHARE = 0.2  # of a budget that warming up on the volume may take
_TAUGHT_ELSEWHERE = 0.5  # of the steps with a teacher, in which a patch lies anywhere rather than around paint
_STARTED_PACE = 0.1  # of the step size, for a trunk that was learnt elsewhere: few strokes would spoil it

Progress = Callable[[int], float]
"""Share of the budget that is used after so many steps, 0..1; 0 if nobody knows."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What one step did.

    `step` counts the U-Net's steps over all fits, `phase` is "pixel" during the warm start, "warm-up" while it learns
    from the volume itself, then "unet".
    `dice` is the latest estimate on held-out paint, mean over the classes but the background, or None.
    `seconds` is set by whoever drives the trainer.
    """

    step: int
    phase: str
    loss: float
    dice: float | None = None
    seconds: float = 0.0


class Trainer:
    """Trains a `SparseNet` on the paint of one or several volumes.

    The network that is passed in keeps the averaged weights, which predict; its copy learns. `seed` fixes every
    random choice. `is_started` says that its trunk was learnt elsewhere: few strokes change it slowly. Not thread-safe.
    """

    def __init__(
        self,
        network: SparseNet,
        classes: ClassTable,
        config: TrainingConfig,
        *,
        seed: int,
        paint: PaintConfig | None = None,
        is_started: bool = False,
    ) -> None:
        self.averaged = network
        self.network = copy.deepcopy(network)
        self.classes = classes
        self.config = config
        self.paint = paint or PaintConfig()
        self.is_started = is_started
        self.step = 0
        self.score: HeldOutScore | None = None
        self.is_released = False
        self._round = 0
        self._n_unguided = 0  # voxels that were painted before there was a prediction to look at
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._optimiser = self._new_optimiser()
        self._maps: Sequence[FeatureMap] = ()
        self._painted_features = PaintedFeatures()

    def learn_from(
        self, maps: Sequence[FeatureMap], annotations: Sequence[Annotation], *, is_known: bool = False
    ) -> None:
        """Take these volumes and their paint; called before the first step and whenever the paint has changed.

        Where voxels carry ids of objects, the network learns to tell objects apart; where none does, it does not.
        The other heads are those that the settings ask for.
        With `is_known` it is the paint that the state was about that was restored: the same voxels are held out again.
        """
        self._maps = maps
        self._painted_features.keep_only(maps)
        classes = self.classes.with_objects_of(annotations)
        self._become(classes, self._wanted_heads(classes))
        self._annotations = _of_mean_weight_one(annotations)
        self._round += not is_known
        self._n_unguided = self._n_unguided or sum(map(len, annotations))
        self.score = None
        self._take_paint(self.config.held_out)
        if not self.network.is_standardised:
            features = torch.cat([m.at(p.coordinates[_spread(len(p))]) for m, p in self._volumes() if len(p)])
            for network in (self.network, self.averaged):
                network.standardise_by(features, maps[0].bank.emphasis(0.5 + 0.85 * self._course.scarcity))

    def change_settings(self, config: TrainingConfig, paint: PaintConfig) -> None:
        """Take other settings; those about paint take hold at the next `learn_from`."""
        self.config, self.paint = config, paint
        self._optimiser.weight_decay = config.weight_decay

    def change_classes(self, classes: ClassTable) -> None:
        """Add or remove classes: trunk, optimiser state and the other outputs stay as they are.

        What was painted so far no longer counts; call `learn_from` before the next step.
        """
        classes = replace(classes, objects=tuple(i for i in self.classes.objects if i in classes.ids))
        heads = self.network.heads
        self._become(classes, heads if classes.objects else replace(heads, offsets=()))

    def _wanted_heads(self, classes: ClassTable) -> Heads:
        """What these classes and the settings ask for; where objects were told apart already, by the same offsets."""
        offsets = self.network.heads.offsets if classes.objects else ()
        if classes.objects and not offsets:
            z, y, x = (all(m.shape[axis] == 1 for m in self._maps) for axis in range(3))
            offsets = default_offsets(self._maps[0].bank.spacing, (z, y, x))
        candidates = self.paint.candidates > 0 and not classes.overlapping
        return Heads(offsets, candidates=candidates, novelty=self.paint.novelty)

    def _become(self, classes: ClassTable, heads: Heads) -> None:
        """Give the networks the outputs that these classes need, and these heads."""
        if (classes, heads) == (self.classes, self.network.heads):
            return
        sources = sources_of(self.classes.ids, classes.ids)
        moments = named_moments(self.network.unet, self._optimiser)
        for network in (self.network, self.averaged):
            if classes.ids != self.classes.ids:
                change_outputs(network, sources)
            change_heads(network, heads)
        n_steps = self._optimiser.n_steps
        self._optimiser = self._new_optimiser()
        self._optimiser.n_steps = n_steps
        remember(self._optimiser, self.network.unet, moments, sources)
        self.classes = classes

    def steps(
        self, progress: Progress = lambda _: 0.0, *, with_context: bool = True, burst: int | None = None
    ) -> Iterator[TrainingStep]:
        """Train without end; each item is one finished step, between which all state is consistent.

        Without `with_context` only the pixel head is fitted, and the steps end. `burst` is for somebody who waits: so
        many steps of the pixel head (0: none), and a mix that was chosen once is kept until the next regular check.
        """
        usual = self._fit_steps if self.step == 0 else self._refit_steps
        if burst != 0:
            yield from self._fit_pixel_head(burst or usual, progress)
        if burst is None:
            self._check()
        elif burst:
            if self.step == 0:
                self.score = self._course.checks.choose_mix(self.averaged, self.classes, self.score, self._standing)
            self._calibrate(only_new=True)
        if with_context and self.config.warm_up_steps and self.step == 0 and not self.is_started:
            yield from self._warm_up(progress)
        while with_context:
            used = progress(self.step)
            if used >= RELEASE_AT and not self.is_released:
                yield from self._release(progress)
            loss = self._unet_step(self._step_size(used))
            if self.step % self.config.check_every == 0:
                self._check()
            yield TrainingStep(self.step, "unet", loss, self.dice)

    def finish(self) -> None:
        """Settle the mix of pixel head and U-Net, wherever the steps were stopped."""
        if self.step % self.config.check_every:
            self._check()

    @property
    def dice(self) -> float | None:
        return self.score.dice if self.score else None

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What an exact continuation needs besides the averaged network: counters and random state, and tensors."""
        plain = {
            "random": self._rng.bit_generator.state,
            "step": self.step,
            "round": self._round,
            "n_unguided": self._n_unguided,
            "seed": self._seed,
            "optimiser_steps": self._optimiser.n_steps,
            "is_started": self.is_started,
        }
        latest = {f"latest.{name}": value for name, value in self.network.unet.state_dict().items()}
        moments = {
            f"optimiser.{kind}.{number}": value
            for kind in ("means", "squares")
            for number, value in enumerate(getattr(self._optimiser, kind))
        }
        return plain, latest | moments

    def restore(self, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned; `tensors` may hold others as well."""
        self._rng.bit_generator.state = plain["random"]
        self.step, self._round, self._seed = plain["step"], plain["round"], plain["seed"]
        self.is_started = plain.get("is_started", False)  # absent from models of older programs
        self._n_unguided = plain.get("n_unguided", 0)  # likewise
        self._optimiser.n_steps = plain["optimiser_steps"]
        self.network.unet.load_state_dict({name: tensors[f"latest.{name}"] for name in self.network.unet.state_dict()})
        for kind in ("means", "squares"):
            for number, value in enumerate(getattr(self._optimiser, kind)):
                value.copy_(tensors[f"optimiser.{kind}.{number}"])

    def _new_optimiser(self) -> AdamW:
        unet = self.network.unet
        return AdamW(unet.parameters(), weight_decay=self.config.weight_decay, matrices=unet.hidden_weights)

    def _pace_optimiser(self) -> None:
        self._optimiser.wholeness = 1 - self._course.scarcity  # few strokes would be learnt by heart
        pace = _STARTED_PACE**self._course.scarcity if self.is_started else 1.0
        unet = self.network.unet
        self._optimiser.paces = [
            pace if name.partition(".")[0] in unet.TRUNK else 1.0 for name, _ in unet.named_parameters()
        ]

    def _volumes(self) -> Iterator[tuple[FeatureMap, Paint]]:
        return zip(self._maps, self._course.paints, strict=True)

    def _take_paint(self, held_out: float) -> None:
        planner = Planner(
            self._maps,
            self._annotations,
            self.classes,
            learner=self.network,
            averaged=self.averaged,
            training=self.config,
            painting=self.paint,
            is_started=self.is_started,
            n_unguided=self._n_unguided,
            step=partial(getattr, self, "step"),
        )
        self._course = planner.plan(held_out, self._seed + 1000 * self._round)
        self.is_released = not self._course.holds_out
        self._pace_optimiser()

    def _release(self, progress: Progress) -> Iterator[TrainingStep]:
        """Give the held-out paint back; what it told of the mix and of Dice stays as it was last measured."""
        self._check()
        self._take_paint(0.0)
        yield from self._fit_pixel_head(self._refit_steps, progress)

    @property
    def _fit_steps(self) -> int:
        """Steps of the pixel head's first fit: a class that is rare in the paint takes longer to learn."""
        times_less = _USUAL_SHARE / max(1e-9, share_of_rarest(self._course.paints))
        return round(self.config.warm_start_steps * min(_LONGEST_FIT, max(1.0, math.pow(times_less, _RARE_POWER))))

    @property
    def _refit_steps(self) -> int:
        return max(1, self._fit_steps // 3)

    def _fit_pixel_head(self, n_steps: int, progress: Progress) -> Iterator[TrainingStep]:
        used_before = progress(self.step)
        features, members = [], []
        for volume, (feature_map, paint) in enumerate(self._volumes()):
            rows = np.flatnonzero(paint.learnt)
            rows = rows[_spread(len(rows))]
            features.append(self._painted_features.at(feature_map, paint, rows))
            members.append((volume, rows))
        losses = fit_pixel_head(
            self.network.pixel,
            self.network.standardised(torch.cat(features)),
            Targets.of(self._course.paints, members, self.network.mean.device),
            self._course.criterion,
            n_steps=max(1, round(n_steps * max(1 / 3, 1 - self._course.scarcity))),
            dropout=self.config.dropout,
            noise=self.config.feature_noise * self._course.scarcity,
            rng=self._rng,
            hurry=lambda: (progress(self.step) - used_before) / _PIXEL_SHARE,
        )
        for loss in losses:
            self.averaged.pixel.load_state_dict(self.network.pixel.state_dict())
            yield TrainingStep(self.step, "pixel", loss, self.dice)

    def _warm_up(self, progress: Progress) -> Iterator[TrainingStep]:
        """Let the trunk learn from the volumes themselves; whoever interrupts it begins it anew."""
        used_before = progress(self.step)
        rng = np.random.default_rng((self._seed, self._round, _WARM_UP_STREAM))  # not ours: it may be interrupted

        def draw() -> Tensor:
            places = self._course.sampler.anywhere(self.config.batch_size, rng)
            return torch.stack([self._patch(place, Augmentation()) for place in places])

        for loss in warm_up(self.network.unet, draw, self._maps[0].bank.spacing, self.config, rng):
            self.averaged.unet.load_state_dict(self.network.unet.state_dict())
            yield TrainingStep(self.step, "warm-up", loss, self.dice)
            if progress(self.step) - used_before > _WARM_UP_SHARE:
                break

    def _unet_step(self, step_size: float) -> float:
        axis, locations = self._course.sampler.draw(self.config.batch_size, self._rng)
        if self._course.taught and len(locations) > 1 and self._rng.random() < _TAUGHT_ELSEWHERE:
            locations[-1:] = self._course.sampler.anywhere(1, self._rng, axis)
        turn = self._draw_turn(axis)
        patches, positions, members = [], [], []
        for location in locations:
            augmentation = self._draw_augmentation(turn)
            patches.append(self._patch(location, augmentation))
            where, numbers = self._painted(location, augmentation)
            positions.append(where)
            members.append((location.volume, numbers))
        loss = self._loss(torch.stack(patches), positions, members)
        self._optimiser.step(loss, step_size)
        self.step += 1
        self._average()
        return float(loss.detach())

    def _patch(self, location: PatchLocation, augmentation: Augmentation) -> Tensor:
        known = self.network.standardised(self._maps[location.volume].read(location.box))
        return augmentation.features(known)

    def _without_some_features(self, patches: Tensor) -> Tensor:
        """Feature dropout: whole features of a patch are zero, the others larger in turn."""
        share = self.config.feature_dropout * (0.4 + 0.6 * self._course.scarcity)
        if not share:
            return patches
        kept = self._rng.random((len(patches), 1, 1, 1, patches.shape[-1]), dtype=np.float32) >= share
        return patches * torch.from_numpy(kept.astype(np.float32) / (1 - share)).to(patches.device)

    def _painted(
        self, location: PatchLocation, augmentation: Augmentation
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
        """Where the learnt voxels lie in the augmented patch, and their numbers."""
        paint = self._course.paints[location.volume]
        numbers = paint.within(location.box)
        numbers = numbers[paint.learnt[numbers]]
        shape = np.asarray(location.box.shape)
        return augmentation.positions(paint.coordinates[numbers] - location.box.start, shape), numbers

    def _loss(
        self,
        patches: Tensor,
        positions: Sequence[npt.NDArray[np.int64]],
        members: Sequence[tuple[int, npt.NDArray[np.intp]]],
    ) -> Tensor:
        inner = box_of(np.concatenate(positions))
        if self.config.consistency:
            z, y, x = patches.shape[1:-1]
            inner = inner.grown(margin(self._maps[0].bank.spacing)).clipped(Box.whole((z, y, x)))
        seen = self._without_some_features(patches)
        with mixed_precision(patches.device):
            decoded = self.network.unet.decoded(self.network.unet.stem(seen.movedim(-1, 1)), inner)
            logits = self.network.unet.classify(decoded)
        where = [tuple(torch.from_numpy((p - inner.start).T.copy()).to(patches.device)) for p in positions]
        of_painted = gathered(decoded, where).float(), gathered(logits, where).float()
        learnt = Patches(members, positions, *of_painted, patches, inner, logits)
        first, *others = self._course.lessons
        loss = first.loss(self.network, learnt)
        for lesson in others:
            loss = loss + lesson.loss(self.network, learnt)
        return loss

    def _draw_augmentation(self, turn: tuple[int, int, int]) -> Augmentation:
        return Augmentation(
            flips=draw_flips(self._rng) if self.config.flips else (False, False, False),
            order=turn,
            gain=float(np.exp(self._rng.normal(0, self.config.gain))) if self.config.gain else 1.0,
        )

    def _draw_turn(self, axis: int) -> tuple[int, int, int]:
        """Swap axes only where the network pools them alike: not a flat one, not one with a longer voxel."""
        if turns := self._course.turns:
            return turns[int(self._rng.integers(len(turns)))]
        stride = self.network.unet.stride
        turn = draw_turn(axis, self._maps[0].bank.spacing, self._rng) if self.config.turns else (0, 1, 2)
        return turn if all(stride[a] == s for a, s in zip(turn, stride, strict=True)) else (0, 1, 2)

    def _step_size(self, used: float) -> float:
        warm = min(1.0, (self.step + 1) / _WARM_UP)
        anneal = min(1.0, max(0.05, (1 - used) / (1 - _ANNEAL_FROM)))
        return self.config.learning_rate * warm * anneal

    def _average(self) -> None:
        keep = min(self.config.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            means: list[Tensor] = list(self.averaged.unet.parameters())
            torch._foreach_lerp_(means, list(self.network.unet.parameters()), 1 - keep)

    def _check(self) -> None:
        """Settle all that averaged weights leave open."""
        self.score = self._course.checks.settle(self.averaged, self.classes, self.paint, self.score, self._standing)
        self._calibrate()

    def _calibrate(self, *, only_new: bool = False) -> None:
        self._course.checks.calibrate(self.averaged, self.paint, self._standing, only_new=only_new)

    @property
    def _standing(self) -> Standing:
        seeds = self._seed, self._round, self.step
        return Standing(self.step, seeds, self.is_started)


def _of_mean_weight_one(annotations: Sequence[Annotation]) -> list[Annotation]:
    mean = float(np.concatenate([a.weights for a in annotations]).mean(dtype=np.float64))
    return [replace(a, weights=(a.weights / mean).astype(np.float32)) for a in annotations]


def _spread(n: int) -> npt.NDArray[np.intp]:
    """At most `_PIXEL_VOXELS` numbers, evenly spread over `0 .. n`."""
    return np.unique(np.linspace(0, n - 1, min(n, _PIXEL_VOXELS)).astype(np.intp)) if n else np.zeros(0, np.intp)
