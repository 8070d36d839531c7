"""The verifier of layer graphs: order, shapes, arrays and roles."""

from __future__ import annotations

from gen.graph import GraphError
from gen.layers import Layer, LayerGraph, TensorInfo
from gen.ops.products import conv_output


def verify_layers(graph: LayerGraph) -> None:
    """Raise GraphError, naming the layer, if the graph breaks a rule of ``gen.layers``."""
    if graph.input not in graph.tensors or graph.tensors[graph.input].role != "input":
        raise GraphError(f"the input {graph.input} is no input tensor")
    written = {graph.input}
    used: set[str] = {graph.output}
    names: set[str] = set()
    for layer in graph.layers:
        if layer.name in names:
            raise GraphError(f"{layer.name} is defined twice")
        names.add(layer.name)
        for tensor in _reads(layer):
            if tensor not in graph.tensors:
                raise GraphError(f"{layer.name} reads {tensor}, which does not exist")
            if tensor not in written:
                raise GraphError(f"{layer.name} reads {tensor} before it is written")
            used.add(tensor)
        if layer.dest not in graph.tensors or layer.dest in written:
            raise GraphError(f"{layer.name} writes {layer.dest}, which is not its own")
        written.add(layer.dest)
        try:
            _verify_read(graph, layer)
            if layer.weight.kind == "static":
                _verify_static(graph, layer)
            else:
                _verify_attention(graph, layer)
            _verify_write(graph, layer)
        except (KeyError, IndexError, ZeroDivisionError) as error:
            raise GraphError(f"{layer.name} names {error}, which does not exist") from error
    if graph.output not in written or graph.tensors[graph.output].role != "output":
        raise GraphError(f"the output {graph.output} is never written")
    for tensor in graph.tensors:
        if tensor not in used:
            raise GraphError(f"{tensor} is never read")
        if tensor not in written:
            raise GraphError(f"{tensor} is never written")


def _reads(layer: Layer) -> list[str]:
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return names


def _expect(layer: Layer, holds: bool, what: str) -> None:
    if not holds:
        raise GraphError(f"{layer.name}: {what}")


def _channels(graph: LayerGraph, layer: Layer) -> int:
    return sum(graph.tensors[name].channels for name in layer.sources)


def _verify_read(graph: LayerGraph, layer: Layer) -> None:
    sources = [graph.tensors[name] for name in layer.sources]
    _expect(layer, 1 <= len(sources) <= 2, f"{len(sources)} sources")
    sizes = {(s.height, s.width) for s in sources}
    _expect(layer, len(sizes) == 1, f"sources of different sizes {sorted(sizes)}")
    read, channels = layer.read, _channels(graph, layer)
    for key in (read.gamma, read.beta):
        if key is not None:
            shape = graph.arrays[key].shape
            _expect(layer, shape == (channels,), f"{key} is {shape}, not ({channels},)")
    if read.norm == "group":
        _expect(layer, read.groups > 0 and channels % read.groups == 0, "channels do not group")
    if read.norm in ("group", "layer") or read.act != "none":
        wide = all(s.role in ("stream", "input") for s in sources)
        _expect(layer, wide, "normalises or activates a tensor that is not a stream")
    if read.host_affine is not None:
        host = graph.host_tensors[read.host_affine]
        fits = host.shape == (graph.batch, 2 * channels) and host.when == "step"
        _expect(layer, fits, f"{host.name} is no scale and shift per channel and step")
        _expect(layer, read.norm in ("group", "layer"), "scales and shifts what is not normalised")
    if read.norm == "softmax":
        _expect(layer, sources[0].role == "scores", "softmax of something else than scores")
    else:
        _expect(layer, all(s.role != "scores" for s in sources), "reads scores without softmax")


def _verify_static(graph: LayerGraph, layer: Layer) -> None:
    dest, source = graph.tensors[layer.dest], graph.tensors[layer.sources[0]]
    rows = dest.channels * (2 if layer.gate == "geglu" else 1)
    window = layer.window
    shape = (rows, _channels(graph, layer), *window.kernel)
    array = graph.arrays[layer.weight.key]
    _expect(layer, array.shape == shape, f"the weight is {array.shape}, not {shape}")
    if layer.bias is not None:
        bias = graph.arrays[layer.bias]
        _expect(layer, bias.shape == (rows,), f"the bias is {bias.shape}, not ({rows},)")
    top, left, bottom, right = window.pad
    whole, cut = window.upsample, window.crop
    _expect(layer, all(0 <= c < whole for c in cut), f"cuts {cut} off an up-sampling by {whole}")
    rows, columns = window.seen(source.height, source.width)
    height = conv_output(rows, window.kernel[0], window.stride, top, bottom)
    width = conv_output(columns, window.kernel[1], window.stride, left, right)
    size = (dest.height, dest.width)
    _expect(layer, size == (height, width), f"{size} stored, {(height, width)} computed")


def _verify_attention(graph: LayerGraph, layer: Layer) -> None:
    dest, source = graph.tensors[layer.dest], graph.tensors[layer.sources[0]]
    channels, tokens = _right_hand(graph, layer)
    heads = layer.heads
    _expect(layer, heads > 0 and channels % heads == 0, f"{channels} channels, {heads} heads")
    same = (dest.height, dest.width) == (source.height, source.width)
    _expect(layer, same, "source and result differ in size")
    plain = layer.bias is None and layer.host_bias is None and layer.residual is None
    _expect(layer, plain and layer.gate == "none", "an attention product carries nothing")
    if layer.weight.transposed:
        ends = (source.channels, dest.channels)
        _expect(layer, ends == (tokens, channels), f"{ends} by values {(tokens, channels)}")
        _expect(layer, dest.heads == heads, "the result has other heads")
    else:
        ends = (source.channels, dest.channels)
        _expect(layer, ends == (channels, tokens), f"{ends} by keys {(channels, tokens)}")
        _expect(layer, source.heads == heads, "the queries have other heads")
        _expect(layer, dest.role == "scores", "logits are stored as something else than scores")


def _right_hand(graph: LayerGraph, layer: Layer) -> tuple[int, int]:
    """Channels and tokens of keys or values."""
    if layer.weight.kind == "host":
        host = graph.host_tensors[layer.weight.key]
        fits = len(host.shape) == 3 and host.shape[0] == graph.batch and host.when == "prompt"
        _expect(layer, fits, f"{host.name} is no keys or values")
        return host.shape[2], host.shape[1]
    held: TensorInfo = graph.tensors[layer.weight.key]
    _expect(layer, held.heads == layer.heads, f"{held.name} has other heads")
    return held.channels, held.pixels


def _verify_write(graph: LayerGraph, layer: Layer) -> None:
    dest = graph.tensors[layer.dest]
    if layer.host_bias is not None:
        host = graph.host_tensors[layer.host_bias]
        fits = host.shape == (graph.batch, dest.channels) and host.when == "step"
        _expect(layer, fits, f"{host.name} is no bias per channel and step")
    if layer.residual is None:
        return
    other = graph.tensors[layer.residual]
    shapes = [(t.channels, t.height, t.width) for t in (dest, other)]
    _expect(layer, shapes[0] == shapes[1], f"{shapes[0]} plus a residual of {shapes[1]}")
    wide = ("stream", "output")
    _expect(layer, dest.role in wide and other.role in wide, "adds tensors that are not streams")
    _expect(layer, layer.gate == "none", "a gated layer carries no residual")
