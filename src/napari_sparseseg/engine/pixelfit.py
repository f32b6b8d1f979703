"""Fitting the pixel head: a burst of quick steps on single voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.engine.lessons import Criterion, Targets
from napari_sparseseg.engine.network import PixelHead
from napari_sparseseg.engine.optimiser import AdamW, one_cycle

_BATCH = 2048
_STEP_SIZE = 1e-2
_LONG = 300  # steps; in a longer burst they are smaller
_WEIGHT_DECAY = 1e-2
_STEPS_PER_ITEM = 20


def fit_pixel_head(
    head: PixelHead,
    features: Tensor,
    targets: Targets,
    criterion: Criterion,
    *,
    n_steps: int,
    dropout: float,
    noise: float,
    rng: np.random.Generator,
    hurry: Callable[[], float] = lambda: 0.0,
) -> Iterator[float]:
    """Train on standardised features (n, features); yields the loss every few steps and after the last.

    `targets` are of the same n voxels, `criterion` is the loss. The step size rises and falls once over the
    burst, and is smaller in a long one. `noise` is added to the features, in units of their spread. `hurry` tells the
    share of the time for this burst that is used; on a slow machine it ends the burst before all steps are done.
    """
    optimiser = AdamW(head.parameters(), weight_decay=_WEIGHT_DECAY)
    step_size = _STEP_SIZE * min(1.0, _LONG / n_steps)
    n_voxels = len(features)
    width = head.classify.in_features
    noise_of = noise * features.std(0, correction=0)
    step, used = 0, 0.0
    while used < 1:
        step += 1
        used = max(step / n_steps, hurry())
        drawn = torch.from_numpy(rng.integers(n_voxels, size=min(_BATCH, 4 * n_voxels))).to(features.device)
        keep = [_dropout_factor((len(drawn), width), dropout, rng).to(features.device) for _ in head.hidden]
        seen = features[drawn]
        if noise:
            drift = torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32)).to(seen.device)
            seen = seen + drift * noise_of
        loss = criterion(head(seen, keep), targets[drawn])
        optimiser.step(loss, one_cycle(used, step_size))
        if step % _STEPS_PER_ITEM == 0 or used >= 1:
            yield float(loss.detach())


def _dropout_factor(shape: tuple[int, int], dropout: float, rng: np.random.Generator) -> Tensor:
    """Factors 0 or 1 / (1 - dropout), from our own generator: torch's global one is the user's."""
    kept = rng.random(shape, dtype=np.float32) >= dropout
    return torch.from_numpy(kept).float() / (1 - dropout)
