"""Who calls whom, and what calls do to streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from gen.hlslint.syntax import declarators, declared_name, find, text
from gen.hlslint.unit import Function, Unit, is_stream_type

READS = frozenset({"read", "read_nb"})
WRITES = frozenset({"write", "write_nb"})


@dataclass(frozen=True)
class Call:
    """A call: the name as written, without template arguments, and the arguments."""

    name: str
    member_of: str | None
    arguments: tuple[Node, ...]
    node: Node


def _plain(node: Node | None) -> str:
    """Name of a called thing without its template arguments."""
    if node is None:
        return ""
    if node.type in ("template_function", "template_method", "template_type"):
        return _plain(node.child_by_field_name("name"))
    if node.type == "qualified_identifier":
        scope = _plain(node.child_by_field_name("scope"))
        return f"{scope}::{_plain(node.child_by_field_name('name'))}"
    return text(node)


def call_of(node: Node) -> Call:
    """A call expression taken apart; ``member_of`` is the object of a method call."""
    function = node.child_by_field_name("function")
    arguments = node.child_by_field_name("arguments")
    listed = () if arguments is None else tuple(arguments.named_children)
    listed = tuple(each for each in listed if each.type != "comment")
    if function is not None and function.type == "field_expression":
        owner = text(function.child_by_field_name("argument"))
        return Call(_plain(function.child_by_field_name("field")), owner, listed, node)
    return Call(_plain(function), None, listed, node)


def calls_in(node: Node) -> Iterator[Call]:
    """Every call at or below a node."""
    return (call_of(each) for each in find(node, "call_expression"))


class Calls:
    """Resolution of the calls of a unit by name, scope and number of arguments."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self._by_name: dict[str, list[Function]] = {}
        for function in unit.functions:
            self._by_name.setdefault(function.name, []).append(function)
        self._usage: dict[tuple[int, int], set[str]] = {}

    def resolve(self, call: Call, caller: Function) -> list[Function]:
        """Functions of the unit that a call may mean; methods of other objects are left out."""
        if call.member_of is not None and call.member_of != "this":
            return self._methods(call, caller)
        *scope, name = call.name.split("::")
        candidates = [
            function
            for function in self._by_name.get(name, [])
            if len(call.arguments) <= len(function.parameters)
        ]
        if scope:
            return [f for f in candidates if f.scope[-len(scope) :] == tuple(scope)]
        # the innermost scope of the caller that knows the name
        for depth in range(len(caller.scope), -1, -1):
            inner = [f for f in candidates if f.scope == caller.scope[:depth]]
            if inner:
                return inner
        return []

    def _methods(self, call: Call, caller: Function) -> list[Function]:
        """Methods of an object whose class is written at its declaration in the caller."""
        owner = call.member_of
        types = {p.type for p in caller.parameters if p.name == owner}
        for declaration in find(caller.body, "declaration"):
            if any(declared_name(each) == owner for each in declarators(declaration)):
                types.add(text(declaration.child_by_field_name("type")))
        names = {each.split("<")[0].split("::")[-1].strip() for each in types}
        return [
            function
            for function in self._by_name.get(call.name, [])
            if function.in_class and function.scope[-1] in names
        ]

    def usage(self, function: Function, index: int) -> set[str]:
        """What a function does to its parameter ``index``: subset of {"read", "write"}."""
        key = (function.node.start_byte, index)
        if key not in self._usage:
            self._usage[key] = set()  # ends recursion
            name = function.parameters[index].name
            self._usage[key] = self.uses(function, function.body, name)
        return self._usage[key]

    def uses(self, function: Function, node: Node, name: str) -> set[str]:
        """What the code below a node does to the stream variable ``name``."""
        found: set[str] = set()
        for each in find(node, "call_expression", "binary_expression"):
            if each.type == "binary_expression":
                found |= _shift_use(each, name)
                continue
            call = call_of(each)
            if call.member_of is not None and _root(call.member_of) == name:
                found |= {"read"} if call.name in READS else set()
                found |= {"write"} if call.name in WRITES else set()
                continue
            for position, argument in enumerate(call.arguments):
                if _root(text(argument)) != name:
                    continue
                for callee in self.resolve(call, function):
                    if position < len(callee.parameters):
                        found |= self.usage(callee, position)
        return found


def _root(expression: str) -> str:
    """Variable at the start of ``name``, ``name[i]`` or ``&name``."""
    return expression.strip().lstrip("&*").split("[")[0].strip()


def _shift_use(node: Node, name: str) -> set[str]:
    """``s << x`` writes and ``s >> x`` reads, in chains too."""
    operator = text(node.child_by_field_name("operator"))
    left = node.child_by_field_name("left")
    while left is not None and left.type == "binary_expression":
        left = left.child_by_field_name("left")
    if _root(text(left)) != name:
        return set()
    return {"<<": {"write"}, ">>": {"read"}}.get(operator, set())


@dataclass(frozen=True)
class StreamVariable:
    """A stream declared in a function, with its type's text and declaration."""

    name: str
    type: str
    declarator: Node
    declaration: Node


def local_streams(node: Node) -> list[StreamVariable]:
    """Streams declared at or below a node."""
    found = []
    for declaration in find(node, "declaration"):
        type_text = text(declaration.child_by_field_name("type"))
        if is_stream_type(type_text):
            found += [
                StreamVariable(declared_name(each), type_text, each, declaration)
                for each in declarators(declaration)
            ]
    return found


def stream_names(unit: Unit, function: Function) -> set[str]:
    """Names that mean a stream inside a function."""
    names = {p.name for p in function.parameters if p.is_stream}
    return names | {each.name for each in local_streams(function.body)}
