"""Training against the clock: a one-cycle rate by elapsed share, and resumable checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch


def one_cycle(share: float, warm_up: float = 0.05, floor: float = 0.002) -> float:
    """Factor on the learning rate when ``share`` (0..1) of the time budget is spent."""
    if share < warm_up:
        return 0.04 + 0.96 * share / warm_up
    done = min(1.0, (share - warm_up) / (1 - warm_up))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


class Budget:
    """Seconds of training spent so far, counted over restarts."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.total = 60.0 * minutes
        self._start = time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds spent."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """Share of the budget spent, 0..1."""
        return min(1.0, self.spent / self.total)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that an interruption leaves the previous one whole."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Last checkpoint, or ``None`` when training has not begun."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
