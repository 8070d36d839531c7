"""Weights made up for an architecture: what a freshly made U-Net has, module by module.

They may lie in a file that is mapped into memory, so that a model of any size costs no more memory
than is in use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

SEED = 0
SPREAD = 0.02  # of parameters of modules that do not know how to begin


def random_unet(kind: Any, config: dict[str, Any], file: Path | None = None) -> Any:
    """A diffusers U-Net of class ``kind``, float32, the same at every call.

    ``file`` is made to hold its weights; its name may be removed while they are used. Raises
    OSError if there is no room for it.
    """
    with torch.device("meta"):
        unet = kind.from_config(config)
    held = {id(each): each.numel() for each in (*unet.parameters(), *unet.buffers())}
    places = _Places(_memory(sum(held.values()), file))
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(SEED)
        for module in unet.modules():
            places.fill(module)
    return unet


def _memory(values: int, file: Path | None) -> torch.Tensor:
    if file is None:
        return torch.empty(values, dtype=torch.float32)
    with file.open("xb") as created:
        # running out of room when a mapped file is written to ends the process
        os.posix_fallocate(created.fileno(), 0, 4 * values)
    return torch.from_file(str(file), shared=True, size=values, dtype=torch.float32)


class _Places:
    """Where in ``memory`` the tensors of modules lie; tied ones lie there once."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.used = 0
        self.by_id: dict[int, torch.Tensor] = {}

    def fill(self, module: torch.nn.Module) -> None:
        """Give a module's own tensors memory, and values where they have none yet."""
        fresh = []
        for name, each in [*module._parameters.items(), *module._buffers.items()]:
            if each is None:
                continue
            if id(each) not in self.by_id:
                place = self.memory[self.used : self.used + each.numel()].view(each.shape)
                self.used += each.numel()
                self.by_id[id(each)] = place
                fresh.append(place)
            place = self.by_id[id(each)]
            if name in module._parameters:
                module._parameters[name] = torch.nn.Parameter(place, each.requires_grad)
            else:
                module._buffers[name] = place
        reset: Any = getattr(module, "reset_parameters", None)
        if fresh and reset is not None:
            reset()
        elif fresh:
            for place in fresh:
                place.normal_(0, SPREAD)
