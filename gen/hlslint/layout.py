"""Sizes of structs as the compiler lays them out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tree_sitter import Node

from gen.hlslint.syntax import declarators, find, initializer, specifiers, text, unquoted
from gen.hlslint.syntax import declared_name as name_of
from gen.hlslint.unit import Unit

# bytes of a member, which is also its alignment
_SIZES = {
    "bool": 1, "int8_t": 1, "uint8_t": 1, "char": 1, "int16_t": 2, "uint16_t": 2, "short": 2,
    "int32_t": 4, "uint32_t": 4, "int": 4, "unsigned": 4, "float": 4, "int64_t": 8,
    "uint64_t": 8, "double": 8, "longlong": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Bytes of a type; ``size`` is only known to be a multiple of ``factor`` if it is None (an
    array of a template argument's length). ``padded``: bytes that no member fills.
    """

    size: int | None
    factor: int
    align: int
    padded: bool = False


def plain_name(type_text: str) -> str:
    """Name of a type without scope and template arguments."""
    return unquoted(type_text).split("<")[0].split("::")[-1]


def structs_of(unit: Unit) -> dict[str, Node]:
    """Structs and classes that a unit defines."""
    found = {}
    for node in find(unit.root, "struct_specifier", "class_specifier"):
        if node.child_by_field_name("body") is not None:
            found[plain_name(text(node.child_by_field_name("name")))] = node
    return found


def _constants(unit: Unit) -> dict[str, int]:
    """Whole constants of a unit's namespaces."""
    values: dict[str, int] = {}
    for declaration in find(unit.root, "declaration"):
        if specifiers(declaration) & {"const", "constexpr"}:
            for declarator in declarators(declaration):
                value = _value(initializer(declarator), values)
                if value is not None:
                    values.setdefault(name_of(declarator), value)
    return values


def _value(node: Node | None, known: dict[str, int]) -> int | None:
    """Value of a whole expression, or None."""
    if node is None:
        return None
    if node.type == "number_literal":
        return int(text(node)) if text(node).isdigit() else None
    if node.type == "identifier":
        return known.get(text(node))
    if node.type == "parenthesized_expression":
        return _value(node.named_children[0], known)
    if node.type == "binary_expression":
        left = _value(node.child_by_field_name("left"), known)
        right = _value(node.child_by_field_name("right"), known)
        operator = text(node.child_by_field_name("operator"))
        if left is None or right is None:
            return None
        return {"*": left * right, "+": left + right, "-": left - right}.get(operator)
    return None


class Layouts:
    """Layouts of the structs of a unit."""

    def __init__(self, unit: Unit, structs: dict[str, Node]) -> None:
        self._structs = structs
        self._known = _constants(unit)

    def of(self, name: str) -> Layout:
        """Layout of a struct; of a type that is not known, one byte."""
        if name in _SIZES:
            return Layout(_SIZES[name], _SIZES[name], _SIZES[name])
        node = self._structs.get(name)
        if node is None:
            return Layout(None, 1, 1)
        offset: int | None = 0
        factor, align, padded = 0, 1, False
        body = node.child_by_field_name("body")
        for member in [] if body is None else body.named_children:
            if member.type != "field_declaration" or "static" in specifiers(member):
                continue
            each = self.of(plain_name(text(member.child_by_field_name("type"))))
            padded = padded or each.padded
            align = max(align, each.align)
            for declarator in declarators(member):
                count = self._count(declarator)
                padded = padded or (factor if offset is None else offset) % each.align != 0
                factor = math.gcd(factor, each.factor * (count or 1))
                if offset is not None and each.size is not None and count is not None:
                    offset += each.size * count
                else:
                    offset = None
        end = factor if offset is None else offset
        return Layout(offset, factor, align, padded or end % align != 0)

    def _count(self, declarator: Node) -> int | None:
        """Elements of a member; None if they are not known here."""
        count = 1
        current: Node | None = declarator
        while current is not None and current.type == "array_declarator":
            size = _value(current.child_by_field_name("size"), self._known)
            if size is None:
                return None
            count *= size
            current = current.child_by_field_name("declarator")
        return count
