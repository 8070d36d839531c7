"""Link configurations: units, ports, memories, SLRs, streams, clocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from gen.hlslint.config import Config, Setting
from gen.hlslint.finding import Found
from gen.hlslint.rules import config_rules
from gen.vitis.topology import HANDSHAKE_WIRES, MAX_PORT_BITS, StreamPort

_KEYS = frozenset({"nk", "sp", "stream_connect", "sc", "slr"})
_MEMORY = re.compile(r"^(?P<kind>[A-Z]+)\[(?P<first>\d+)(?::(?P<last>\d+))?\]$")
_OTHER_MEMORIES = ("PLRAM", "HOST")


@dataclass(frozen=True)
class Connection:
    """``stream_connect=unit.port:unit.port[:depth]`` taken apart."""

    source: tuple[str, str]
    sink: tuple[str, str]
    depth: str | None
    line: int


def _units(config: Config) -> dict[str, str]:
    """Kernel of every compute unit that the nk lines make."""
    units: dict[str, str] = {}
    for setting in config.values("nk"):
        kernel, *rest = setting.value.split(":")
        count = int(rest[0]) if rest and rest[0].isdigit() else 1
        names = [each for part in rest[1:] for each in re.split(r"[.,]", part)]
        for number in range(count):
            name = names[number] if number < len(names) else f"{kernel}_{number + 1}"
            units[name] = kernel
    return units


def _end(text: str) -> tuple[str, str]:
    unit, _, port = text.partition(".")
    return unit, port


def _connections(config: Config) -> Iterator[Connection]:
    for key in ("stream_connect", "sc"):
        for setting in config.values(key):
            parts = setting.value.split(":")
            if len(parts) in (2, 3):
                depth = parts[2] if len(parts) == 3 else None
                yield Connection(_end(parts[0]), _end(parts[1]), depth, setting.line)


def _ports(config: Config, kernel: str) -> tuple[str, ...]:
    return next((each.ports for each in config.topology.kernels if each.name == kernel), ())


def _stream(config: Config, units: dict[str, str], end: tuple[str, str]) -> StreamPort | None:
    """The stream port at an end of a connection."""
    kernel = units.get(end[0])
    found = (each for each in config.topology.kernels if each.name == kernel)
    return next((each.stream(end[1]) for each in found), None)


def _slrs(config: Config) -> dict[str, int]:
    """SLR of every unit that is placed on one that exists."""
    placed: dict[str, int] = {}
    for setting in config.values("slr"):
        unit, _, place = setting.value.partition(":")
        match = re.match(r"^SLR(\d+)$", place)
        if match is not None and int(match[1]) < config.board.slrs:
            placed[unit] = int(match[1])
    return placed


@config_rules("link-key")
def key(config: Config) -> Found:
    """An unknown or malformed connectivity line is an error after hours, or ignored."""
    for setting in config.settings:
        if setting.section == "connectivity" and setting.key not in _KEYS:
            yield setting.line, f"unknown connectivity key {setting.key}"
    for name in ("stream_connect", "sc"):
        for setting in config.values(name):
            if len(setting.value.split(":")) not in (2, 3):
                yield setting.line, f"no connection: {setting.value}"


@config_rules("link-kernel")
def kernel(config: Config) -> Found:
    """Kernels that do not exist, or that no line makes."""
    if not config.is_link:
        return
    known = {each.name for each in config.topology.kernels}
    made = Counter(setting.value.split(":")[0] for setting in config.values("nk"))
    for setting in config.values("nk"):
        name, *rest = setting.value.split(":")
        if name not in known:
            yield setting.line, f"there is no kernel {name}"
        if made[name] > 1:
            yield setting.line, f"kernel {name} has more than one nk line"
        if len(rest) > 1 and re.search(r"[.,]", rest[1]):
            yield setting.line, "the separator of several unit names differs by tool version"
    for name in sorted(known - set(made)):
        yield 1, f"kernel {name} has no nk line"


def _references(config: Config) -> Iterator[tuple[Setting | None, int, str, str | None]]:
    """(setting, line, unit, port) of everything that names a compute unit."""
    for setting in config.values("sp"):
        unit, port = _end(setting.value.partition(":")[0])
        yield setting, setting.line, unit, port
    for setting in config.values("slr"):
        yield setting, setting.line, setting.value.partition(":")[0], None
    for each in _connections(config):
        yield None, each.line, *each.source
        yield None, each.line, *each.sink


@config_rules("link-port")
def port(config: Config) -> Found:
    """A line that names a unit or port that does not exist connects nothing."""
    units = _units(config)
    for setting, number, unit, name in _references(config):
        if unit not in units:
            yield number, f"there is no compute unit {unit}"
        elif name is not None and name not in _ports(config, units[unit]):
            yield number, f"{unit} has no port {name or '(none)'}"
        elif setting is not None and name is not None and _stream(config, units, (unit, name)):
            yield number, f"{unit}.{name} is a stream and has no memory"


def banks(config: Config, tag: str) -> list[int] | None:
    """Banks of a tag or range; None if the board has no such memory."""
    match = _MEMORY.match(tag)
    if match is None:
        return None
    if match["kind"] in _OTHER_MEMORIES:
        return []
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else first
    known = match["kind"] == config.board.memory_kind
    if not known or not first <= last < len(config.board.memory_slr):
        return None
    return list(range(first, last + 1))


@config_rules("link-memory")
def memory(config: Config) -> Found:
    """A memory that the board has not, a port without memory, or more masters than it takes."""
    units = _units(config)
    mapped: set[tuple[str, str]] = set()
    masters: Counter[int] = Counter()
    for setting in config.values("sp"):
        end, _, tag = setting.value.partition(":")
        found = banks(config, tag)
        if found is None:
            yield setting.line, f"{config.board.name} has no memory {tag or '(none)'}"
        if _end(end) in mapped:
            yield setting.line, f"{end} is mapped twice"
        mapped.add(_end(end))
        masters.update(found or [])
    for unit, name in units.items():
        pointers = [each.pointers for each in config.topology.kernels if each.name == name]
        for pointer in [pointer for each in pointers for pointer in each]:
            if (unit, pointer) not in mapped:
                yield (
                    1,
                    f"{unit}.{pointer} has no sp line and lands in a memory of the tool's choice",
                )
    for bank, count in masters.items():
        if count > config.board.max_masters:
            yield 1, f"{count} masters on {config.board.memories[bank]}, which takes fewer"


@config_rules("link-slr")
def slr(config: Config) -> Found:
    """A unit without an SLR, or in another one than its memory, limits the clock."""
    if not config.is_link:
        return
    placed = _slrs(config)
    seen: set[str] = set()
    for setting in config.values("slr"):
        unit, _, place = setting.value.partition(":")
        if unit not in placed:
            yield setting.line, f"{config.board.name} has no {place or 'SLR'}"
        elif unit in seen:
            yield setting.line, f"{unit} is placed twice"
        seen.add(unit)
    for unit in _units(config):
        if unit not in placed:
            yield 1, f"{unit} has no slr line"
    # where every bank is reached through one SLR there is no nearer one
    if len(set(config.board.memory_slr)) == 1:
        return
    for setting in config.values("sp"):
        end, _, tag = setting.value.partition(":")
        unit = _end(end)[0]
        for bank in banks(config, tag) or []:
            if unit in placed and config.board.memory_slr[bank] != placed[unit]:
                yield setting.line, f"{unit} is in SLR{placed[unit]}, {tag} is not"


@config_rules("link-stream")
def stream(config: Config) -> Found:
    """Two writers or readers of an AXI stream, the wrong direction, widths that differ."""
    units = _units(config)
    for end in ("source", "sink"):
        counted = Counter(getattr(each, end) for each in _connections(config))
        for each in _connections(config):
            if counted[getattr(each, end)] > 1:
                verb = "written to" if end == "source" else "read from"
                name = ".".join(getattr(each, end))
                yield each.line, f"{name} is {verb} more than one stream"
    known = {
        ((each.source.name, each.output.name), (each.sink.name, each.input.name))
        for each in config.topology.connections
    }
    for each in _connections(config):
        source = _stream(config, units, each.source)
        sink = _stream(config, units, each.sink)
        if source is None or sink is None:
            continue
        if source.element != sink.element:
            yield (
                each.line,
                f"{source.element} ({source.bits} bits) is connected to {sink.element} "
                f"({sink.bits} bits)",
            )
        if not source.output:
            yield each.line, f"{'.'.join(each.source)} is no output"
        if sink.output:
            yield each.line, f"{'.'.join(each.sink)} is no input"
        elif source.output and (each.source, each.sink) not in known:
            yield each.line, f"{'.'.join(each.source)} does not belong to {'.'.join(each.sink)}"


@config_rules("link-width")
def width(config: Config) -> Found:
    """An AXI stream is 4096 bits wide at most; a wider one does not synthesise."""
    units = _units(config)
    for each in _connections(config):
        source = _stream(config, units, each.source)
        if source is not None and source.bits > MAX_PORT_BITS:
            yield each.line, f"{'.'.join(each.source)} is {source.bits} bits wide"


@config_rules("link-crossing")
def crossing(config: Config) -> Found:
    """Dies are joined by few wires: a stream over two borders, or too many bits over one, fail."""
    units, placed = _units(config), _slrs(config)
    wires: Counter[int] = Counter()
    for each in _connections(config):
        source = _stream(config, units, each.source)
        ends = placed.get(each.source[0]), placed.get(each.sink[0])
        if source is None or ends[0] is None or ends[1] is None:
            continue
        low, high = min(ends[0], ends[1]), max(ends[0], ends[1])
        if high - low > 1:
            yield each.line, f"{'.'.join(each.source)} crosses {high - low} borders of SLRs"
        for border in range(low, high):
            wires[border] += source.bits + HANDSHAKE_WIRES
    for border, count in sorted(wires.items()):
        if count > config.board.link_wires:
            yield (
                1,
                f"{count} wires cross from SLR{border} to SLR{border + 1}, which takes "
                f"{config.board.link_wires}",
            )


@config_rules("link-self")
def self_stream(config: Config) -> Found:
    """A kernel that streams to itself is a link error."""
    for each in _connections(config):
        if each.source[0] == each.sink[0]:
            yield each.line, f"{each.source[0]} streams to itself"


@config_rules("link-open")
def open_end(config: Config) -> Found:
    """A stream port that nothing is connected to waits for ever."""
    if not config.is_link:
        return
    used = {end for each in _connections(config) for end in (each.source, each.sink)}
    units = _units(config)
    for unit, name in units.items():
        for each in _ports(config, name):
            end = (unit, each)
            if _stream(config, units, end) is not None and end not in used:
                yield 1, f"{unit}.{each} is not connected"


@config_rules("link-depth")
def depth(config: Config) -> Found:
    """A connection without a depth has none: a pipeline that needs one deadlocks on the card."""
    for each in _connections(config):
        if each.depth is None:
            yield each.line, "the connection has no depth"
        elif not each.depth.isdigit() or int(each.depth) < 1:
            yield each.line, f"{each.depth} is no depth"


@config_rules("link-clock")
def clock(config: Config) -> Found:
    """A link for a faster clock than its kernels were compiled for misses timing."""
    if not config.is_link:
        return
    asked: list[tuple[Setting, float]] = []
    for setting in config.values("kernel_frequency"):
        for part in setting.value.split("|"):
            mhz = part.split(":")[-1]
            if mhz.isdigit():
                asked.append((setting, float(mhz)))
            else:
                yield setting.line, f"{part} is no whole number of MHz"
    units = _units(config)
    for name in ("freqHz", "defaultFreqHz", "freqhz"):
        for setting in config.values(name, "clock"):
            hertz, _, pins = setting.value.partition(":")
            asked.append((setting, float(hertz) / 1e6 if hertz.isdigit() else 0.0))
            for pin in [each for each in pins.split(",") if each]:
                if pin.partition(".")[0] not in units:
                    yield setting.line, f"there is no compute unit {pin.partition('.')[0]}"
    if not asked:
        yield 1, "no clock is set: the platform's default is taken"
    limit = config.compiled_mhz
    for setting, frequency in asked:
        if limit is not None and frequency > limit:
            yield setting.line, f"{frequency:g} MHz is faster than the kernels' {limit} MHz"


@config_rules("link-timing")
def timing(config: Config) -> Found:
    """Skipping the timing check gives a bitstream that computes wrongly now and then."""
    for setting in config.values("param", "advanced"):
        name, _, value = setting.value.partition("=")
        if name == "compiler.skipTimingCheckAndFrequencyScaling" and value not in ("0", "false"):
            yield setting.line, "the timing check is skipped"
