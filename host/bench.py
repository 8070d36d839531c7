"""``python -m host.bench``: one U-Net forward pass on the card against torch in float32, eager.

Both compute the same guided pair (batch 2) on one thread: the software card is one thread. The
repetitions alternate, so that a change of the machine's load meets both.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.cli import guarded, importing
from gen.errors import UserError
from host.cli import make_folder, parser

if TYPE_CHECKING:
    from host.accelerator import Accelerator

WARM_UP = 2
STOPPED = "stopped by Ctrl-C; nothing was written"


def measure(
    contestants: dict[str, Callable[[], object]], repetitions: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor time in seconds of every contestant's repetitions, taken in turns."""
    from tqdm import tqdm

    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for repetition in tqdm(range(-WARM_UP, repetitions), unit="round", disable=None):
        for name, work in contestants.items():
            wall, processor = time.perf_counter(), time.process_time()
            work()
            taken = time.perf_counter() - wall, time.process_time() - processor
            if repetition >= 0:
                seconds[name].append(taken)
    return seconds


def inputs(accelerator: Accelerator, timestep: float) -> tuple[Any, float, Any]:
    """Random latent and prompt embedding of the accelerator's batch (float32), and a timestep."""
    import numpy as np

    rng = np.random.default_rng(0)
    latent = rng.standard_normal((accelerator.batch, *accelerator.latent_shape), np.float32)
    prompt = None
    if accelerator.prompt_shape is not None:
        prompt = rng.standard_normal((accelerator.batch, *accelerator.prompt_shape), np.float32)
    return latent, timestep, prompt


def compare(accelerator: Accelerator, unet: Any, repetitions: int) -> dict[str, object]:
    """The figures of out/bench.json; times in milliseconds unless named otherwise."""
    import numpy as np
    import torch

    from host.overhead import host_overhead, waiting_card

    latent, timestep, prompt = inputs(accelerator, 500.0)
    tensors = [torch.from_numpy(latent), timestep]
    if prompt is not None:
        tensors.append(torch.from_numpy(prompt))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            seconds = measure(
                {
                    "card": lambda: accelerator.step(latent, timestep, prompt),
                    "torch": lambda: unet(*tensors, return_dict=False)[0],
                },
                repetitions,
            )
    finally:
        torch.set_num_threads(threads)
    with waiting_card(0):
        overhead = host_overhead(accelerator, unet)
    with waiting_card():
        waited = host_overhead(accelerator, unet)
    card, eager = (np.median(seconds[name], axis=0) * 1e3 for name in ("card", "torch"))
    rounds = np.array(seconds["card"])[:, 0] / np.array(seconds["torch"])[:, 0]
    cycles = accelerator.cycles
    return {
        "software_card_over_torch_fp32": round(float(card[0] / eager[0]), 3),
        "processor_time_ratio": round(float(card[1] / eager[1]), 3),
        "ratio_of_each_round": [round(float(ratio), 3) for ratio in rounds],
        "card_ms": round(float(card[0]), 3),
        "torch_fp32_eager_ms": round(float(eager[0]), 3),
        "card_processor_ms": round(float(card[1]), 3),
        "torch_fp32_eager_processor_ms": round(float(eager[1]), 3),
        "host_us_per_step": round(overhead.processor, 1),
        "host_wall_us_per_step": round(overhead.wall, 1),
        "host_us_per_step_after_wait": round(waited.processor, 1),
        "threads": 1,
        "batch": accelerator.batch,
        "repetitions": repetitions,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "cycles_modelled": cycles,
        "simulated_cycles_per_second": cycles and round(cycles / float(card[0]) * 1e3),
        "clock_mhz": accelerator.clock_mhz,
        "ms_per_step_modelled": cycles and round(cycles / accelerator.clock_mhz / 1e3, 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser("host.bench", "Time one U-Net forward pass on the card and in torch.")
    arguments.add_argument("--model", type=Path, help="its float U-Net (default: the build's)")
    arguments.add_argument("--repetitions", type=int, default=15, help="of each (default: 15)")
    parsed = arguments.parse_args(argv)

    def work() -> None:
        if parsed.repetitions < 1:
            raise UserError("nothing to measure; give 1 or more by --repetitions")
        make_folder(parsed.out)

        with importing(STOPPED):
            import host.overhead  # noqa: F401
            from gen.model import find_model, load_unet, loras_of
            from gen.plan.command import make_plan
            from gen.program import load_program
            from host.accelerator import Accelerator

        accelerator = Accelerator(parsed.build, parsed.xclbin, parsed.device)
        unet = load_unet(find_model(str(parsed.model or accelerator.model), loras_of(parsed.build)))
        accelerator.check_model(unet)
        figures = compare(accelerator, unet, parsed.repetitions)
        path = parsed.out / "bench.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")
        _, height, width = accelerator.latent_shape
        plan = make_plan(
            str(parsed.model or accelerator.model),
            bits="w4a8"
            if load_program(parsed.build / "program.json").engine.stored_bits == 4
            else "w8a8",
            batch=accelerator.batch,
            height=height,
            width=width,
        )
        figures["plan_seconds"] = round(plan.seconds, 2)
        figures["plan_efficiency_modelled"] = round(plan.efficiency, 4)
        path.write_text(json.dumps(figures, indent=1) + "\n")
        print(
            f"\none U-Net forward pass, batch {figures['batch']}, one thread, median of "
            f"{figures['repetitions']}:"
        )
        print(f"  software card      {figures['card_ms']:8.1f} ms (measured)")
        print(f"  torch fp32 eager   {figures['torch_fp32_eager_ms']:8.1f} ms (measured)")
        print(
            f"  ratio              {figures['software_card_over_torch_fp32']:8.2f}    "
            f"(in processor time {figures['processor_time_ratio']:.2f})"
        )
        print(
            f"  host code          {figures['host_us_per_step']:8.1f} us per step without the card "
            f"(measured; after waits {figures['host_us_per_step_after_wait']:.0f} us)"
        )
        if figures["cycles_modelled"]:
            print(
                f"  U250 at {figures['clock_mhz']:g} MHz   "
                f"{figures['ms_per_step_modelled']:8.3f} ms "
                f"(modelled, {figures['cycles_modelled']:,} cycles)"
            )
            print(
                f"  simulation         {figures['simulated_cycles_per_second']:8,} cycles per "
                "second (measured)"
            )
        print(f"  plan               {figures['plan_seconds']:8.1f} s (measured)")
        print(f"written to {path}")

    return guarded(work, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
