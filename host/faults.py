"""Faults of a card, each as one sentence that says what to do."""

from __future__ import annotations

from gen.errors import UserError


class CardFault(UserError):
    """A card that failed. The same work may succeed on it after a reset, or on another card.

    ``final``: a reset does not help (no card, wrong platform, the wrong file).
    """

    final = False


class CardUnusable(CardFault):
    """A card that cannot be used as it is."""

    final = True


CONTINUE = "and run the same command again: it continues where it stopped"


def reset_advice(address: str) -> str:
    """What to do about a card that hangs."""
    return f"reset it (`xbutil reset -d {address}`), or take another card by --device, {CONTINUE}"
