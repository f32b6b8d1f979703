"""AdamW on a handful of tensors.

torch's own optimisers import its compiler when the first one is made, which takes over a second: longer than
the pixel head needs to learn. This one starts at once, and its state is plain tensors that can be saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    `paces` may say for each parameter which part of the step size it takes.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.weight_decay = weight_decay
        self.paces: Sequence[float] = [1.0] * len(self.parameters)
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.n_steps = 0

    def step(self, loss: Tensor, step_size: float) -> None:
        """Move the parameters against the gradient of `loss`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        self.n_steps += 1
        sizes = [pace * step_size for pace in self.paces]
        correction = 1 - _BETAS[0] ** self.n_steps
        with torch.no_grad():  # operations on lists, as in torch's own optimisers: a GPU is started once for all
            torch._foreach_lerp_(self.means, gradients, 1 - _BETAS[0])
            torch._foreach_mul_(self.squares, _BETAS[1])
            torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - _BETAS[1])
            spread = torch._foreach_sqrt(self.squares)  # noqa: SLF001 - torch offers it under no other name
            torch._foreach_div_(spread, math.sqrt(1 - _BETAS[1] ** self.n_steps))
            torch._foreach_add_(spread, _EPSILON)
            torch._foreach_mul_(self.parameters, [1 - size * self.weight_decay for size in sizes])
            torch._foreach_addcdiv_(self.parameters, self.means, spread, [-size / correction for size in sizes])


def one_cycle(used: float, largest: float) -> float:
    """Step size that rises over the first tenth and falls to nothing (Smith & Topin 2017, arXiv:1708.07120)."""
    if used < 0.1:
        return largest * max(0.1, used / 0.1)
    return largest * 0.5 * (1 + math.cos(math.pi * min(1.0, (used - 0.1) / 0.9)))
