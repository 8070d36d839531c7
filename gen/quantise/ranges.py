"""Ranges and random samples of the values that calibration sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

Float = NDArray[np.float32]
Arrays = dict[str, NDArray[np.float32]]


@dataclass
class Range:
    """Extremes of every value seen and a random sample of them."""

    low: float = 0.0
    high: float = 0.0
    samples: list[Float] = field(default_factory=list)

    @property
    def absmax(self) -> float:
        """Largest magnitude."""
        return max(-self.low, self.high)

    def values(self) -> NDArray[np.float64]:
        """The sample with both extremes."""
        extremes = np.array([self.low, self.high], np.float32)
        return np.concatenate([*self.samples, extremes]).astype(np.float64)

    def update(self, tensor: torch.Tensor, rng: np.random.Generator, count: int) -> None:
        """Account for the values of ``tensor``, of any shape; keep ``count`` of them."""
        low, high = torch.aminmax(tensor.detach())
        self.note(tensor, float(low), float(high), rng, count)

    def note(
        self, tensor: torch.Tensor, low: float, high: float, rng: np.random.Generator, count: int
    ) -> None:
        """As :meth:`update`, where the extremes are known."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not count:
            return
        values = tensor.detach().to(torch.float32).numpy()
        if values.size <= count:
            self.samples.append(values.flatten())
            return
        # by coordinates, as flattening a transposed tensor would copy it
        self.samples.append(values[tuple(rng.integers(0, size, count) for size in values.shape)])

    def merge(self, other: Range) -> None:
        """Account for what ``other`` has seen after this one."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.samples += other.samples

    def arrays(self) -> Arrays:
        """The same as arrays by field name."""
        samples = np.concatenate([np.zeros(0, np.float32), *self.samples])
        return {"limits": np.array([self.low, self.high], np.float32), "samples": samples}

    @classmethod
    def of(cls, arrays: Arrays) -> Range:
        """What :meth:`arrays` gave. Raises KeyError or ValueError where it is not that."""
        low, high = (float(limit) for limit in arrays["limits"])
        return cls(low, high, [arrays["samples"]] if arrays["samples"].size else [])


@dataclass
class ChannelRange:
    """Extremes of every channel and some random pixels, each with all its channels."""

    low: Float | None = None
    high: Float | None = None
    pixels: list[Float] = field(default_factory=list)

    def limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest value of each channel."""
        assert self.low is not None and self.high is not None
        return self.low.astype(np.float64), self.high.astype(np.float64)

    def values(self) -> NDArray[np.float64]:
        """The sample [pixels, channels]."""
        return np.concatenate(self.pixels).astype(np.float64)

    def update(self, tensor: torch.Tensor, rng: np.random.Generator, count: int) -> None:
        """Account for a tensor [batch, channels, height, width]; keep ``count`` pixels."""
        values = tensor.detach().to(torch.float32)
        lowest, highest = torch.aminmax(values.flatten(2), dim=2)
        low, high = lowest.amin(dim=0).numpy(), highest.amax(dim=0).numpy()
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        batch, _, height, width = values.shape
        item = rng.integers(0, batch, count)
        y, x = rng.integers(0, height, count), rng.integers(0, width, count)
        self.pixels.append(values.numpy()[item, :, y, x].copy())

    def merge(self, other: ChannelRange) -> None:
        """Account for what ``other`` has seen after this one."""
        if other.low is None or other.high is None:
            return
        self.low = other.low if self.low is None else np.minimum(self.low, other.low)
        self.high = other.high if self.high is None else np.maximum(self.high, other.high)
        self.pixels += other.pixels

    def arrays(self) -> Arrays:
        """The same as arrays by field name; none before anything was seen."""
        if self.low is None or self.high is None:
            return {}
        return {"low": self.low, "high": self.high, "pixels": np.concatenate(self.pixels)}

    @classmethod
    def of(cls, arrays: Arrays) -> ChannelRange:
        """What :meth:`arrays` gave. Raises KeyError where it is not that."""
        if not arrays:
            return cls()
        return cls(arrays["low"], arrays["high"], [arrays["pixels"]])
