"""What layers can express but the integer engine does not compute yet, refused by name."""

from __future__ import annotations

from collections.abc import Iterator

from gen.errors import UserError
from gen.layers import Layer, LayerGraph


def check_engine(graph: LayerGraph) -> None:
    """Raise UserError, naming the module path and the op, for what no kernel computes."""
    for layer in graph.layers:
        for op in _missing(layer):
            raise UserError(f"{layer.name}: {op} on the card; choose a model without it")


def _missing(layer: Layer) -> Iterator[str]:
    if layer.read.act not in ("none", "silu"):
        yield f"{layer.read.act} is not supported as an activation"
    if layer.read.host_affine is not None:
        yield "scaling and shifting by the time embedding (scale_shift) is not supported"
    if any(layer.window.crop):
        yield "up-sampling to an odd size (a latent that does not halve evenly) is not supported"
