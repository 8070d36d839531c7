"""Prompts whose sampling calibrates a text-conditional model."""

from __future__ import annotations

from pathlib import Path

from gen.errors import UserError

DEFAULT_PROMPTS = (
    "a red circle and a blue star on a forest background",
    "a yellow heart and a cyan square on a night background",
    "a white triangle and a pink circle on a sunset background",
    "a green cross and a black star on a snow background",
    "a blue circle and a yellow cross on a sky background",
    "a black heart and a red square on a desert background",
)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Prompts of a text file, one a line. Raises UserError if there are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); name a text file") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise UserError(f"{path}: holds no prompt; write one a line")
    return prompts
