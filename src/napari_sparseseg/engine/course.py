"""What is learnt from the paint there is: which voxels, in which patches, by which lessons, and checked by what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from napari_sparseseg._types import Annotation
from napari_sparseseg.config import PaintConfig, TrainingConfig
from napari_sparseseg.engine.augment import turns_of
from napari_sparseseg.engine.checks import Checks, stroke_share
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.distillation import DistillationLesson, need_of_teaching
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.lessons import ClassLesson, Criterion, Lesson, criterion_of
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.affinity import AffinityLesson, Order
from napari_sparseseg.engine.objects.sizes import smallest_of
from napari_sparseseg.engine.paint import Paint, prepare_paint, scarcity
from napari_sparseseg.engine.sampler import PatchSampler, patch_shapes
from napari_sparseseg.engine.validation import HeldOutSet
from napari_sparseseg.engine.weak.consistency import ConsistencyLesson
from napari_sparseseg.engine.weak.heads import lessons_of_heads
from napari_sparseseg.engine.weak.unlabelled import tells_misses, with_unlabelled


@dataclass(frozen=True, slots=True)
class Course:
    """What a trainer does until the paint changes.

    `scarcity` is how little is painted, 0..1. `turns` are those that patches may take; where there are none, the
    painted plane decides.
    """

    paints: Sequence[Paint]
    criterion: Criterion
    lessons: Sequence[Lesson]
    sampler: PatchSampler
    checks: Checks
    turns: Sequence[Order]
    scarcity: float

    @property
    def taught(self) -> float:
        """How much the U-Net learns from the pixel head, 0..1."""
        return self.checks.taught

    @property
    def holds_out(self) -> bool:
        """Whether some paint is not learnt, to check by."""
        return any(p.held_out.any() for p in self.paints)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans a `Course` for these volumes and their annotations.

    `learner` learns and `averaged` predicts; both are told which objects were painted. `is_started` says that their
    trunk was learnt elsewhere, `n_unguided` how many voxels were painted before there was a prediction, and `step()`
    how many steps are done.
    """

    maps: Sequence[FeatureMap]
    annotations: Sequence[Annotation]
    classes: ClassTable
    learner: SparseNet
    averaged: SparseNet
    training: TrainingConfig
    painting: PaintConfig
    is_started: bool
    n_unguided: int
    step: Callable[[], int]

    def plan(self, held_out: float, seed: int) -> Course:
        """The course that keeps a share of the paint aside; `seed` says which."""
        paints, shapes = self._prepared(held_out, seed), [m.shape for m in self.maps]
        largest = (max(s[0] for s in shapes), max(s[1] for s in shapes), max(s[2] for s in shapes))
        of_patches = patch_shapes(
            self.training.patch_voxels, self.maps[0].bank.spacing, self.learner.unet.stride, largest
        )
        little, strokes = scarcity(paints, shapes), stroke_share(self.maps, paints)
        criterion = criterion_of(self.painting)
        if self._learns_unlabelled:
            paints, criterion = with_unlabelled(self.maps, paints, self.classes, self.painting, seed)
        taught, turns = self._need_of_teaching(paints, little, strokes), self._turns_of_objects()
        sampler = PatchSampler(paints, shapes, of_patches, balance=self.training.orientation_balance)
        held_out_set = HeldOutSet(paints, of_patches, shapes)
        unguided = strokes * min(1.0, self.n_unguided / max(1, sum(map(len, self.annotations))))
        return Course(
            paints,
            criterion,
            [ClassLesson(paints, criterion), *self._further_lessons(paints, turns, taught)],
            sampler,
            Checks(self.maps, paints, sampler, held_out_set, unguided, taught),
            turns,
            little,
        )

    @property
    def _learns_unlabelled(self) -> bool:
        return self.painting.learns_unlabelled and not self.classes.overlapping

    def _prepared(self, held_out: float, seed: int) -> list[Paint]:
        if self._learns_unlabelled and not tells_misses(self.annotations, self.classes.background):
            held_out = 0.0
        return [
            prepare_paint(
                annotation,
                self.classes,
                share=held_out,
                balance=self.training.class_balance,
                seed=seed + number,
                class_weights=self.painting.class_weights,
            )
            for number, annotation in enumerate(self.annotations)
        ]

    def _need_of_teaching(self, paints: Sequence[Paint], little: float, strokes: float) -> float:
        """Not where the trunk knows more than the pixel head, or what is unpainted has a say of its own."""
        if not self.training.distillation or self.is_started or self._learns_unlabelled:
            return 0.0
        return need_of_teaching(paints, little, strokes)

    def _further_lessons(self, paints: Sequence[Paint], turns: Sequence[Order], taught: float) -> Iterator[Lesson]:
        if self.learner.affinity is not None:
            yield self._lesson_on_objects(paints, turns)
        yield from lessons_of_heads(self.learner.heads, paints, self.painting)
        if taught:
            yield DistillationLesson(self.training.distillation * taught)
        if self.training.consistency:
            yield ConsistencyLesson(self.averaged, self.training.consistency, self.step)

    def _lesson_on_objects(self, paints: Sequence[Paint], turns: Sequence[Order]) -> AffinityLesson:
        lesson = AffinityLesson(paints, self.classes.object_channels, self.learner.heads.offsets, turns)
        smallest = smallest_of(paints, self.maps[0].bank.spacing, self.maps[0].shape)
        for network in (self.learner, self.averaged):
            if network.affinity is not None:
                network.affinity.taught, network.affinity.smallest = lesson.taught, smallest
        return lesson

    def _turns_of_objects(self) -> list[Order]:
        """All turns that the network cannot tell apart: slices of one orientation then teach steps along every axis."""
        if self.learner.affinity is None:
            return []
        plans = [[(plan.kernel[axis], plan.pool[axis]) for plan in self.learner.unet.levels] for axis in range(3)]
        return turns_of(self.maps[0].bank.spacing, plans) if self.training.turns else [(0, 1, 2)]
