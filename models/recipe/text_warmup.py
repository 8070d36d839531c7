"""A short first lesson for the text encoder: spell out what a sentence says.

Afterwards every padding token's state holds, linearly, each colour and shape in its place, so that
the U-Net's cross-attention finds them from its first step on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from .scenes import BACKGROUNDS, COLOURS, SHAPES, parse_caption

STEPS = 600
BATCH = 128
RATE = 3e-3
NOTHING = "nothing"
PLACES: tuple[tuple[str, ...], ...] = (
    tuple(COLOURS),
    SHAPES,
    (*COLOURS, NOTHING),
    (*SHAPES, NOTHING),
    tuple(BACKGROUNDS),
)


def answers(captions: list[str]) -> Tensor:
    """Place of each attribute in its list, ``(n, 5)`` ``int64``."""
    rows = []
    for text in captions:
        scene = parse_caption(text)
        first, second = scene.things[0], scene.things[-1] if len(scene.things) == 2 else None
        names = (
            first.colour,
            first.shape,
            second.colour if second else NOTHING,
            second.shape if second else NOTHING,
            scene.background,
        )
        rows.append([place.index(name) for place, name in zip(PLACES, names, strict=True)])
    return torch.tensor(rows)


def warm_up_text_encoder(encoder: CLIPTextModel, numbers: Tensor, captions: list[str]) -> float:
    """Teach the encoder the attributes of ``(n, 16)`` token numbers; returns the last loss."""
    right = answers(captions)
    heads = nn.ModuleList(nn.Linear(encoder.config.hidden_size, len(place)) for place in PLACES)
    weights = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.99))
    loss = torch.zeros(())
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 50) * (1 - step / STEPS)
        pick = torch.randint(len(numbers), (BATCH,))
        states = encoder(numbers[pick]).last_hidden_state[:, -3:]
        loss = torch.stack(
            [
                nn.functional.cross_entropy(
                    head(states).flatten(0, 1), right[pick, place].repeat_interleave(3)
                )
                for place, head in enumerate(heads)
            ]
        ).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss.detach())
