"""``python -m gen.vitis``: the Vitis flow of a build, called by ``vitis/*.mk``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from gen.cli import guarded
from gen.vitis import checks
from gen.vitis.board import Board, load_board
from gen.vitis.card_run import CardBuild, compile_kernel, link_card
from gen.vitis.hls_run import STEPS, run_hls
from gen.vitis.tools import SOURCE_VITIS, hls_command, need, need_platform
from gen.vitis.topology import CLOCK_KEYS

STOPPED = "stopped by Ctrl-C; what is finished is kept, run the same goal to go on"
CHECKS = ("check-vitis", "check-platform", "check-xrt", "doctor")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gen.vitis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in CHECKS:
        check = commands.add_parser(name, help="say what is installed and what is missing")
        check.add_argument("--board", default="u250")
        check.add_argument("--platform", default="")
    tools = commands.add_parser("need", help="fail if a goal's tools are missing")
    tools.add_argument("what", choices=("hls", "card"))
    tools.add_argument("--board", default="u250")
    tools.add_argument("--platform", default="")
    files = commands.add_parser("files", help="write the inputs of the tools")
    files.add_argument("build", type=Path)
    files.add_argument("--board", default="u250")
    files.add_argument("--clock", type=int, action="append", default=[], help="link clock, MHz")
    files.add_argument("--hls-clock", type=int, default=0, help="clock of the kernels, MHz")
    files.add_argument("--clock-key", choices=CLOCK_KEYS, default=CLOCK_KEYS[0])
    files.add_argument("--strategies", default="", help="Vivado strategies, comma separated")
    files.add_argument("--jobs", type=int, default=8)
    hls = commands.add_parser("hls", help="run Vitis HLS over one kernel")
    hls.add_argument("step", choices=STEPS)
    hls.add_argument("build", type=Path)
    hls.add_argument("kernel")
    hls.add_argument("--cosim-options", default="")
    vectors = commands.add_parser("vectors", help="write test benches and record their vectors")
    vectors.add_argument("build", type=Path)
    vectors.add_argument("--seed", type=int, default=1)
    layer = commands.add_parser("layer", help="make a build of the layers up to one of them")
    layer.add_argument("build", type=Path)
    layer.add_argument("layer")
    bench = commands.add_parser("bench", help="run a kernel's test bench under g++")
    bench.add_argument("build", type=Path)
    bench.add_argument("kernel")
    for name in ("xo", "xclbin"):
        card = commands.add_parser(name, help="run v++")
        card.add_argument("build", type=Path)
        card.add_argument("--target", default="hw")
        card.add_argument("--platform", required=True)
        card.add_argument("--clock", type=int, required=True, help="MHz")
        if name == "xo":
            card.add_argument("kernel")
        else:
            card.add_argument("--fallback", type=int, nargs="*", default=[], help="MHz")
            card.add_argument("--package", action="store_true")
    return parser


def _check(command: str, board: Board, platform: str) -> int:
    platform = platform or board.platform
    look: dict[str, Callable[[], list[checks.Check]]] = {
        "check-vitis": lambda: checks.check_vitis(board),
        "check-platform": lambda: checks.check_platform(board, platform),
        "check-xrt": checks.check_xrt,
        "doctor": lambda: checks.doctor(board, platform),
    }
    found = look[command]()
    for check in found:
        print(f"{check.label:7} {check.subject}: {check.sentence}")
    return 0 if all(check.good or check.doubt for check in found) else 2


def _need(what: str, platform: str) -> None:
    """Fail at once, before anything is built, where a goal's tools are missing."""
    if what == "hls":
        hls_command(Path("kernel.tcl"), "this goal")
    else:
        need("v++", "this goal", SOURCE_VITIS)
        need_platform(platform)


def _benches(arguments: argparse.Namespace) -> list[str]:
    from gen.vitis import bench  # with the integer reference, slow to import

    if arguments.command == "bench":
        from gen.vitis.gcc_run import run_bench

        return run_bench(arguments.build, arguments.kernel)
    if arguments.command == "layer":
        return [f"{bench.build_first_layers(arguments.build, arguments.layer)}"]
    from gen.program import load_program

    bench.emit_benches(arguments.build, load_program(arguments.build / "program.json"))
    return [f"recorded one step in {bench.record(arguments.build, arguments.seed)}"]


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "need":
        _need(arguments.what, arguments.platform or load_board(arguments.board).platform)
        return 0
    if arguments.command in CHECKS:
        return _check(arguments.command, load_board(arguments.board), arguments.platform)
    if arguments.command == "files":
        from gen.vitis.emit import Options, emit  # the one command that needs jinja2

        strategies = tuple(part for part in arguments.strategies.split(",") if part)
        options = Options(
            clock_key=arguments.clock_key,
            strategies=strategies or None,
            jobs=arguments.jobs,
            hls_clock_mhz=arguments.hls_clock or None,
            extra_clocks_mhz=tuple(arguments.clock),
        )
        changed = emit(arguments.build, load_board(arguments.board), options)
        print(f"{arguments.build}/vitis: {len(changed)} files written")
        return 0
    if arguments.command in ("vectors", "layer", "bench"):
        print("\n".join(_benches(arguments)))
        return 0
    if arguments.command == "hls":
        lines = run_hls(arguments.build, arguments.kernel, arguments.step, arguments.cosim_options)
    else:
        card = CardBuild(
            arguments.build.resolve(), arguments.target, arguments.platform, arguments.clock
        )
        if arguments.command == "xo":
            lines = [f"compiled {compile_kernel(card, arguments.kernel)}"]
        else:
            lines = link_card(card, arguments.fallback, arguments.package)
    print("\n".join(lines))
    return 0


def main() -> int:
    """Entry point; exit status 2 for errors that a user can mend."""
    arguments = _parser().parse_args()
    return guarded(lambda: _run(arguments), STOPPED)


if __name__ == "__main__":
    sys.exit(main())
