"""Dataflow regions and the streams in them."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from gen.hlslint.calls import Calls, call_of, calls_in, local_streams
from gen.hlslint.finding import Found
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import (
    LOOPS,
    ancestors,
    declarators,
    declared_name,
    find,
    has_array,
    identifiers,
    initializer,
    row,
    specifiers,
    text,
)
from gen.hlslint.unit import Function, Parameter, Unit

_DECLARATIONS = frozenset(
    {
        "declaration", "preproc_call", "comment", "static_assert_declaration", "alias_declaration",
        "type_definition", "using_declaration", ";",
    }
)  # fmt: skip


def regions(unit: Unit) -> Iterator[tuple[Function, Node]]:
    """(function, block) of every dataflow region."""
    for function in unit.functions:
        for pragma in unit.pragmas_of(function):
            if pragma.name == "dataflow" and pragma.node.parent is not None:
                yield function, pragma.node.parent


def region_calls(block: Node) -> list[Node]:
    """Call expressions that are statements of a region."""
    calls = []
    for child in block.named_children:
        if child.type == "expression_statement" and child.named_children:
            inner = child.named_children[0]
            if inner.type == "call_expression":
                calls.append(inner)
    return calls


@unit_rules("dataflow-canonical")
def canonical(unit: Unit) -> Found:
    """A dataflow region with conditions, returns or computations is serialised or rejected.

    It may hold declarations and calls of void functions only.
    """
    calls = Calls(unit)
    for function, block in regions(unit):
        statements = {each.id for each in region_calls(block)}
        for child in block.named_children:
            if child.type in _DECLARATIONS:
                if child.type == "declaration" and any(calls_in(child)):
                    yield row(child), "a dataflow region computes the value of a declaration"
                continue
            inner = child.named_children[0] if child.named_children else None
            if inner is None or inner.id not in statements:
                what = child.type.replace("_", " ")
                yield row(child), f"a dataflow region holds a {what} beside calls of its processes"
                continue
            call = call_of(inner)
            for callee in calls.resolve(call, function):
                if callee.returns not in ("void", ""):
                    yield row(child), f"process {call.name} of a dataflow region returns a value"
            if any(True for argument in call.arguments for _ in calls_in(argument)):
                yield row(child), f"an argument of process {call.name} is computed by a call"


@unit_rules("stream-endpoints")
def endpoints(unit: Unit) -> Found:
    """A stream with two writers or two readers makes a dataflow region serialised or deadlock.

    So does one that is read before it is written, in the order of the calls.
    """
    calls = Calls(unit)
    for function, block in regions(unit):
        for stream in local_streams(block):
            writers: list[int] = []
            readers: list[int] = []
            statements = region_calls(block)
            for position, node in enumerate(statements):
                used = calls.uses(function, node, stream.name)
                if "write" in used:
                    writers.append(position)
                if "read" in used:
                    readers.append(position)
                if used == {"read", "write"}:
                    name = call_of(node).name
                    yield row(node), f"process {name} both reads and writes stream {stream.name}"
            for count, word in ((len(writers), "writers"), (len(readers), "readers")):
                if count != 1:
                    yield row(stream.declaration), f"stream {stream.name} has {count} {word}"
            if len(writers) == len(readers) == 1 and readers[0] < writers[0]:
                yield row(stream.declaration), f"stream {stream.name} is read before it is written"
        for parameter in function.parameters:
            if parameter.is_stream:
                users = [
                    node
                    for node in region_calls(block)
                    if calls.uses(function, node, parameter.name)
                ]
                if len(users) > 1:
                    yield (
                        row(users[1]),
                        f"stream {parameter.name} is used by {len(users)} processes of the region",
                    )


@unit_rules("region-memory")
def region_memory(unit: Unit) -> Found:
    """A memory that two processes of a dataflow region use is not a channel between them."""
    for function, block in regions(unit):
        statements = region_calls(block)
        for parameter in function.parameters:
            shared = not parameter.is_stream and _is_memory(parameter)
            users = [node for node in statements if parameter.name in identifiers(node)]
            if shared and len(users) > 1:
                yield row(users[1]), f"{parameter.name} is used by {len(users)} processes"
        for declaration in find(block, "declaration"):
            for name in [declared_name(d) for d in declarators(declaration) if has_array(d)]:
                users = [node for node in statements if name in identifiers(node)]
                if len(users) > 2 and "const" not in specifiers(declaration):
                    yield row(users[2]), f"{name} is used by {len(users)} processes"


def _is_memory(parameter: Parameter) -> bool:
    """Whether a parameter is something that a process could write."""
    declarator = parameter.node.child_by_field_name("declarator")
    reference = declarator is not None and declarator.type == "reference_declarator"
    return (reference or parameter.is_pointer) and "const" not in specifiers(parameter.node)


@unit_rules("stream-feedback")
def feedback(unit: Unit) -> Found:
    """A function that reads and writes the same stream feeds itself."""
    calls = Calls(unit)
    for function in unit.functions:
        for index, parameter in enumerate(function.parameters):
            if parameter.is_stream and calls.usage(function, index) == {"read", "write"}:
                yield row(function.node), f"{function.name} reads and writes {parameter.name}"


@unit_rules("stream-depth")
def depth(unit: Unit) -> Found:
    """A stream is two elements deep in hardware and unbounded in C simulation unless told."""
    for function in unit.functions:
        told = {
            pragma.value("variable")
            for pragma in unit.pragmas_of(function)
            if pragma.name == "stream" and pragma.value("depth") is not None
        }
        for stream in local_streams(function.body):
            templated = "," in stream.type
            if not templated and stream.name not in told:
                yield row(stream.declaration), f"stream {stream.name} has no depth"


@unit_rules("stream-name")
def named(unit: Unit) -> Found:
    """A stream without a name leaves deadlock reports and warnings unreadable."""
    for function in unit.functions:
        for stream in local_streams(function.body):
            value = initializer(stream.declarator)
            words = [value] if value is not None else []
            if stream.declarator.type == "function_declarator":
                words.append(stream.declarator)
            if not any(True for word in words for _ in find(word, "string_literal")):
                yield row(stream.declaration), f"stream {stream.name} is not given its name"


@unit_rules("stream-blocking")
def blocking(unit: Unit) -> Found:
    """Non-blocking accesses make results depend on timing, and may never end in co-simulation."""
    asked = {"empty", "full", "size", "read_nb", "write_nb"}
    for function in unit.functions:
        streams = {p.name for p in function.parameters if p.is_stream}
        streams |= {stream.name for stream in local_streams(function.body)}
        for call in calls_in(function.body):
            if call.member_of in streams and call.name in asked:
                yield row(call.node), f"{call.member_of}.{call.name}() does not block"


@unit_rules("stream-static")
def static_stream(unit: Unit) -> Found:
    """A static or global stream keeps what an aborted run left in it."""
    for stream in local_streams(unit.root):
        inside = any(
            each.type in ("function_definition", *LOOPS) for each in ancestors(stream.declaration)
        )
        if not inside or "static" in text(stream.declaration).split("<")[0].split():
            yield row(stream.declaration), f"stream {stream.name} outlives the kernel's call"
