"""How long to learn: seconds, steps, or until held-out paint says that it no longer helps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from napari_sparseseg.config import TrainingConfig
from napari_sparseseg.engine.trainer import TrainingStep


@dataclass(slots=True)
class Budget:
    """Decides after each step whether there is another.

    `max_steps` counts U-Net steps from `first_step`; when it is given no decision but `max_seconds` itself looks at
    the clock. Without either, learning ends at a plateau, or after `config.default_seconds`.
    `started` is on the clock of `time.perf_counter`.
    """

    config: TrainingConfig
    max_seconds: float | None = None
    max_steps: int | None = None
    first_step: int = 0
    started: float = field(default_factory=time.perf_counter)
    _best: float = -1.0
    _checks_without_gain: int = 0
    _longest_step: float = 0.0
    _last: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def seconds(self) -> float | None:
        """The limit in seconds that holds, or None."""
        if self.max_seconds is None and self.max_steps is None:
            return self.config.default_seconds
        return self.max_seconds

    def used(self, step: int) -> float:
        """Share of the budget that is used, 0..1."""
        if self.max_steps is not None:
            return min(1.0, (step - self.first_step) / max(1, self.max_steps))
        return min(1.0, self.elapsed / (self.seconds or self.config.default_seconds))

    def is_over(self, step: TrainingStep) -> bool:
        """Whether this was the last step: the next one would not fit, or nothing is gained any more."""
        now = self.elapsed
        if self._last:  # an old long step (the first one reads the features) counts less and less
            self._longest_step = max(0.8 * self._longest_step, now - self._last)
        self._last = now
        if self.seconds is not None and now + self._longest_step > self.seconds:
            return True
        if step.phase != "unet":
            return False
        if self.max_steps is not None:
            return step.step - self.first_step >= self.max_steps
        return self.max_seconds is None and self._is_plateau(step)

    def _is_plateau(self, step: TrainingStep) -> bool:
        if step.dice is None or step.step % self.config.check_every:
            return False
        if step.dice > self._best + 1e-3:
            self._best, self._checks_without_gain = step.dice, 0
        else:
            self._checks_without_gain += 1
        return self._checks_without_gain >= self.config.patience
