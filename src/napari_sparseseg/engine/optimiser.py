"""AdamW on a handful of tensors, some of which may be moved as whole matrices.

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
_SHORTEST = 1e-16  # length of a gradient, below which it is none
_LIKE_ADAM = 0.2  # root mean square of a direction, as AdamW's are on the average
_ITERATION = (3.4445, -4.7750, 2.0315)  # brings singular values between 0.7 and 1.2, small ones quickly
_N_ITERATIONS = 5


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    `paces` may say for each parameter which part of the step size it takes. Those that are among `matrices` (rows
    first, all further axes are columns) go `wholeness`, 0..1, of their way in the direction of the nearest matrix with
    orthogonal rows: all that they do to their input changes as much, not only what changes their output most
    (Muon, Jordan et al. 2024, with the step sizes of Liu et al. 2025, arXiv:2502.16982).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, weight_decay: float, matrices: Iterable[nn.Parameter] = ()
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.weight_decay = weight_decay
        self.wholeness = 1.0
        are_matrices = {id(matrix) for matrix in matrices}
        self._matrices = [number for number, p in enumerate(self.parameters) if id(p) in are_matrices]
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
            directions = torch._foreach_div(self.means, spread)  # noqa: SLF001
            torch._foreach_div_(directions, correction)
            self._turn_matrices(directions, gradients)
            torch._foreach_mul_(self.parameters, [1 - size * self.weight_decay for size in sizes])
            torch._foreach_mul_(directions, [-size for size in sizes])
            torch._foreach_add_(self.parameters, directions)

    def _turn_matrices(self, directions: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        if not (self._matrices and self.wholeness):
            return
        ahead = [gradients[n].lerp(self.means[n], _BETAS[0]) for n in self._matrices]  # as Nesterov looks ahead
        turned = orthogonal_rows([matrix.flatten(1) for matrix in ahead])
        for number, matrix in zip(self._matrices, turned, strict=True):
            scale = _LIKE_ADAM * math.sqrt(max(matrix.shape))
            directions[number].lerp_(scale * matrix.reshape(directions[number].shape), self.wholeness)


def orthogonal_rows(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About the nearest matrices whose rows (or columns, where there are fewer) are orthogonal and of length one.

    Singular values become 0.7 to 1.2 by a fixed number of Newton-Schulz steps; those of nearly 0 stay so. What is
    iterated are products of rows with rows, which are small, and of one size together: a GPU is started less often.
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.T for m in matrices]
    wide = [m / m.norm().clamp_min(_SHORTEST) for m in wide]
    factors: dict[int, Tensor] = {}
    for n_rows in {len(m) for m in wide}:
        numbers = [n for n, m in enumerate(wide) if len(m) == n_rows]
        grams = torch.stack([wide[n] @ wide[n].T for n in numbers])
        factors |= dict(zip(numbers, _whitening(grams), strict=True))
    found = [factors[n] @ matrix for n, matrix in enumerate(wide)]
    return [f if f.shape == m.shape else f.T for f, m in zip(found, matrices, strict=True)]


def _whitening(grams: Tensor) -> Tensor:
    """What (n, rows, rows) matrices must be multiplied by, given the products of their rows with their rows."""
    first, second, third = _ITERATION
    found = torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device).expand_as(grams)
    for _ in range(_N_ITERATIONS):
        factor = second * grams + third * (grams @ grams)
        factor.diagonal(dim1=-2, dim2=-1).add_(first)
        found, grams = factor @ found, factor @ grams @ factor
    return found


def one_cycle(used: float, largest: float) -> float:
    """Step size that rises over the first tenth and falls to nothing (Smith & Topin 2017, arXiv:1708.07120)."""
    if used < 0.1:
        return largest * max(0.1, used / 0.1)
    return largest * 0.5 * (1 + math.cos(math.pi * min(1.0, (used - 0.1) / 0.9)))
