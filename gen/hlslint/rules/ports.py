"""Ports of kernels: names, protocols, memories."""

from __future__ import annotations

from pathlib import Path

from gen.hlslint.finding import Found
from gen.hlslint.layout import plain_name, structs_of
from gen.hlslint.pragma import Pragma
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import declarators, declared_name, find, row, text
from gen.hlslint.unit import Function, Parameter, Unit
from gen.vitis.topology import RANKS, SPILL, WEIGHT_BITS, topology

# words of Verilog, SystemVerilog, VHDL and C that a port must not be called by
RESERVED = frozenset((Path(__file__).parent.parent / "reserved.txt").read_text().split())
MAX_MASTERS = 4


def _interfaces(unit: Unit, top: Function) -> dict[str, list[Pragma]]:
    found: dict[str, list[Pragma]] = {}
    for pragma in unit.pragmas_of(top):
        if pragma.name == "interface":
            found.setdefault(pragma.value("port") or "", []).append(pragma)
    return found


@unit_rules("port-name")
def port_name(unit: Unit) -> Found:
    """A port called by a reserved word silently becomes NAME_r, and link lines miss it."""
    for top in unit.tops:
        for parameter in top.parameters:
            if parameter.name.lower() in RESERVED:
                yield row(parameter.node), f"port {parameter.name} is a reserved word"


@unit_rules("port-interface")
def port_interface(unit: Unit) -> Found:
    """A port without its own interface pragma gets whatever the flow's default is."""
    for top in unit.tops:
        interfaces = _interfaces(unit, top)
        names = {parameter.name for parameter in top.parameters}
        for port, pragmas in interfaces.items():
            if port not in names and port != "return":
                yield row(pragmas[0].node), f"kernel {top.name} has no port {port}"
        for parameter in top.parameters:
            modes = {pragma.mode for pragma in interfaces.get(parameter.name, [])}
            wanted = _mode(parameter)
            if wanted not in modes:
                yield row(parameter.node), f"port {parameter.name} has no {wanted} interface"
            if modes - {wanted, "s_axilite"}:
                yield row(parameter.node), f"port {parameter.name} has conflicting interfaces"


def _mode(parameter: Parameter) -> str:
    if parameter.is_stream:
        return "axis"
    return "m_axi" if parameter.is_pointer or parameter.is_burst else "s_axilite"


@unit_rules("protocol")
def protocol(unit: Unit) -> Found:
    """XRT refuses to start a free-running kernel, so it must not have scalars or memories.

    A kernel with either is started by the host and needs its return on s_axilite.
    """
    for top in unit.tops:
        chosen = unit.protocol(top)
        interfaces = _interfaces(unit, top)
        driven = [p for p in top.parameters if not p.is_stream]
        lite = any(p.mode == "s_axilite" for p in interfaces.get("return", []))
        if chosen == "ap_ctrl_none":
            for parameter in driven:
                yield row(parameter.node), f"free-running kernel {top.name} has {parameter.name}"
            if lite:
                yield row(top.node), f"free-running kernel {top.name} has a control port"
        elif driven and not lite:
            yield row(top.node), f"kernel {top.name} has no s_axilite interface on return"
        elif not driven and chosen is None:
            yield row(top.node), f"kernel {top.name} chooses no block protocol"


@unit_rules("m-axi")
def m_axi(unit: Unit) -> Found:
    """An m_axi port without depth= is misread by co-simulation, one without bundle= is shared."""
    for top in unit.tops:
        bundles = set()
        for pragmas in _interfaces(unit, top).values():
            for pragma in pragmas:
                if pragma.mode != "m_axi":
                    continue
                for key in ("depth", "bundle", "offset"):
                    if pragma.value(key) is None:
                        yield row(pragma.node), f"m_axi port {pragma.value('port')} has no {key}="
                if pragma.value("depth") == "0":
                    yield row(pragma.node), f"m_axi port {pragma.value('port')} has depth=0"
                if pragma.value("offset") not in (None, "slave"):
                    yield row(pragma.node), "the host sets addresses by offset=slave"
                widen = pragma.value("max_widen_bitwidth")
                power = widen is not None and widen.isdigit() and _power_of_two(int(widen))
                if widen is not None and not power:
                    yield row(pragma.node), f"max_widen_bitwidth={widen} is no power of two to 1024"
                bundles.add(pragma.value("bundle"))
        if len(bundles) > MAX_MASTERS:
            yield row(top.node), f"{len(bundles)} AXI masters, each some 5000 LUT; share bundles"


