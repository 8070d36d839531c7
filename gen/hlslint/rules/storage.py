"""Memories and their first contents."""

from __future__ import annotations

from tree_sitter import Node

from gen.hlslint.finding import Found
from gen.hlslint.rules import unit_rules
from gen.hlslint.rules.pragmas import initialised
from gen.hlslint.syntax import (
    declarators,
    declared_name,
    enclosing,
    find,
    has_array,
    initializer,
    row,
    specifiers,
    text,
)
from gen.hlslint.unit import Unit

MAX_INITIALISERS = 65536
_SCALARS = frozenset(
    {"int", "unsigned", "bool", "long", "short", "float", "double", "char", "size_t", "auto"}
)


@unit_rules("uram-initialised")
def uram_initialised(unit: Unit) -> Found:
    """Ultra RAM has no initial contents on UltraScale+: an initialised array in it is an error."""
    for pragma in unit.pragmas:
        impl = (pragma.value("impl") or "").lower()
        kind = (pragma.value("type") or "").lower()
        if pragma.name != "bind_storage" or not impl.startswith("uram"):
            continue
        if kind.startswith("rom"):
            yield row(pragma.node), "a ROM cannot live in ultra RAM"
        elif initialised(unit, pragma):
            yield row(pragma.node), f"{pragma.value('variable')} has initial values in ultra RAM"


def _literals_only(values: Node) -> bool:
    allowed = {"number_literal", "initializer_list", "unary_expression", "true", "false", "comment"}
    return all(child.type in allowed or _in_literal(child) for child in values.named_children)


def _in_literal(node: Node) -> bool:
    return node.type == "initializer_list" and _literals_only(node)


@unit_rules("array-refilled")
def array_refilled(unit: Unit) -> Found:
    """A local array with initial values is written again at every call; a ROM is static const."""
    for function in unit.functions:
        for declaration in find(function.body, "declaration"):
            if specifiers(declaration) & {"static", "constexpr"}:
                continue
            for declarator in declarators(declaration):
                value = initializer(declarator)
                if value is None or value.type != "initializer_list" or not has_array(declarator):
                    continue
                if len(value.named_children) > 1 and _literals_only(value):
                    name = declared_name(declarator)
                    yield row(declaration), f"{name} is filled again at every call"


@unit_rules("initialiser-size")
def initialiser_size(unit: Unit) -> Found:
    """Huge initialiser lists take hours of synthesis or end it; stream the values in instead."""
    for values in find(unit.root, "initializer_list"):
        if enclosing(values, "initializer_list") is None:
            count = sum(1 for _ in find(values, "number_literal"))
            if count > MAX_INITIALISERS:
                yield row(values), f"a list of {count} values, more than {MAX_INITIALISERS}"


@unit_rules("static-state")
def static_state(unit: Unit) -> Found:
    """A free-running kernel's static state is never reset until the bitstream is loaded again."""
    if not unit.free_running:
        return
    for declaration in find(unit.root, "declaration"):
        words = specifiers(declaration)
        inside = enclosing(declaration, "function_definition") is not None
        changes = not words & {"const", "constexpr"}
        if changes and ("static" in words or not inside) and _is_scalar(declaration):
            for declarator in declarators(declaration):
                if declarator.type in ("identifier", "init_declarator"):
                    yield row(declaration), f"{declared_name(declarator)} is never reset"


def _is_scalar(declaration: Node) -> bool:
    kind = text(declaration.child_by_field_name("type"))
    if any(has_array(each) for each in declarators(declaration)):
        return False
    first = kind.replace("std::", "").split("<")[0].split()
    return bool(first) and (
        first[0] in _SCALARS or first[0].endswith("_t") or first[0] in ("ap_int", "ap_uint")
    )


@unit_rules("uninitialised")
def uninitialised(unit: Unit) -> Found:
    """A variable that is read before it is written is random in hardware and often zero in g++."""
    for function in unit.functions:
        for declaration in find(function.body, "declaration"):
            if not _is_scalar(declaration) or "static" in specifiers(declaration):
                continue
            for declarator in declarators(declaration):
                if declarator.type == "identifier" and _read_first(declaration, text(declarator)):
                    yield row(declaration), f"{text(declarator)} is read before it is written"


def _read_first(declaration: Node, name: str) -> bool:
    """Whether the first use of a variable after its declaration reads it."""
    block = declaration.parent
    if block is None:
        return False
    for each in find(block, "identifier"):
        if each.start_byte < declaration.end_byte or text(each) != name:
            continue
        parent = each.parent
        if parent is None:
            return False
        if parent.type == "assignment_expression":
            target = parent.child_by_field_name("left")
            plain = text(parent.child_by_field_name("operator")) == "="
            return not (plain and target is not None and target.id == each.id)
        if parent.type == "argument_list":
            return False  # may be a reference that is written
        if parent.type == "binary_expression":
            right = parent.child_by_field_name("right")
            shifted_in = text(parent.child_by_field_name("operator")) == ">>"
            return not (shifted_in and right is not None and right.id == each.id)
        return True
    return False
