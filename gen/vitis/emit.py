"""Emission of everything the Vitis tools read for a build, into ``BUILD/vitis``.

====================== =======================================================================
hls/KERNEL.tcl         Tcl run of csim, csynth, cosim and export, for every tool version
hls/KERNEL.cfg         the same for ``v++ -c --mode hls`` and ``vitis-run --mode hls``
compile/KERNEL.cfg     ``v++ -c -k KERNEL``; compile/pre.tcl is run before its synthesis
link/TARGET.CLOCK.cfg  ``v++ -l``: units, memories, streams, SLRs, clock, strategies
settings.mk            what vitis/flow.mk needs to know of them
vitis.json             the choices above, to be read by people
====================== =======================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError
from gen.stages import ROOT
from gen.vitis.board import Board
from gen.vitis.depths import read_depths
from gen.vitis.engine import engine_of
from gen.vitis.files import render, write_changed
from gen.vitis.topology import CLOCK_KEYS, MAX_PORT_BITS, RANKS, TARGETS, Topology

# the tool's own default, 27 %, would schedule a 4.5 ns clock against 3.3 ns
UNCERTAINTY_PERCENT = 12
PIPELINE_STYLES = ("stp", "flp", "frp")


@dataclass(frozen=True)
class Options:
    """Choices of a Vitis build.

    ``clock_key`` is the spelling of the link clock (which one a tool version honours differs);
    ``strategies`` are Vivado's implementation strategies (None: the board's); ``jobs`` limits
    parallel Vivado runs; ``hls_clock_mhz`` is what kernels are compiled for (None: the board's
    target) and bounds every link clock. ``pipeline_style`` is that of loops that do not choose
    their own; flp lets the last elements of a stream out.
    """

    clock_key: str = "kernel_frequency"
    strategies: tuple[str, ...] | None = None
    jobs: int = 8
    hls_clock_mhz: int | None = None
    extra_clocks_mhz: tuple[int, ...] = ()
    pipeline_style: str = "flp"


def _check(build: Path, board: Board, options: Options) -> None:
    for path in (build, ROOT):
        if any(character.isspace() for character in str(path)):
            raise UserError(f"{path} contains a space, which Vitis does not survive; move it")
    if options.clock_key not in CLOCK_KEYS:
        raise UserError(f"{options.clock_key} is no clock key; use {', '.join(CLOCK_KEYS)}")
    if options.pipeline_style not in PIPELINE_STYLES:
        raise UserError(f"{options.pipeline_style} is no style; use {', '.join(PIPELINE_STYLES)}")
    known = (board.vivado.strategy, *board.vivado.other_strategies)
    if options.strategies is not None and not options.strategies:
        raise UserError(f"no implementation strategy is named; choose from {', '.join(known)}")


def check_fit(engine: Topology, board: Board) -> None:
    """Whether the board has places for the ranks, and wires for the streams between them.

    Raises:
        UserError: it has not.
    """
    if engine.ranks > len(board.ranks):
        possible = [str(ranks) for ranks in RANKS if ranks <= len(board.ranks)]
        raise UserError(
            f"the build has {engine.ranks} ranks, which do not fit on {board.name}; build it for "
            f"{' or '.join(possible)} (ranks in [engine] of its board file)"
        )
    for each in engine.connections:
        if each.output.bits > MAX_PORT_BITS:
            raise UserError(
                f"stream {each.fifo} is {each.output.bits} bits wide, a port ends at "
                f"{MAX_PORT_BITS}; build with fewer ranks"
            )
    wires = max((engine.crossing_wires(rank) for rank in range(engine.ranks - 1)), default=0)
    if wires > board.link_wires:
        raise UserError(
            f"{wires} wires would cross between neighbouring SLRs, {board.name} takes "
            f"{board.link_wires}; build with fewer ranks"
        )


def period_ns(clock_mhz: int) -> str:
    """Clock period as the tools read it; rounded down, so never slower than the clock."""
    return f"{1e6 // clock_mhz / 1000:.3f}"


def clocks_mhz(board: Board, options: Options) -> list[int]:
    """Every link clock that gets a configuration, fastest first.

    Raises:
        UserError: a clock is faster than what the kernels are compiled for.
    """
    compiled = options.hls_clock_mhz or board.target_mhz
    wanted = {*options.extra_clocks_mhz, *(mhz for mhz in board.clocks_mhz if mhz <= compiled)}
    for mhz in wanted:
        if not 1 <= mhz <= compiled:
            raise UserError(
                f"kernels are compiled for {compiled} MHz and cannot be linked for {mhz} MHz; "
                f"set HLS_CLOCK={mhz} as well"
            )
    return sorted(wanted | {compiled}, reverse=True)


def link_config(
    target: str,
    clock_mhz: int,
    board: Board,
    options: Options,
    fifo_depths: Mapping[str, int],
    engine: Topology,
) -> str:
    """Text of a link configuration."""
    return render(
        "link.cfg.j2",
        target=target,
        clock_mhz=clock_mhz,
        board=board,
        engine=engine,
        depths=fifo_depths,
        clock_key=options.clock_key,
        strategies=options.strategies or (board.vivado.strategy,),
        jobs=options.jobs,
    )


def _drop_others(folder: Path, choices: Mapping[str, object]) -> None:
    """Remove what was emitted for another board or other kernels; it would never change again."""
    try:
        before = json.loads((folder / "vitis.json").read_text())
        same = all(before[key] == choices[key] for key in ("board", "kernels"))
    except (OSError, ValueError, KeyError):
        same = False
    if not same:
        for name in ("hls", "compile", "link"):
            shutil.rmtree(folder / name, ignore_errors=True)


def emit(build: Path, board: Board, options: Options | None = None) -> list[Path]:
    """Write the files named above and return those that changed.

    Raises:
        UserError: the build has no program or does not fit on the board, a path has a space, or
            an option is out of range.
    """
    options = options or Options()
    build = build.resolve()
    _check(build, board, options)
    engine = engine_of(build)
    check_fit(engine, board)
    compiled = options.hls_clock_mhz or board.target_mhz
    clocks = clocks_mhz(board, options)
    fifo_depths = read_depths(engine, build)
    texts: dict[str, str] = {}
    for kernel in engine.kernels:
        values = {
            "kernel": kernel,
            "unit": engine.units_of(kernel)[0],
            "board": board,
            "build": build,
            "period_ns": period_ns(compiled),
            "clock_hz": compiled * 1_000_000,
            "uncertainty_percent": UNCERTAINTY_PERCENT,
            "style": options.pipeline_style,
            "cflags": f"-std=c++14 -DLDA_VITIS -I{build}/src -I{ROOT}/hls/kernels",
        }
        texts[f"hls/{kernel.name}.tcl"] = render("hls.tcl.j2", **values)
        texts[f"hls/{kernel.name}.cfg"] = render("hls_config.cfg.j2", **values)
        texts[f"compile/{kernel.name}.cfg"] = render("compile.cfg.j2", **values)
    texts["compile/pre.tcl"] = f"config_compile -pipeline_style {options.pipeline_style}\n"
    for target in TARGETS:
        for mhz in clocks:
            texts[f"link/{target}.{mhz}.cfg"] = link_config(
                target, mhz, board, options, fifo_depths, engine
            )
    choices = {
        "board": board.name,
        "platform": board.platform,
        "part": board.part,
        "clocks_mhz": clocks,
        "hls_clock_mhz": compiled,
        "ranks": engine.ranks,
        "kernels": {kernel.name: list(kernel.ports) for kernel in engine.kernels},
        "crossing_wires": [engine.crossing_wires(rank) for rank in range(engine.ranks - 1)],
        "depths": fifo_depths,
    }
    texts["settings.mk"] = render(
        "settings.mk.j2",
        board=board,
        kernels=[kernel.name for kernel in engine.kernels],
        hls_clock_mhz=compiled,
        fallback_mhz=[mhz for mhz in board.fallback_mhz if mhz < compiled],
    )
    texts["vitis.json"] = json.dumps(choices, indent=1, sort_keys=True) + "\n"
    folder = build / "vitis"
    _drop_others(folder, choices)
    return [folder / name for name, text in texts.items() if write_changed(folder / name, text)]
