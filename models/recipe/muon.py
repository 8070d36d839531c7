"""Momentum with orthogonalised steps for weight matrices, which needs fewer steps than AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly, by Newton-Schulz rounds; ``(m, n)`` ``float32``."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        change = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, change, x, beta=3.4445)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum; convolution kernels are flattened to ``(out, in * h * w)``.

    Steps are scaled to the size that AdamW's have, so that AdamW's learning rates fit.
    """

    def __init__(self, weights: Iterable[Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move every weight once."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                average = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"])
                move = orthogonalise(ahead.reshape(ahead.shape[0], -1))
                scale = 0.2 * max(move.shape) ** 0.5
                weight.add_(move.reshape(weight.shape), alpha=-group["lr"] * scale)
        return None
