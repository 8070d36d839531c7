"""Ways to run a U-Net in torch: eager, compiled, and replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[..., Any]
Work = Callable[[], torch.Tensor]

CAPTURE_WARM_UP = 3  # passes on the side stream before a capture, as torch's guide asks for


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward pass: latent [batch, channels, height, width], timestep, the rest."""

    sample: torch.Tensor
    timestep: torch.Tensor
    kwargs: dict[str, Any]


def eager(forward: Forward, inputs: Inputs, on_gpu: bool) -> Work:
    """The U-Net as it is."""
    del on_gpu
    return lambda: forward(inputs.sample, inputs.timestep, **inputs.kwargs)[0]


def compiled(forward: Forward, inputs: Inputs, on_gpu: bool) -> Work:
    """``torch.compile`` with its defaults."""
    return eager(torch.compile(forward), inputs, on_gpu)


def compiled_graph(forward: Forward, inputs: Inputs, on_gpu: bool) -> Work:
    """``torch.compile`` with mode ``reduce-overhead``: compiled kernels in CUDA graphs."""
    _need_gpu("CUDA graphs", on_gpu)
    return eager(torch.compile(forward, mode="reduce-overhead"), inputs, on_gpu)


def cuda_graph(forward: Forward, inputs: Inputs, on_gpu: bool) -> Work:
    """The eager pass captured once and replayed; the result's memory is the same every time."""
    _need_gpu("a CUDA graph", on_gpu)
    work = eager(forward, inputs, on_gpu)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def _need_gpu(what: str, on_gpu: bool) -> None:
    if not on_gpu:
        raise RuntimeError(f"{what} cannot be had on the processor; measure on a CUDA device")


MODES: dict[str, Callable[[Forward, Inputs, bool], Work]] = {
    "eager": eager,
    "cuda_graph": cuda_graph,
    "compile": compiled,
    "compile_cuda_graph": compiled_graph,
}