def _power_of_two(value: int) -> bool:
    return value == 0 or (value & (value - 1) == 0 and value <= 1024)


@unit_rules("port-element")
def port_element(unit: Unit) -> Found:
    """Wide m_axi ports and burst_maxi are documented for integers; a struct may be split up."""
    structs = set(structs_of(unit))
    for node in find(unit.root, "type_definition"):
        if plain_name(text(node.child_by_field_name("type"))) in structs:
            structs.add(text(node.child_by_field_name("declarator")))
    for top in unit.tops:
        for parameter in top.parameters:
            element = parameter.type
            if parameter.is_burst:
                element = element.partition("<")[2].rpartition(">")[0]
            elif not parameter.is_pointer:
                continue
            if plain_name(element) in structs:
                yield row(parameter.node), f"port {parameter.name} is a memory of {element}"


@unit_rules("burst-bundle")
def burst_bundle(unit: Unit) -> Found:
    """A burst_maxi port that shares its bundle mixes its bursts with another port's."""
    for top in unit.tops:
        interfaces = _interfaces(unit, top)
        bundles = {
            parameter.name: pragma.value("bundle")
            for parameter in top.parameters
            for pragma in interfaces.get(parameter.name, [])
            if pragma.mode == "m_axi"
        }
        for parameter in top.parameters:
            if parameter.is_burst:
                bundle = bundles.get(parameter.name)
                if sum(each == bundle for each in bundles.values()) > 1:
                    yield row(parameter.node), f"burst port {parameter.name} shares its bundle"


def _constant(unit: Unit, name: str, default: int) -> int:
    """A parameter of the engine that a unit is made for: the last struct to define it."""
    found = default
    for field in find(unit.root, "field_declaration"):
        for each in declarators(field):
            value = field.child_by_field_name("default_value")
            if declared_name(each) == name and text(value).isdigit():
                found = int(text(value))
    return found


def _allowed(value: int, values: tuple[int, ...]) -> int:
    return value if value in values else values[0]


@unit_rules("port-order")
def port_order(unit: Unit) -> Found:
    """The host counts arguments: a kernel with its ports in another order is misfed.

    A kernel whose stream has another element than the one at its other end is misfed, too.
    """
    known_values = ("RANKS", RANKS), ("WEIGHT_BITS", WEIGHT_BITS)
    ranks, bits = (_allowed(_constant(unit, name, 0), values) for name, values in known_values)
    spill = any(each.name == SPILL.name for top in unit.tops for each in top.parameters)
    engine = topology(ranks, bits, spill, _constant(unit, "SAMPLER_PIXELS", 0) > 0)
    known = {kernel.name: kernel for kernel in engine.kernels}
    for top in unit.tops:
        kernel = known.get(top.name)
        if kernel is None:
            continue
        names = tuple(parameter.name for parameter in top.parameters)
        if names != kernel.ports:
            yield row(top.node), f"kernel {top.name} has ports {names}, not {kernel.ports}"
            continue
        for parameter, port in zip(top.parameters, kernel.parameters, strict=True):
            found = "".join(parameter.type.split()).replace("Engine::RANKS", str(ranks))
            found = found.replace("Engine::WEIGHT_BITS", str(bits))
            wanted = "".join(port.type.rstrip("*& ").removeprefix("const ").split())
            if found != wanted:
                yield row(parameter.node), f"port {parameter.name} is {found}, not {wanted}"
