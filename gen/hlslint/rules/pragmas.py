"""Pragmas: known, in their place, about something that exists."""

from __future__ import annotations

from tree_sitter import Node

from gen.hlslint.finding import Found
from gen.hlslint.pragma import Pragma
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import (
    declarators,
    declared_name,
    enclosing,
    find,
    has_array,
    initializer,
    row,
)
from gen.hlslint.unit import Unit

_ANY = frozenset({"function", "loop", "block"})
_BODY = frozenset({"function", "loop"})
_LOOP = frozenset({"loop"})
_FUNCTION = frozenset({"function"})
_SHAPE = frozenset({"variable", "dim", "factor", "type"})

# name: (places, options, bare words), after the tool's reference (UG1399, "HLS Pragmas")
KNOWN: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {
    "interface": (
        _FUNCTION,
        frozenset(
            {
                "mode", "port", "bundle", "offset", "depth", "latency", "name", "register",
                "num_read_outstanding", "num_write_outstanding", "max_read_burst_length",
                "max_write_burst_length", "max_widen_bitwidth", "channel", "register_mode",
                "storage_type", "storage_impl", "clock", "direct_io", "interrupt",
            }
        ),
        frozenset(
            {
                "m_axi", "s_axilite", "axis", "ap_none", "ap_ctrl_none", "ap_ctrl_hs",
                "ap_ctrl_chain", "ap_fifo", "ap_memory", "bram", "ap_vld", "ap_ack", "ap_hs",
                "ap_ovld", "ap_stable", "register",
            }
        ),
    ),
    "pipeline": (_BODY, frozenset({"ii", "style"}), frozenset({"rewind", "off", "enable_flush"})),
    "unroll": (_LOOP, frozenset({"factor", "off"}), frozenset({"skip_exit_check", "region"})),
    "dataflow": (_BODY, frozenset(), frozenset({"disable_start_propagation"})),
    "inline": (_FUNCTION, frozenset(), frozenset({"off", "recursive", "region"})),
    "loop_tripcount": (_LOOP, frozenset({"min", "max", "avg"}), frozenset()),
    "loop_flatten": (_LOOP, frozenset(), frozenset({"off"})),
    "loop_merge": (_ANY, frozenset(), frozenset({"force"})),
    "array_partition": (
        _ANY, _SHAPE, frozenset({"complete", "block", "cyclic"}) | {"off"},
    ),
    "array_reshape": (
        _ANY, _SHAPE | {"object"}, frozenset({"complete", "block", "cyclic", "object"}),
    ),
    "stream": (_ANY, frozenset({"variable", "depth", "type", "dim"}), frozenset({"off"})),
    "bind_storage": (_ANY, frozenset({"variable", "type", "impl", "latency"}), frozenset()),
    "bind_op": (_ANY, frozenset({"variable", "op", "impl", "latency"}), frozenset()),
    "dependence": (
        _ANY,
        frozenset({"variable", "class", "type", "direction", "distance", "dependent"}),
        frozenset(
            {"array", "pointer", "inter", "intra", "raw", "war", "waw", "true", "false"}
        ),
    ),
    "latency": (_ANY, frozenset({"min", "max"}), frozenset()),
    "aggregate": (_ANY, frozenset({"variable", "compact"}), frozenset()),
    "disaggregate": (_ANY, frozenset({"variable"}), frozenset()),
    "stable": (_FUNCTION, frozenset({"variable"}), frozenset()),
    "allocation": (
        _ANY, frozenset({"function", "operation", "instances", "limit"}),
        frozenset({"function", "operation"}),
    ),
    "function_instantiate": (_FUNCTION, frozenset({"variable"}), frozenset()),
    "performance": (_ANY, frozenset({"target_ti", "target_tl", "assume_ti", "unit"}), frozenset()),
    "expression_balance": (_ANY, frozenset(), frozenset({"off"})),
    "occurrence": (_ANY, frozenset({"cycle"}), frozenset()),
    "protocol": (_ANY, frozenset({"mode"}), frozenset({"floating", "fixed"})),
    "reset": (_ANY, frozenset({"variable"}), frozenset({"off"})),
    "top": (_FUNCTION, frozenset({"name"}), frozenset()),
    "alias": (_ANY, frozenset({"ports", "distance", "offset"}), frozenset()),
    "cache": (_ANY, frozenset({"port", "lines", "depth", "ways", "users"}), frozenset()),
}  # fmt: skip


@unit_rules("pragma-known")
def known(unit: Unit) -> Found:
    """An unknown pragma or option is ignored with a warning, and the hardware is another."""
    for pragma in unit.pragmas:
        if pragma.name not in KNOWN:
            yield row(pragma.node), f"no pragma {pragma.name or '(nothing)'} is known"
            continue
        _, options, words = KNOWN[pragma.name]
        for key, _ in pragma.options:
            if key not in options:
                yield row(pragma.node), f"pragma {pragma.name} has no option {key}"
        for word in pragma.words:
            if word not in words:
                yield row(pragma.node), f"pragma {pragma.name} has no word {word}"


