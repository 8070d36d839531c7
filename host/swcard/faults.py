"""Faults of a card on demand, so that what the host does about them can be tried without a card.

``LDA_CARD_FAULTS`` lists faults separated by commas, each ``KIND[@STEP[+]][:CARD]``::

    LDA_CARD_FAULTS=timeout@12:0,lost@30:1

Steps are those that a process runs on a card, counted from 0 (0 and 1 are the self-test, if there
is one, and 2 and 3 with a sampler); a fault of a step within a start of several is the whole
start's; ``+`` means every step from that one on; without a card's index all cards have the fault.

========== =====================================================================================
absent     there is no such card
noshell    the card is on the bus without a shell, as a two-stage card is after every reboot
platform   the card has another platform than the xclbin was linked for
reconfigured  another process has loaded another xclbin
timeout    the start never ends; kernels are stuck until the xclbin is loaded again
error      the step ends in an error state
lost       the card disappears before the step: every call fails, and it cannot be opened again
wrong      one bit of the step's result is flipped
killed     the driver kills the process with SIGBUS, as it does after an ECC error
========== =====================================================================================
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

VARIABLE = "LDA_CARD_FAULTS"
AT_ONCE = ("absent", "noshell", "platform", "reconfigured")
IN_STEP = ("timeout", "error", "lost", "wrong", "killed")
_ENTRY = re.compile(r"(?P<kind>[a-z]+)(@(?P<step>\d+)(?P<on>\+)?)?(:(?P<card>\d+))?")


@dataclass(frozen=True)
class Fault:
    """One fault; ``step`` None: of the card as it is, ``card`` None: of every card."""

    kind: str
    step: int | None
    onwards: bool
    card: int | None


def parse(text: str) -> tuple[Fault, ...]:
    """The faults of a list.

    Raises:
        ValueError: an entry that is none.
    """
    faults = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _ENTRY.fullmatch(entry)
        kind, step = (match["kind"], match["step"]) if match else ("", None)
        if match is None or kind not in (AT_ONCE if step is None else IN_STEP):
            raise ValueError(
                f"{VARIABLE}: {entry!r} is no fault; use KIND[:CARD] with {', '.join(AT_ONCE)} "
                f"or KIND@STEP[+][:CARD] with {', '.join(IN_STEP)}"
            )
        card = None if match["card"] is None else int(match["card"])
        faults.append(Fault(kind, None if step is None else int(step), bool(match["on"]), card))
    return tuple(faults)


class Faults:
    """The faults of one card."""

    def __init__(self, card: int, text: str | None = None) -> None:
        planned = parse(os.environ.get(VARIABLE, "") if text is None else text)
        self._faults = [fault for fault in planned if fault.card in (None, card)]

    def has(self, kind: str) -> bool:
        """Whether the card as such has a fault."""
        return any(fault.kind == kind and fault.step is None for fault in self._faults)

    def of_steps(self, first: int, end: int) -> str:
        """The kind of the first fault that the steps from ``first`` to before ``end``, those of a
        start, meet, or an empty string.
        """
        for step in range(first, end):
            for fault in self._faults:
                if fault.step is None:
                    continue
                if fault.step == step or (fault.onwards and fault.step < step):
                    return fault.kind
        return ""
