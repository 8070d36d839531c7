"""What a user wants to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gen.quantise.pictures import find_pictures
from gen.quantise.prompts import read_prompts


@dataclass(frozen=True)
class Subjects:
    """Prompts or files of pictures; nothing for the defaults."""

    prompts: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()


def read_subjects(path: Path | None) -> Subjects:
    """The subjects that ``path`` names: a text file of prompts or a folder of pictures.

    Raises UserError for a file or folder without any.
    """
    if path is None:
        return Subjects()
    if path.is_dir():
        return Subjects(pictures=tuple(p.resolve() for p in find_pictures(path)))
    return Subjects(prompts=read_prompts(path))
