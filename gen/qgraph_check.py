"""The verifier of integer layer graphs: every range that ``docs/numerics.md`` promises."""

from __future__ import annotations

import numpy as np

from gen.qlayers import TABLE_SIZE, QGraph, QLayer

MAX_ALIGN = 7


def check_qgraph(qgraph: QGraph) -> None:
    """Raise ValueError, naming the layer or tensor, where ``qgraph`` breaks the number formats."""
    graph = qgraph.graph
    if set(qgraph.tensors) != set(graph.tensors):
        raise ValueError("tensors of the integer graph differ from those of the layer graph")
    for name, info in graph.tensors.items():
        fmt = qgraph.tensors[name]
        wide = info.role not in ("input", "operand")
        _require(fmt.bits == (16 if wide else 8), name, f"{fmt.bits} bits as {info.role}")
        _require(fmt.scale > 0, name, "scale is not positive")
        if fmt.channel_scales is not None:
            _require(info.role == "operand", name, f"channel scales as {info.role}")
            fits = len(fmt.channel_scales) == info.channels and min(fmt.channel_scales) > 0
            _require(fits, name, "channel scales do not fit the channels")
        if info.role == "stream":
            exact = fmt.exponent is not None and fmt.scale == 2.0**fmt.exponent
            _require(exact, name, "scale of a stream tensor is not a power of two")
    inputs = graph.tensors[graph.input].channels
    _require(inputs % qgraph.input_replicas == 0, graph.input, "channels are not replicas * C")
    if [q.layer for q in qgraph.layers] != graph.layers:
        raise ValueError("layers of the integer graph differ from those of the layer graph")
    written = [layer.dest for layer in graph.layers]
    if sorted([graph.input, *written]) != sorted(graph.tensors) or graph.output not in written:
        raise ValueError("not every tensor is written by exactly one layer")
    for qlayer in qgraph.layers:
        _check_read(qgraph, qlayer)
        _check_write(qgraph, qlayer)


def rows_of(qgraph: QGraph, qlayer: QLayer) -> int:
    """Weight rows of a layer: outputs, twice that with a gate, tokens or head channels."""
    layer, tensors = qlayer.layer, qgraph.graph.tensors
    if layer.weight.kind == "static":
        return tensors[layer.dest].channels * (2 if layer.gate == "geglu" else 1)
    channels = tensors[layer.dest].channels
    return channels if tensors[layer.dest].role == "scores" else channels // layer.heads


def _check_read(qgraph: QGraph, qlayer: QLayer) -> None:
    name, read, layer = qlayer.layer.name, qlayer.read, qlayer.layer
    channels = sum(qgraph.graph.tensors[s].channels for s in layer.sources)
    _require(read.gamma.shape == (channels,), name, "gamma has a wrong shape")
    _require(read.beta.shape == (channels,), name, "beta has a wrong shape")
    _require(int(np.abs(read.gamma).max(initial=0)) <= 1 << 15, name, "gamma exceeds 16 bits")
    _require(int(read.gamma.max(initial=0)) < 1 << 15, name, "gamma exceeds 16 bits")
    in_range = (read.beta >= -(1 << 31)) & (read.beta < 1 << 31)
    _require(bool(in_range.all()), name, "beta exceeds 32 bits")
    _require(1 <= read.shift <= 40, name, "read shift is outside 1..40")
    _require(len(read.align) == len(layer.sources), name, "one alignment per source is needed")
    aligned = all(0 <= a <= MAX_ALIGN for a in read.align)
    _require(aligned, name, f"sources are more than {MAX_ALIGN} bits apart")
    normalises = layer.read.norm in ("group", "layer")
    _require(0 <= read.eps < 1 << 63, name, "E is outside 63 bits")
    _require((read.eps >= 1) == normalises, name, "E does not fit the normalisation")
    if layer.read.host_affine is None:
        _require(read.affine is None, name, "constants of a host affine that is not there")
    else:
        _require(read.affine is not None, name, "constants of the host affine are missing")
        assert read.affine is not None
        fits = read.affine.shape == (4, channels) and bool(np.isfinite(read.affine).all())
        _require(fits, name, "constants of the host affine do not fit the channels")
        host = qgraph.graph.host_tensors[layer.read.host_affine]
        fits = host.shape == (qgraph.graph.batch, 2 * channels) and host.when == "step"
        _require(fits, name, f"{host.name} is no scale and shift per channel and step")
    if read.table is not None:
        _require(read.table.shape == (TABLE_SIZE,), name, "table has a wrong size")
    _require(-128 <= read.pad <= 127, name, "zero point exceeds 8 bits")


def _check_write(qgraph: QGraph, qlayer: QLayer) -> None:
    name, layer = qlayer.layer.name, qlayer.layer
    rows = (rows_of(qgraph, qlayer),)
    for what, array in (
        ("bias", qlayer.bias),
        ("mult", qlayer.mult),
        ("shift", qlayer.shift),
        ("acc_scale", qlayer.acc_scale),
        ("correction", qlayer.correction),
    ):
        _require(array.shape == rows, name, f"{what} has shape {array.shape}, not {rows}")
    if layer.weight.kind == "static":
        channels = sum(qgraph.graph.tensors[s].channels for s in layer.sources)
        shape = (*rows, channels, *layer.window.kernel)
        _require(qlayer.weight is not None, name, "weights are missing")
        assert qlayer.weight is not None
        _require(qlayer.weight.shape == shape, name, f"weights are not of shape {shape}")
        _require(qlayer.weight_bits in (4, 8), name, f"weights of {qlayer.weight_bits} bits")
        limit = (1 << (qlayer.weight_bits - 1)) - 1
        lowest, highest = int(qlayer.weight.min()), int(qlayer.weight.max())
        _require(-limit <= lowest, name, f"weights reach {lowest}")
        _require(highest <= limit, name, f"weights reach {highest}")
    else:
        _require(qlayer.weight is None, name, "an attention product has weights of its own")
        _require(not qlayer.bias.any(), name, "an attention product has a bias")
    if layer.weight.kind == "host":
        _require(qlayer.host_weight_scale > 0, name, "scale of the host weights is missing")
    _require(int(np.abs(qlayer.bias.astype(np.int64)).max()) <= 1 << 30, name, "bias exceeds 2^30")
    _require(bool(((qlayer.mult > 0) & (qlayer.mult < 1 << 17)).all()), name, "mult out of range")
    _require(bool(((qlayer.shift >= 1) & (qlayer.shift <= 46)).all()), name, "shift out of range")
    if layer.residual is not None:
        total = qlayer.shift + qlayer.residual_shift
        _require(bool(((total >= 0) & (total <= 46)).all()), name, "residual shift out of range")
    if layer.gate == "geglu":
        _require(qlayer.gate_table is not None, name, "gate table is missing")
        assert qlayer.gate_table is not None
        _require(qlayer.gate_table.shape == (TABLE_SIZE,), name, "gate table has a wrong size")
        _require(0 <= qlayer.gate_shift <= 31, name, "gate shift is outside 0..31")


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{name}: {problem}")
