"""Numbers as the tools print them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from gen.errors import UserError

UNKNOWN = frozenset({"", "?", "-", "undef", "na", "n/a", "x"})


def number(text: str | None) -> float | None:
    """A figure, or None where the tool could not tell (``undef``, ``?``, ``-``, nothing).

    A range such as ``12 ~ 40`` counts as its upper end, ``~0`` as 0.
    """
    if text is None:
        return None
    cleaned = text.replace(",", "").strip()
    if "~" in cleaned:
        cleaned = cleaned.rsplit("~", 1)[1].strip()
    if cleaned.lower() in UNKNOWN:
        return None
    try:
        return float(cleaned.split()[0])
    except ValueError:
        return None


def integer(text: str | None) -> int | None:
    """A whole figure, or None."""
    value = number(text)
    return None if value is None else int(value)


def read_text(path: Path, what: str) -> str:
    """Text of a report.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise UserError(
            f"{path}: {what} cannot be read ({error.strerror}); run its goal"
        ) from error


def read_xml(path: Path, what: str) -> ElementTree.Element:
    """Root of an XML report.

    Raises:
        UserError: it cannot be read or is not XML.
    """
    text = read_text(path, what)
    try:
        return ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: {what} is damaged ({error}); run its goal again") from error
