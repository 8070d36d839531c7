"""Static allocation by live interval: tensors that are never alive together share addresses.

Greedy by size: the largest tensor first, each at the lowest address at which it collides with no
placed tensor that is alive at the same time (Pisarchyk and Lee, "Efficient Memory Management for
Deep Neural Net Inference", 2020, algorithm 3). The lower bound is the largest sum of live sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gen.errors import EngineTooSmall


@dataclass(frozen=True)
class Interval:
    """``size`` units needed from time ``first`` to ``last``, both included, and at the times
    ``again``.
    """

    name: str
    size: int
    first: int
    last: int
    again: tuple[int, ...] = ()

    @property
    def starts(self) -> tuple[int, ...]:
        """Times at which it begins to be alive."""
        return (self.first, *self.again)

    def at(self, time: int) -> bool:
        """Alive at a time."""
        return self.first <= time <= self.last or time in self.again

    def meets(self, other: Interval) -> bool:
        """Alive at the same time."""
        return any(other.at(time) for time in self.starts) or any(
            self.at(time) for time in other.starts
        )


@dataclass(frozen=True)
class Allocation:
    """Address of every name, the units used in all, and the least that any allocation needs."""

    address: dict[str, int]
    peak: int
    bound: int


def allocate(intervals: Sequence[Interval], align: int) -> Allocation:
    """Place every interval at a multiple of ``align``."""
    order = sorted(intervals, key=lambda each: (-each.size, each.first, each.name))
    placed: list[tuple[int, Interval]] = []
    for new in order:
        address = 0
        for start, other in sorted(placed, key=lambda each: each[0]):
            if not new.meets(other) or start + other.size <= address:
                continue
            if address + new.size <= start:
                break
            address = -(-(start + other.size) // align) * align
        placed.append((address, new))
    return Allocation(
        address={each.name: start for start, each in placed},
        peak=max((start + each.size for start, each in placed), default=0),
        bound=bound(intervals),
    )


def live_sum(intervals: Sequence[Interval], time: int) -> int:
    """Units alive at one time."""
    return sum(each.size for each in intervals if each.at(time))


def bound(intervals: Sequence[Interval]) -> int:
    """Largest sum of sizes alive at one time."""
    times = {time for each in intervals for time in each.starts}
    return max((live_sum(intervals, time) for time in times), default=0)


def overlaps(intervals: Sequence[Interval], address: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of names that are alive together and share an address."""
    found = []
    for index, one in enumerate(intervals):
        for other in intervals[index + 1 :]:
            low, high = address[one.name], address[other.name]
            if one.meets(other) and low < high + other.size and high < low + one.size:
                found.append((one.name, other.name))
    return found


def check_capacity(
    intervals: Sequence[Interval],
    allocation: Allocation,
    capacity: int,
    labels: Sequence[str],
    unit: str,
    member: str,
    error: type[EngineTooSmall] = EngineTooSmall,
) -> None:
    """Refuse an allocation that does not fit.

    ``labels`` names the layer executed at each time, ``member`` the engine parameter.

    Raises:
        EngineTooSmall: an ``error``, naming the layer at which most is alive.
    """
    if allocation.peak <= capacity:
        return
    times = range(len(labels))
    worst = max(times, key=lambda time: live_sum(intervals, time))
    raise error(
        f"layer {labels[worst]}: {allocation.peak} {unit} are needed "
        f"({live_sum(intervals, worst)} alive at once), the engine has {capacity}; "
        f"choose an engine with {member} >= {allocation.peak}, a smaller image or batch 1"
    )
