"""Types of numbers and of stream elements."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from gen.hlslint.calls import calls_in, local_streams
from gen.hlslint.finding import Found
from gen.hlslint.layout import Layouts, plain_name, structs_of
from gen.hlslint.preprocess import Define
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import (
    declarators,
    declared_name,
    find,
    row,
    specifiers,
    text,
    unquoted,
)
from gen.hlslint.unit import Unit, is_stream_type

DEFAULT_MAX_BITS = 1024
_WIDE = frozenset({"ap_int", "ap_uint", "ap_fixed", "ap_ufixed"})
_SIDE_CHANNELS = ("ap_axiu", "ap_axis", "hls::axis", "qdma_axis")


def _limit(unit: Unit) -> tuple[int, Define | None]:
    """Largest width of an integer, and the definition that raises it."""
    for define in unit.source.defines:
        if define.name == "AP_INT_MAX_W" and define.value.isdigit():
            return int(define.value), define
    return DEFAULT_MAX_BITS, None


@unit_rules("integer-width")
def integer_width(unit: Unit) -> Found:
    """ap_int ends at AP_INT_MAX_W bits, 1024 unless it is defined before ap_int.h is included."""
    limit, define = _limit(unit)
    first = next((i for i in unit.source.includes if i.header == "ap_int.h"), None)
    if define is not None and first is not None and define.row > first.row:
        yield define.at, "AP_INT_MAX_W is defined after ap_int.h was included"
        limit = DEFAULT_MAX_BITS
    for node in find(unit.root, "template_type"):
        if text(node.child_by_field_name("name")) not in _WIDE:
            continue
        arguments = node.child_by_field_name("arguments")
        width = arguments.named_children[0] if arguments and arguments.named_children else None
        if width is not None and text(width).isdigit() and int(text(width)) > limit:
            yield row(node), f"{text(node)} is wider than {limit} bits"


def _element(stream_type: str) -> str:
    """Element type of a stream's type text."""
    inside = unquoted(stream_type).split("stream<", 1)[1].rsplit(">", 1)[0]
    depth = 0
    for position, character in enumerate(inside):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            return inside[:position]
    return inside


def _stream_types(unit: Unit) -> Iterator[tuple[Node, str]]:
    """(node, element type) of every stream parameter and variable."""
    for function in unit.functions:
        for parameter in function.parameters:
            if parameter.is_stream:
                yield parameter.node, _element(parameter.type)
    for stream in local_streams(unit.root):
        yield stream.declaration, _element(stream.type)


def _faults(node: Node, structs: dict[str, Node]) -> Iterator[str]:
    """Why a struct is no plain data."""
    name = text(node.child_by_field_name("name"))
    if any(child.type == "base_class_clause" for child in node.children):
        yield f"{name} has a base class"
    body = node.child_by_field_name("body")
    for member in [] if body is None else body.named_children:
        if member.type == "function_definition" or any(
            each.type == "function_declarator" for each in member.named_children
        ):
            yield f"{name} has member functions"
        elif member.type == "field_declaration" and "static" not in specifiers(member):
            if any(
                d.type in ("pointer_declarator", "reference_declarator")
                for d in declarators(member)
            ):
                yield f"{name} has a pointer or reference"
            inner = structs.get(plain_name(text(member.child_by_field_name("type"))))
            if inner is not None:
                yield from _faults(inner, structs)


@unit_rules("stream-element")
def stream_element(unit: Unit) -> Found:
    """A struct on a stream is padded to its largest member; elements are packed plain data."""
    structs = structs_of(unit)
    layouts = Layouts(unit, structs)
    told: set[str] = set()
    for node, element in _stream_types(unit):
        name = plain_name(element)
        if name in structs and name not in told:
            told.add(name)
            for fault in dict.fromkeys(_faults(structs[name], structs)):
                yield row(structs[name]), f"stream element {fault}"
            if layouts.of(name).padded:
                yield row(structs[name]), f"stream element {name} is padded"
        if element.endswith(("*", "&")):
            yield row(node), f"a stream of {element}"


@unit_rules("side-channels")
def side_channels(unit: Unit) -> Found:
    """ap_axiu and hls::axis are legal at a kernel's ports only, not inside."""
    for stream in local_streams(unit.root):
        if _element(stream.type).startswith(_SIDE_CHANNELS):
            yield row(stream.declaration), f"stream {stream.name} inside a kernel has side channels"


@unit_rules("side-channels-set")
def side_channels_set(unit: Unit) -> Found:
    """Keep and last of an AXI word start undefined; network and DMA cores drop such words."""
    for function in unit.functions:
        for declaration in find(function.body, "declaration"):
            kind = unquoted(text(declaration.child_by_field_name("type")))
            if not kind.startswith(_SIDE_CHANNELS) or is_stream_type(kind):
                continue
            for declarator in declarators(declaration):
                name = declared_name(declarator)
                sent = any(
                    call.name == "write" and [text(a) for a in call.arguments] == [name]
                    for call in calls_in(function.body)
                )
                assigned = {
                    text(each.child_by_field_name("left"))
                    for each in find(function.body, "assignment_expression")
                }
                for field in ("keep", "last"):
                    if sent and f"{name}.{field}" not in assigned:
                        yield row(declaration), f"{name}.{field} is sent without being set"
