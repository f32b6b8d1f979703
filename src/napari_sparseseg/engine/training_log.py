"""TrainingLog: the steps of a training, thinned out as they become many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sparseseg.engine.trainer import TrainingStep

MOST_STEPS = 2000


class TrainingLog:
    """Steps, oldest first; beyond `MOST_STEPS` every other one is left out, but never the latest."""

    def __init__(self, steps: Iterable[TrainingStep] = ()) -> None:
        self._steps: list[TrainingStep] = []
        for step in steps:
            self.add(step)

    @property
    def steps(self) -> tuple[TrainingStep, ...]:
        return tuple(self._steps)

    def add(self, step: TrainingStep) -> None:
        """Take in the latest step."""
        self._steps.append(step)
        if len(self._steps) > MOST_STEPS:
            self._steps = [*self._steps[:-1:2], self._steps[-1]]
