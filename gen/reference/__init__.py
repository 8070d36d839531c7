"""The integer reference: the one definition of every number the card computes.

Formulas and names are those of ``docs/numerics.md``; one file per section of it.
"""

from __future__ import annotations

from gen.reference.attention import logits_of
from gen.reference.run import Observer, run, run_layer

__all__ = ["Observer", "logits_of", "run", "run_layer"]
