"""What users ask for on the command line, checked before any work begins."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from gen.errors import UserError

# choice of --bits -> bits of a weight
BITS = {"w8a8": 8, "w4a8": 4}


def check_numbers(clock_mhz: float = 0.0, **counts: int) -> None:
    """Clock in MHz, and counts by the name of their option; 0 stands for the default.

    Raises:
        UserError: a number that is none, or a negative one.
    """
    for name, value in counts.items():
        if value < 0:
            raise UserError(f"--{name} {value}: give 1 or more, or leave it out for the default")
    if not isfinite(clock_mhz) or clock_mhz < 0:
        raise UserError(f"--clock {clock_mhz:g}: give a clock in MHz, 222 for example")


def make_place(file: Path | None, option: str) -> None:
    """Make the folder of a file that is going to be written, if there is to be one.

    Raises:
        UserError: no file can be written there.
    """
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{file.parent}: no folder can be made there ({error.strerror}); choose another file "
            f"by {option}"
        ) from error
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name a file by {option}")
