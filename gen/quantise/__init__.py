"""Calibration and quantisation: from a float layer graph to the integers of the card."""

from __future__ import annotations

from gen.quantise.build import quantise
from gen.quantise.options import Options
from gen.quantise.statistics import Statistics, calibrate

__all__ = ["Options", "Statistics", "calibrate", "quantise"]
