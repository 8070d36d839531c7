"""The op table: one row per kind of node that a traced U-Net may hold.

Whatever the generator knows about an op is in its row: which ATen overloads it stands for, the
shape of its result, how torch computes it, how many multiply-accumulates it takes and what it
becomes on the card. An op without a row is refused by name.
"""

from __future__ import annotations

from gen.ops import elementwise, norms, products, sources, views
from gen.ops.base import Attr, Attrs, Fusion, Op, OpError, TensorType

OPS: dict[str, Op] = {
    row.name: row
    for module in (sources, products, norms, elementwise, views)
    for row in module.ROWS
}

# ATen overload ("aten.conv2d.default") -> row
BY_ATEN: dict[str, Op] = {target: row for row in OPS.values() for target in row.aten}

__all__ = ["BY_ATEN", "OPS", "Attr", "Attrs", "Fusion", "Op", "OpError", "TensorType"]
