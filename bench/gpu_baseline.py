"""``python -m bench.gpu_baseline``: the same U-Nets in torch on a CUDA GPU (out/gpu.json).

What is timed is one denoising step as a sampler meets it at batch 1 and as a guided pair: from the
call until the result is complete on the device, inputs and weights being there already. Medians
and quartiles of wall time, every repetition synchronised; ``preparation_s`` is the time to the
first result, with whatever the compiler's caches hold by then. Where there is no CUDA GPU the
command says so and exits 0; ``--device cpu`` measures eager mode on the processor instead.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu_modes import MODES, Forward, Inputs
from gen.cli import guarded
from gen.errors import UserError
from gen.model import Model, find_model, load_unet
from gen.stages import write_json
from gen.trace_inputs import example_inputs

MODELS = ("models/shapes-ldm", "ddpm-cifar10-32", "ldm-celebahq-256", "sd15")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
NO_GPU = (
    "no CUDA GPU is at hand, so nothing was measured; run this where torch.cuda.is_available(), "
    "or measure eager mode on the processor by --device cpu"
)


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    device: str
    precisions: tuple[str, ...]
    modes: tuple[str, ...]
    layout: str
    warm_up: int
    repetitions: int


def random_inputs(
    unet: Any, model: Model, batch: int, dtype: torch.dtype, layout: torch.memory_format
) -> Inputs:
    """Inputs of the U-Net's own latent size: normal noise from a fixed seed on its device.

    Floats have type ``dtype`` but for the timestep, which is float32 as in a sampler.
    """
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    (sample, timestep), kwargs = example_inputs(unet, batch, height, width, model.tokens)
    generator = torch.Generator().manual_seed(0)

    def drawn(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: drawn(part) for name, part in value.items()}
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=generator)
        return noise.to(value.device, dtype)

    return Inputs(drawn(sample).to(memory_format=layout), timestep * 500, drawn(kwargs))


def measure(
    work: Callable[[], object],
    finish: Callable[[], object],
    warm_up: int,
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of every repetition after ``warm_up`` more; ``finish`` waits for the device."""
    seconds = []
    for repetition in range(-warm_up, repetitions):
        finish()
        begin = clock()
        work()
        finish()
        if repetition >= 0:
            seconds.append(clock() - begin)
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes in milliseconds."""
    names = ("min_ms", "quartile1_ms", "median_ms", "quartile3_ms", "max_ms")
    values = np.quantile(np.array(seconds) * 1e3, (0, 0.25, 0.5, 0.75, 1))
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of ``expected``; infinite if a value is not finite."""
    difference = result.double().cpu() - expected.double().cpu()
    ratio = float(difference.norm() / expected.double().cpu().norm())
    return ratio if np.isfinite(ratio) else float("inf")


