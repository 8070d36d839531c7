"""Writing generated files without touching those that stay the same."""

from __future__ import annotations

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parent.parent / "templates" / "vitis"


def render(template: str, **values: object) -> str:
    """Text of one of the templates; a value that a template misses is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is Tcl and configuration text
    )
    return environment.get_template(template).render(**values)


def write_changed(path: Path, text: str) -> bool:
    """Write a file unless it has that content already; whether it was written.

    make goes by modification times: an unchanged configuration must not start hours of linking.
    """
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text)
    scratch.replace(path)
    return True
