"""Running the rules over files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gen.errors import UserError
from gen.hlslint.config import Config, parse_config
from gen.hlslint.finding import Finding
from gen.hlslint.preprocess import Origin
from gen.hlslint.rules import (
    bench,
    bench_rules,
    config,
    config_rules,
    dataflow,
    language,
    link,
    loops,
    ports,
    pragmas,
    storage,
    types,
    unit_rules,
)
from gen.hlslint.unit import Unit, load_unit
from gen.stages import ROOT
from gen.vitis.board import Board, load_board
from gen.vitis.engine import engine_of
from gen.vitis.topology import RANKS, SPILL, Topology, topology

# the modules whose import registers the rules
RULE_MODULES = (bench, config, dataflow, language, link, loops, pragmas, ports, storage, types)
SOURCES = frozenset({".cpp", ".cc", ".hpp", ".h"})
ALLOW = "hlslint: allow "
BENCH_SUFFIX = "_tb"


def _allowed(path: str, line: int, rule: str, cache: dict[str, list[str]]) -> bool:
    """Whether a remark ``hlslint: allow RULE: reason`` stands in the line or the one above."""
    if path not in cache:
        file = Path(path)
        cache[path] = file.read_text(errors="replace").splitlines() if file.is_file() else []
    lines = cache[path][max(0, line - 2) : line]
    for each in lines:
        _, found, rest = each.partition(ALLOW)
        name, _, reason = rest.partition(":")
        if found and name.strip() == rule and reason.strip():
            return True
    return False


def check_unit(unit: Unit) -> Iterator[Finding]:
    """Findings in a kernel's or test bench's translation unit, at their places in the files."""
    cache: dict[str, list[str]] = {}
    is_bench = unit.source.path.stem.endswith(BENCH_SUFFIX)
    for rule in bench_rules.all if is_bench else unit_rules.all:
        for place, message in rule.check(unit):
            at = place if isinstance(place, Origin) else unit.source.origins[place]
            if not _allowed(at.path, at.line, rule.name, cache):
                yield Finding(at.path, at.line, rule.name, message)


def check_config(subject: Config) -> Iterator[Finding]:
    """Findings in a configuration file."""
    for rule in config_rules.all:
        for place, message in rule.check(subject):
            line = place.line if isinstance(place, Origin) else place
            yield Finding(str(subject.path), line, rule.name, message)


def _build_choices(folder: Path) -> tuple[Board, Topology, int]:
    """Board, kernels and kernel clock (MHz) of a build's emitted files."""
    try:
        choices = json.loads((folder / "vitis.json").read_text())
        board, ranks = load_board(str(choices["board"])), int(choices["ranks"])
        ports = choices["kernels"]["store"]
        engine = topology(ranks, spill=SPILL.name in ports, sampler="steps" in ports)
        return board, engine, int(choices["hls_clock_mhz"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}/vitis.json cannot be read ({error}); run make vitis-files"
        ) from error


def _linked(path: Path) -> Topology:
    """Kernels of a configuration outside of a build, by its number of stores and their ports."""
    text = path.read_text(errors="replace")
    found = re.search(r"^nk=store:(\d+)", text, re.MULTILINE)
    ranks = int(found[1]) if found else 1
    return topology(ranks if ranks in RANKS else 1, spill=f".{SPILL.name}:" in text)


def gather(paths: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, Path | None]]]:
    """Source files, and (configuration, folder of the build's Vitis files or None).

    A build folder stands for its sources and configurations; another folder for all below it.

    Raises:
        UserError: a path does not exist.
    """
    sources: list[Path] = []
    configs: list[tuple[Path, Path | None]] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; name files, folders or a build")
        vitis = path / "vitis"
        if path.is_file():
            files = [path]
        elif (vitis / "vitis.json").is_file():
            tops = {kernel.name for kernel in engine_of(path).kernels}
            sources += sorted(each for each in (path / "src").glob("*.cpp") if each.stem in tops)
            sources += sorted((vitis / "bench").glob(f"*{BENCH_SUFFIX}.cpp"))
            configs += [(each, vitis) for each in sorted(vitis.rglob("*.cfg"))]
            continue
        else:
            files = sorted(each for each in path.rglob("*") if each.is_file())
        sources += [each for each in files if each.suffix in SOURCES]
        configs += [(each, None) for each in files if each.suffix == ".cfg"]
    return sources, configs


def check_paths(
    paths: Sequence[Path],
    folders: Sequence[Path] = (),
    board: str = "u250",
) -> list[Finding]:
    """All findings in files, folders or builds, each once, in the order of their places.

    ``folders`` are searched for the project's own headers, hls/kernels always.

    Raises:
        UserError: a path does not exist or does not get through the preprocessor.
    """
    sources, configs = gather(paths)
    found: set[Finding] = set()
    for source in sources:
        found |= set(check_unit(load_unit(source, [*folders, ROOT / "hls" / "kernels"])))
    for path, folder in configs:
        if folder is None:
            subject = parse_config(path, load_board(board), _linked(path))
        else:
            subject = parse_config(path, *_build_choices(folder))
        found |= set(check_config(subject))
    return sorted(found)