def sentence(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextmanager
def released() -> Iterator[None]:
    """Compiled code and device memory of a mode are given up behind it."""
    try:
        yield
    finally:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure_mode(forward: Forward, inputs: Inputs, mode: str, plan: Plan) -> dict[str, object]:
    """Figures of one mode, or ``failure``: why there are none. Never raises an Exception."""
    on_gpu = plan.device == "cuda"
    finish: Callable[[], object] = torch.cuda.synchronize if on_gpu else lambda: None
    try:
        with released(), torch.inference_mode():
            begin = time.perf_counter()
            work = MODES[mode](forward, inputs, on_gpu)
            work()
            finish()
            preparation = time.perf_counter() - begin
            seconds = measure(work, finish, plan.warm_up, plan.repetitions)
            result = work().clone()
        return {
            **spread(seconds),
            "preparation_s": round(preparation, 3),
            "result": result,
        }
    except Exception as error:
        return {"failure": sentence(error)}


def measure_model(model: Model, plan: Plan) -> Iterator[dict[str, object]]:
    """One row per batch, precision and mode, as it is measured; a failure is a row too."""
    layout = LAYOUTS[plan.layout]
    unet = load_unet(model)
    about = {"model": model.name, "class": type(unet).__name__}
    about["parameters"] = sum(p.numel() for p in unet.parameters())
    expected: dict[int, torch.Tensor] = {}
    for precision in plan.precisions:
        dtype = PRECISIONS[precision]
        placed = False
        for batch in sorted({1, model.batch}):
            for mode in plan.modes:
                row: dict[str, object] = {**about, "batch": batch, "precision": precision}
                row["mode"] = mode
                try:
                    if not placed:
                        # not the class's own `to`, which warns of a list that is empty here
                        torch.nn.Module.to(unet, plan.device, dtype, memory_format=layout)
                        placed = True
                    inputs = random_inputs(unet, model, batch, dtype, layout)
                except Exception as error:
                    yield {**row, "failure": sentence(error)}
                    continue
                row["latent"] = list(inputs.sample.shape[1:])
                figures = measure_mode(unet, inputs, mode, plan)
                result = figures.pop("result", None)
                if isinstance(result, torch.Tensor):
                    # of the first mode measured: eager fp32 unless it was left out
                    reference = expected.setdefault(batch, result.cpu())
                    figures["relative_error"] = relative_error(result, reference)
                yield {**row, **figures}


def line(row: dict[str, object]) -> str:
    """One row for people."""
    head = f"{row['model']}, batch {row['batch']}, {row['precision']}, {row['mode']}: "
    if "failure" in row:
        return head + str(row["failure"])
    return (
        f"{head}{row['median_ms']:.3f} ms "
        f"({row['quartile1_ms']:.3f} to {row['quartile3_ms']:.3f}, measured)"
    )


def machine(device: str) -> dict[str, object]:
    """What a figure depends on: device, versions, and what float32 means on it."""
    facts: dict[str, object] = {
        "device": device,
        "device_name": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        facts |= {
            "device_name": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
            "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        }
    return facts


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_baseline", description="Time U-Nets in torch on a CUDA GPU."
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="folders or architectures")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    alone = "default: all; on the processor"
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help=f"{alone} fp32 alone")
    parser.add_argument("--modes", nargs="+", choices=MODES, help=f"{alone} eager alone")
    parser.add_argument("--layout", choices=LAYOUTS, default="contiguous")
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("out/gpu.json"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parsed = parse(argv)

    def work() -> int:
        if parsed.repetitions < 1 or parsed.warm_up < 0:
            raise UserError("nothing to measure; give --repetitions 1 or more, --warm-up 0 or more")
        if parsed.device == "cuda" and not torch.cuda.is_available():
            print(NO_GPU)
            return 0
        models = [find_model(name) for name in parsed.models]
        on_gpu = parsed.device == "cuda"
        precisions = parsed.precisions or (PRECISIONS if on_gpu else ("fp32",))
        modes = parsed.modes or (MODES if on_gpu else ("eager",))
        # float32 first: its results are what the others are compared with
        plan = Plan(parsed.device, tuple(p for p in PRECISIONS if p in precisions), tuple(modes),
                    parsed.layout, parsed.warm_up, parsed.repetitions)  # fmt: skip
        torch.backends.cudnn.benchmark = True  # shapes never change
        figures: dict[str, object] = {
            "kind": "measured",
            **machine(plan.device),
            "layout": plan.layout,
            "warm_up": plan.warm_up,
            "repetitions": plan.repetitions,
        }
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, object]] = []
        for model in models:
            for row in measure_model(model, plan):
                rows.append(row)
                print(line(row), flush=True)
                write_json(parsed.out, {**figures, "rows": rows})  # whatever ends this keeps them
        print(f"written to {parsed.out}")
        return 0

    return guarded(work, f"stopped by Ctrl-C; {parsed.out} holds what was measured")


if __name__ == "__main__":
    sys.exit(main())
