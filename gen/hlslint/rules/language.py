"""C++ that compiles everywhere but not into hardware."""

from __future__ import annotations

from tree_sitter import Node

from gen.hlslint.calls import Calls, calls_in
from gen.hlslint.finding import Found
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import find, row, specifiers, text, unquoted
from gen.hlslint.unit import Function, Unit

_ALLOWED_HEADERS = frozenset(
    {
        "cstdint", "stdint.h", "cstddef", "stddef.h", "climits", "limits.h", "limits", "cassert",
        "assert.h", "cmath", "math.h", "cfloat", "float.h", "complex", "type_traits", "utility",
    }
)  # fmt: skip
_ALLOCATION = frozenset(
    {"malloc", "calloc", "realloc", "free", "alloca", "posix_memalign", "aligned_alloc", "strdup"}
)
_CONTAINERS = (
    "vector", "map", "unordered_map", "set", "list", "deque", "string", "queue", "stack",
    "unique_ptr", "shared_ptr", "function",
)  # fmt: skip


@unit_rules("header")
def header(unit: Unit) -> Found:
    """Headers of containers, I/O, threads or the system bring what cannot be synthesised."""
    for include in unit.source.includes:
        name = include.header
        tool = name.startswith(("ap_", "hls_", "hls/", "etc/"))
        if name not in _ALLOWED_HEADERS and not tool:
            yield include.at, f"<{name}> is included for synthesis"


@unit_rules("recursion")
def recursion(unit: Unit) -> Found:
    """Recursion cannot be synthesised."""
    calls = Calls(unit)
    graph: dict[int, set[int]] = {}
    functions = {function.node.start_byte: function for function in unit.functions}
    for key, function in functions.items():
        graph[key] = {
            callee.node.start_byte
            for call in calls_in(function.body)
            for callee in calls.resolve(call, function)
            if _same_arity(callee, len(call.arguments))
        }
    for key, function in functions.items():
        if _reaches(graph, key):
            yield row(function.node), f"{function.full_name} calls itself"


def _same_arity(callee: Function, count: int) -> bool:
    optional = sum(p.node.type == "optional_parameter_declaration" for p in callee.parameters)
    return len(callee.parameters) - optional <= count <= len(callee.parameters)


def _reaches(graph: dict[int, set[int]], start: int) -> bool:
    seen: set[int] = set()
    stack = list(graph[start])
    while stack:
        key = stack.pop()
        if key == start:
            return True
        if key not in seen:
            seen.add(key)
            stack.extend(graph.get(key, ()))
    return False


@unit_rules("dynamic-memory")
def dynamic_memory(unit: Unit) -> Found:
    """Memory taken at run time cannot be synthesised."""
    for node in find(unit.root, "new_expression", "delete_expression"):
        yield row(node), f"{node.type.split('_')[0]} takes or gives memory at run time"
    for call in calls_in(unit.root):
        if call.member_of is None and call.name.split("::")[-1] in _ALLOCATION:
            yield row(call.node), f"{call.name} takes or gives memory at run time"
    for node in find(unit.root, "qualified_identifier"):
        name = unquoted(text(node)).split("<")[0]
        if name.startswith("std::") and name[5:] in _CONTAINERS:
            yield row(node), f"{name} takes memory at run time"


@unit_rules("construct")
def construct(unit: Unit) -> Found:
    """Exceptions, run-time types, virtual functions and jumps cannot be synthesised."""
    kinds = {
        "throw_statement": "throw", "try_statement": "try", "goto_statement": "goto",
        "asm_statement": "asm", "gnu_asm_expression": "asm", "virtual": "virtual",
    }  # fmt: skip
    for node in find(unit.root, *kinds):
        yield row(node), f"{kinds[node.type]} cannot be synthesised"
    for call in calls_in(unit.root):
        if call.name.split("<")[0] in ("dynamic_cast", "typeid", "setjmp", "longjmp"):
            yield row(call.node), f"{call.name} cannot be synthesised"
    for node in find(unit.root, "parenthesized_declarator"):
        parent = node.parent
        pointer = any(child.type == "pointer_declarator" for child in node.named_children)
        if pointer and parent is not None and parent.type == "function_declarator":
            yield row(node), "a pointer to a function cannot be synthesised"


@unit_rules("pointer")
def pointer(unit: Unit) -> Found:
    """Pointers to pointers and casts between pointers cannot be synthesised."""
    for node in find(unit.root, "pointer_declarator"):
        inner = node.child_by_field_name("declarator")
        if inner is not None and inner.type == "pointer_declarator":
            yield row(node), "a pointer to a pointer cannot be synthesised"
    for call in calls_in(unit.root):
        if call.name in ("reinterpret_cast", "const_cast"):
            yield row(call.node), f"{call.name} changes what a pointer means"
    for node in find(unit.root, "cast_expression"):
        if "*" in text(node.child_by_field_name("type")):
            yield row(node), "a cast between pointers cannot be synthesised"


@unit_rules("volatile")
def volatile(unit: Unit) -> Found:
    """A volatile pointer never bursts."""
    for node in find(unit.root, "parameter_declaration", "declaration", "field_declaration"):
        if "volatile" in specifiers(node):
            yield row(node), "volatile disables bursts"


@unit_rules("plain-char")
def plain_char(unit: Unit) -> Found:
    """Plain char is signed on one compiler and unsigned on another."""
    for node in find(unit.root, "primitive_type"):
        if text(node) == "char" and not _is_text(node):
            yield row(node), "plain char has no defined sign; use int8_t or uint8_t"


def _is_text(node: Node) -> bool:
    """Whether the char belongs to text (const char*), or its sign is said."""
    parent = node.parent
    if parent is not None and parent.type == "sized_type_specifier":
        return True
    return parent is not None and "const" in specifiers(parent) and "*" in text(parent)


@unit_rules("cxx14")
def cxx14(unit: Unit) -> Found:
    """The tool documents C++14; newer syntax may pass g++ alone."""
    for node in find(unit.root, "structured_binding_declarator", "concept_definition"):
        yield row(node), "newer than C++14"
    for node in find(unit.root, "if_statement"):
        if any(child.type == "constexpr" for child in node.children):
            yield row(node), "if constexpr is newer than C++14"
    for node in find(unit.root, "nested_namespace_specifier"):
        yield row(node), "nested namespaces are newer than C++14"


@unit_rules("top-function")
def top_function(unit: Unit) -> Found:
    """A kernel returns void, and its name is defined once."""
    seen: set[str] = set()
    for top in unit.tops:
        if top.returns != "void":
            yield row(top.node), f"kernel {top.name} returns {top.returns}"
        if top.name in seen:
            yield row(top.node), f"kernel {top.name} is defined twice"
        seen.add(top.name)


@unit_rules("unparsed")
def unparsed(unit: Unit) -> Found:
    """What the checker cannot read, it cannot check."""
    for node in find(unit.root, "ERROR"):
        yield row(node), f"cannot be parsed: {text(node)[:40]!r}"
