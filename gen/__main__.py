"""The generator's commands: ``python -m gen build|plan|verify|show``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.cli import guarded, importing
from gen.requests import BITS, check_numbers

STOPPED = "interrupted; finished stages are kept, run the same command to go on"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gen", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="generate an accelerator and its software card")
    build.add_argument("model", help="diffusers folder, hub id or architecture name")
    build.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="LoRA to fuse into the weights; may be given several times",
    )
    build.add_argument("--out", type=Path, help="build folder (default: build/NAME)")
    build.add_argument("--board", default="u250", help="board file below gen/boards")
    build.add_argument("--batch", type=int, default=0, help="samples per step (2: guided pair)")
    build.add_argument("--height", type=int, default=0, help="latent height")
    build.add_argument("--width", type=int, default=0, help="latent width")
    build.add_argument(
        "--tokens", type=int, default=0, help="longest prompt (default: the pipeline's own)"
    )
    build.add_argument(
        "--calibration",
        type=Path,
        help="text file with one prompt a line, or folder of pictures, to calibrate on",
    )
    build.add_argument(
        "--bits",
        choices=sorted(BITS),
        default="w8a8",
        help="weights of 8 or 4 bits, activations of 8",
    )

    build.add_argument(
        "--untimed", action="store_true", help="software card without clock cycles: faster"
    )

    build.add_argument(
        "--sampler", action="store_true", help="engine that updates the latent itself between steps"
    )

    plan = commands.add_parser("plan", help="choose the engine for a model, before building it")
    plan.add_argument("model", help="diffusers folder, hub id or architecture name")
    plan.add_argument("--board", default="u250", help="board file below gen/boards")
    plan.add_argument("--clock", type=float, default=0, help="MHz (default: the board's)")
    plan.add_argument("--cards", type=int, default=1, help="cards that share a step's samples")
    plan.add_argument("--bits", choices=tuple(BITS), default="w8a8")
    plan.add_argument("--objective", choices=("latency",), default="latency")
    plan.add_argument("--batch", type=int, default=0, help="samples per step (2: guided pair)")
    plan.add_argument("--height", type=int, default=0, help="latent height")
    plan.add_argument("--width", type=int, default=0, help="latent width")
    plan.add_argument(
        "--tokens", type=int, default=0, help="longest prompt (default: the pipeline's own)"
    )
    plan.add_argument(
        "--sampler", action="store_true", help="engine that updates the latent itself between steps"
    )
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.add_argument("--out", type=Path, help="write the JSON to this file")
    plan.add_argument("--engine", type=Path, help="write the engine as a file for build --board")

    verify = commands.add_parser("verify", help="float, integers and csim, layer by layer")
    verify.add_argument("build", type=Path, help="build folder")
    verify.add_argument("--steps", type=int, default=25, help="denoising steps of the trajectory")

    show = commands.add_parser("show", help="print a layer program")
    show.add_argument("build", type=Path, help="build folder")

    parsed = parser.parse_args(arguments)
    run = {"build": _build, "plan": _plan, "verify": _verify, "show": _show}[parsed.command]
    return guarded(lambda: run(parsed), STOPPED)


def _build(parsed: argparse.Namespace) -> None:
    # heavy imports come late, so that help and argument errors are immediate
    with importing(STOPPED):
        from gen.build import Settings, run_build
        from gen.model import find_model
        from gen.program.engine import load_engine
        from gen.quantise import Options
        from gen.quantise.subjects import read_subjects

    sizes = {name: getattr(parsed, name) for name in ("batch", "height", "width", "tokens")}
    check_numbers(**sizes)
    load_engine(parsed.board)  # a wrong one is refused now, not after the calibration
    model = find_model(parsed.model, parsed.lora)
    settings = Settings(
        board=parsed.board,
        **sizes,
        subjects=read_subjects(parsed.calibration),
        quantise=Options(weight_bits=BITS[parsed.bits]),
        untimed=parsed.untimed,
        sampler=parsed.sampler,
    )
    out = parsed.out or Path("build") / model.path.stem
    run_build(model, out, settings)
    print(f"built {out}")


def _plan(parsed: argparse.Namespace) -> None:
    with importing(STOPPED):
        from gen.plan.command import run

    run(
        parsed.model,
        parsed.board,
        parsed.clock,
        parsed.cards,
        parsed.bits,
        parsed.batch,
        parsed.height,
        parsed.width,
        parsed.tokens,
        parsed.sampler,
        parsed.json,
        parsed.out,
        parsed.engine,
    )


def _verify(parsed: argparse.Namespace) -> int:
    with importing(STOPPED):
        from gen.verify import verify

    return 0 if verify(parsed.build, steps=parsed.steps) else 1


def _show(parsed: argparse.Namespace) -> int:
    with importing(STOPPED):
        from gen.program.show import main as show

    return show([str(parsed.build)])


if __name__ == "__main__":
    sys.exit(main())
