"""A translation unit to be checked: its tree, its functions, its pragmas and its tops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tree_sitter import Node

from gen.hlslint.pragma import Pragma, parse_pragma
from gen.hlslint.preprocess import Source, preprocess
from gen.hlslint.syntax import (
    ancestors,
    declared_name,
    find,
    parse,
    specifiers,
    text,
)


@dataclass(frozen=True)
class Parameter:
    """A parameter: name (may be empty), type text without the declarator, its node."""

    name: str
    type: str
    node: Node

    @property
    def is_pointer(self) -> bool:
        """Whether it is a pointer or an array."""
        declarator = self.node.child_by_field_name("declarator")
        return declarator is not None and declarator.type in (
            "pointer_declarator",
            "array_declarator",
            "abstract_pointer_declarator",
        )

    @property
    def is_burst(self) -> bool:
        """Whether it is a memory that is asked for bursts."""
        return "".join(self.type.split()).startswith(("hls::burst_maxi<", "burst_maxi<"))

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream."""
        return is_stream_type(self.type)


def is_stream_type(type_text: str) -> bool:
    """Whether a type's text is that of a stream."""
    return type_text.replace(" ", "").startswith(("hls::stream<", "stream<"))


@dataclass(frozen=True)
class Function:
    """A function with a body; ``scope`` are its namespaces and classes, outermost first."""

    name: str
    scope: tuple[str, ...]
    returns: str
    parameters: tuple[Parameter, ...]
    node: Node
    body: Node
    is_top: bool
    in_class: bool

    @property
    def full_name(self) -> str:
        """Name with its scope."""
        return "::".join((*self.scope, self.name))


def _function_declarator(node: Node) -> Node | None:
    declarator = node.child_by_field_name("declarator")
    while declarator is not None and declarator.type != "function_declarator":
        declarator = declarator.child_by_field_name("declarator") or next(
            (c for c in declarator.named_children if c.type.endswith("declarator")), None
        )
    return declarator


def _function(node: Node) -> Function | None:
    declarator = _function_declarator(node)
    body = node.child_by_field_name("body")
    if declarator is None or body is None:
        return None
    scope: list[str] = []
    is_top = in_class = False
    for parent in ancestors(node):
        if parent.type in ("namespace_definition", "class_specifier", "struct_specifier"):
            in_class = in_class or parent.type != "namespace_definition"
            scope.insert(0, text(parent.child_by_field_name("name")))
        elif parent.type == "linkage_specification":
            is_top = True
    name = text(declarator.child_by_field_name("declarator"))
    *outer, last = name.split("::")
    parameters = declarator.child_by_field_name("parameters")
    listed = [] if parameters is None else list(parameters.named_children)
    return Function(
        name=last,
        scope=(*scope, *outer),
        returns=text(node.child_by_field_name("type")),
        parameters=tuple(
            Parameter(
                declared_name(each.child_by_field_name("declarator")),
                text(each.child_by_field_name("type")),
                each,
            )
            for each in listed
            if each.type in ("parameter_declaration", "optional_parameter_declaration")
        ),
        node=node,
        body=body,
        is_top=is_top and not in_class and "static" not in specifiers(node),
        in_class=in_class,
    )


@dataclass(frozen=True)
class Unit:
    """A parsed translation unit. Rows of nodes are mapped to files by ``source.origins``."""

    source: Source
    root: Node

    def raw_lines(self, path: str) -> list[str]:
        """Lines of a file as a person wrote them, with comments; none if it cannot be read."""
        try:
            return Path(path).read_text(errors="replace").splitlines()
        except OSError:
            return []

    @cached_property
    def functions(self) -> list[Function]:
        """Functions with bodies, in the order of the text."""
        made = (_function(node) for node in find(self.root, "function_definition"))
        return [function for function in made if function is not None]

    @cached_property
    def tops(self) -> list[Function]:
        """Functions with C linkage: the kernels."""
        return [function for function in self.functions if function.is_top]

    @cached_property
    def pragmas(self) -> list[Pragma]:
        """Every ``#pragma HLS``."""
        found = []
        for node in find(self.root, "preproc_call"):
            if text(node.child_by_field_name("directive")) == "#pragma":
                pragma = parse_pragma(node)
                if pragma is not None:
                    found.append(pragma)
        return found

    def pragmas_of(self, function: Function) -> list[Pragma]:
        """Pragmas inside a function."""
        first, last = function.body.start_byte, function.body.end_byte
        return [p for p in self.pragmas if first <= p.node.start_byte < last]

    def protocol(self, top: Function) -> str | None:
        """Block protocol that the pragmas of a top choose."""
        for pragma in self.pragmas_of(top):
            if pragma.name == "interface" and pragma.value("port") == "return":
                mode = pragma.mode
                if mode is not None and mode.startswith("ap_ctrl"):
                    return mode
        return None

    @cached_property
    def free_running(self) -> bool:
        """Whether a kernel of the unit runs without being started."""
        return any(self.protocol(top) == "ap_ctrl_none" for top in self.tops)


def load_unit(path: Path, folders: Sequence[Path]) -> Unit:
    """Preprocess and parse a file.

    Raises:
        UserError: it does not get through the preprocessor.
    """
    source = preprocess(path, folders)
    return Unit(source, parse(source.text))
