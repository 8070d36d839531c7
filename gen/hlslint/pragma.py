"""``#pragma HLS``: its words, and what it stands in."""

from __future__ import annotations

from dataclasses import dataclass

from tree_sitter import Node

from gen.hlslint.syntax import LOOPS, text


@dataclass(frozen=True)
class Pragma:
    """A pragma: lower-case name, ``key=value`` options and bare words, its node and place.

    ``place`` is what it stands in directly: function, loop, block, class or file.
    """

    name: str
    options: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    node: Node
    place: str

    def value(self, key: str) -> str | None:
        """Value of an option."""
        return next((value for name, value in self.options if name == key), None)

    @property
    def mode(self) -> str | None:
        """Mode of an interface, in either spelling."""
        return self.value("mode") or (self.words[0] if self.words else None)


def _place(node: Node) -> str:
    parent = node.parent
    if parent is None or parent.type in ("translation_unit", "declaration_list"):
        return "file"
    if parent.type == "field_declaration_list":
        return "class"
    if parent.type == "compound_statement":
        owner = parent.parent
        if owner is not None and owner.type == "function_definition":
            return "function"
        if owner is not None and owner.type in LOOPS:
            return "loop"
        return "block"
    # a pragma as the only statement of a loop without braces
    return "block"


def parse_pragma(node: Node) -> Pragma | None:
    """Read a pragma's text; None if it is not one of HLS."""
    content = text(node.child_by_field_name("argument")).strip()
    words = content.replace(" = ", "=").replace("= ", "=").replace(" =", "=").split()
    if not words or words[0].upper() != "HLS":
        return None
    if len(words) == 1:
        return Pragma("", (), (), node, _place(node))
    options: list[tuple[str, str]] = []
    bare: list[str] = []
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if equals:
            options.append((key.lower(), value))
        else:
            bare.append(word.lower())
    return Pragma(words[1].lower(), tuple(options), tuple(bare), node, _place(node))