@unit_rules("pragma-place")
def place(unit: Unit) -> Found:
    """A pragma in the wrong place is ignored, or means the block around it."""
    tops = {top.body.id for top in unit.tops}
    for pragma in unit.pragmas:
        places = KNOWN.get(pragma.name, (_ANY,))[0]
        if pragma.place not in places:
            where = " or ".join(sorted(places))
            yield (
                row(pragma.node),
                f"pragma {pragma.name} stands in a {pragma.place}, not a {where}",
            )
        elif pragma.name == "interface" and (
            pragma.node.parent is None or pragma.node.parent.id not in tops
        ):
            yield row(pragma.node), "an interface belongs to a kernel's top function"


def _scope_names(node: Node) -> set[str]:
    """Names that a pragma may speak of: those of its function, and of the file."""
    names: set[str] = set()
    function = enclosing(node, "function_definition")
    if function is not None:
        for each in find(function, "parameter_declaration", "optional_parameter_declaration"):
            names.add(declared_name(each.child_by_field_name("declarator")))
        for each in find(function, "declaration"):
            names |= {declared_name(d) for d in declarators(each)}
    root = node
    while root.parent is not None:
        root = root.parent
    for each in find(root, "declaration", "field_declaration"):
        if enclosing(each, "function_definition") is None:
            names |= {declared_name(d) for d in declarators(each)}
    return names


@unit_rules("pragma-variable")
def variable(unit: Unit) -> Found:
    """A pragma about a name that does not exist is ignored."""
    for pragma in unit.pragmas:
        name = pragma.value("variable")
        if name is None:
            continue
        first = name.replace("->", ".").split(".")[0].split("[")[0]
        if first not in _scope_names(pragma.node) and first not in ("this", "return"):
            yield row(pragma.node), f"pragma {pragma.name} speaks of {first}, which is not declared"


_NEEDS_VARIABLE = frozenset(
    {"array_partition", "array_reshape", "stream", "bind_storage", "bind_op", "stable",
     "aggregate", "disaggregate", "function_instantiate"}
)  # fmt: skip


@unit_rules("pragma-subject")
def subject(unit: Unit) -> Found:
    """A pragma that has to name its variable, port or value and does not is ignored."""
    for pragma in unit.pragmas:
        if pragma.name in _NEEDS_VARIABLE and pragma.value("variable") is None:
            yield row(pragma.node), f"pragma {pragma.name} names no variable"
        if pragma.name == "interface" and pragma.value("port") is None:
            yield row(pragma.node), "pragma interface names no port"
        if pragma.name == "interface" and pragma.mode is None:
            yield row(pragma.node), "pragma interface names no mode"
        cyclic = "cyclic" in pragma.words or pragma.value("type") in ("cyclic", "block")
        if pragma.name == "array_partition" and cyclic and pragma.value("factor") is None:
            yield row(pragma.node), "a cyclic or block partition needs factor="


def _has_reason(unit: Unit, pragma: Pragma) -> bool:
    """Whether a comment stands among the pragmas above, or the file has one of dependences."""
    place = unit.source.origins[row(pragma.node)]
    lines = unit.raw_lines(place.path)
    for line in reversed(lines[: place.line - 1]):
        if line.lstrip().startswith("//"):
            return True
        if not line.lstrip().startswith("#pragma"):
            break
    return any("depend" in line.partition("//")[2].lower() for line in lines)


@unit_rules("dependence-reason")
def dependence(unit: Unit) -> Found:
    """A dependence that is wrongly denied gives right simulations and wrong hardware.

    A comment has to say why there is none: among the pragmas above it, or anywhere in the file
    with the word ``depend``.
    """
    for pragma in unit.pragmas:
        if pragma.name != "dependence":
            continue
        denied = "false" in pragma.words or pragma.value("dependent") == "false"
        if denied and not _has_reason(unit, pragma):
            yield row(pragma.node), "no comment says why there is no dependence"
        if denied and pragma.value("variable") is None:
            yield row(pragma.node), "a denied dependence without variable= means every array"


@unit_rules("multiply-binding")
def multiply_binding(unit: Unit) -> Found:
    """Binding the multiplication of a multiply-add keeps it from being merged into one DSP."""
    for pragma in unit.pragmas:
        if pragma.name == "bind_op" and pragma.value("op") == "mul":
            yield row(pragma.node), "bind_op on a multiplication prevents multiply-add matching"


def initialised(unit: Unit, pragma: Pragma) -> bool:
    """Whether the array that a pragma speaks of has an initialiser or is constant."""
    name = (pragma.value("variable") or "").split(".")[0]
    function = enclosing(pragma.node, "function_definition")
    areas = [each for each in (function, unit.root) if each is not None]
    for area in areas:
        for declaration in find(area, "declaration"):
            for declarator in declarators(declaration):
                if declared_name(declarator) == name and has_array(declarator):
                    return initializer(declarator) is not None
    return False
