"""What the checker reports, and the registry of its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gen.hlslint.preprocess import Origin


@dataclass(frozen=True, order=True)
class Finding:
    """A violation of a rule at a line (counted from 1) of a file."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message} [{self.rule}]"


Subject = TypeVar("Subject")
# a row of a unit's text or a line of a configuration, or the origin itself
Found = Iterable[tuple[int | Origin, str]]


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """A named check; yields (place, message), where a place is what its subject counts in."""

    name: str
    check: Callable[[Subject], Found]

    @property
    def trap(self) -> str:
        """What the rule guards against: the first line of its docstring."""
        return (self.check.__doc__ or "").strip().split("\n")[0]


class Rules(Generic[Subject]):
    """The rules for one kind of subject, in the order in which they were written."""

    def __init__(self) -> None:
        self.all: list[Rule[Subject]] = []

    def listing(self) -> list[tuple[str, str]]:
        """(name, trap) of every rule."""
        return [(rule.name, rule.trap) for rule in self.all]

    def __call__(
        self, name: str
    ) -> Callable[[Callable[[Subject], Found]], Callable[[Subject], Found]]:
        """Register a function as the rule ``name``."""

        def register(check: Callable[[Subject], Found]) -> Callable[[Subject], Found]:
            self.all.append(Rule(name, check))
            return check

        return register
