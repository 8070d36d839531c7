"""Short words for questions to a tree-sitter tree of C++."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import tree_sitter_cpp
from tree_sitter import Language, Node, Parser, Query, QueryCursor

_LANGUAGE = Language(tree_sitter_cpp.language())
_PARSER = Parser(_LANGUAGE)

LOOPS = frozenset({"for_statement", "while_statement", "do_statement", "for_range_loop"})
FUNCTIONS = frozenset({"function_definition"})


def parse(text: bytes) -> Node:
    """Root of the tree of a text."""
    return _PARSER.parse(text).root_node


def text(node: Node | None) -> str:
    """Source text of a node."""
    return "" if node is None or node.text is None else node.text.decode(errors="replace")


@functools.cache
def _query(kinds: tuple[str, ...]) -> Query | None:
    """A query for the kinds that the grammar knows, as nodes or as words; None for none."""
    patterns = [f"({kind})" for kind in kinds if _LANGUAGE.id_for_node_kind(kind, True)]
    patterns += [f'"{kind}"' for kind in kinds if _LANGUAGE.id_for_node_kind(kind, False)]
    return Query(_LANGUAGE, f"[{' '.join(patterns)}] @found") if patterns else None


def find(node: Node, *kinds: str) -> Iterator[Node]:
    """Nodes of the given kinds at or below a node, in the order of the text."""
    query = _query(kinds)
    if query is None:
        return iter(())
    found = QueryCursor(query).captures(node).get("found", [])
    inside = [n for n in found if node.start_byte <= n.start_byte and n.end_byte <= node.end_byte]
    return iter(sorted(inside, key=lambda each: (each.start_byte, -each.end_byte)))


def ancestors(node: Node) -> Iterator[Node]:
    """Parents, innermost first."""
    current = node.parent
    while current is not None:
        yield current
        current = current.parent


def enclosing(node: Node, *kinds: str) -> Node | None:
    """The innermost parent of one of the kinds."""
    return next((each for each in ancestors(node) if each.type in kinds), None)


def row(node: Node) -> int:
    """Row of a node's first character, from 0."""
    return int(node.start_point[0])


_WRAPPERS = frozenset(
    {
        "init_declarator",
        "array_declarator",
        "pointer_declarator",
        "reference_declarator",
        "parenthesized_declarator",
        "function_declarator",
        "attributed_declarator",
    }
)


def declared_name(declarator: Node | None) -> str:
    """Name that a declarator introduces, without its pointers, arrays and initialisers."""
    while declarator is not None and declarator.type in _WRAPPERS:
        inner = declarator.child_by_field_name("declarator")
        if inner is None:
            inner = next((c for c in declarator.named_children if _names(c)), None)
        declarator = inner
    return text(declarator)


def _names(node: Node) -> bool:
    return node.type in _WRAPPERS or node.type in ("identifier", "field_identifier")


def declarators(declaration: Node) -> list[Node]:
    """Declarators of a declaration or field declaration."""
    return declaration.children_by_field_name("declarator")


def has_array(declarator: Node | None) -> bool:
    """Whether a declarator makes an array (of whatever dimension)."""
    while declarator is not None and declarator.type in _WRAPPERS:
        if declarator.type == "array_declarator":
            return True
        declarator = declarator.child_by_field_name("declarator")
    return False


def initializer(declarator: Node) -> Node | None:
    """Initial value of a declarator."""
    return declarator.child_by_field_name("value")


def specifiers(declaration: Node) -> set[str]:
    """Words before the type: static, const, constexpr, volatile, thread_local, ..."""
    kinds = ("storage_class_specifier", "type_qualifier", "virtual", "explicit_function_specifier")
    return {text(child) for child in declaration.children if child.type in kinds}


def identifiers(node: Node) -> set[str]:
    """Every plain identifier below a node."""
    return {text(each) for each in find(node, "identifier")}


def unquoted(type_text: str) -> str:
    """A type's text without spaces and qualifiers."""
    words = type_text.replace("typename ", " ").replace("const ", " ").replace("struct ", " ")
    return "".join(words.split())
