"""Random valid integer graphs, one kind of layer each, for the tests of everything downstream.

``random_qgraph(kind, rng)`` builds a small whole graph: an int8 input with a few channels, the
layers that produce what the kind needs (wide tensors, Q, K, V), the layer under test, and, where
that one stores int8, a last layer that copies it to the int16 output unchanged.  All integers are
drawn directly, without calibration, from distributions that mix ordinary and extreme values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gen.layers import HostTensor, Layer, LayerGraph, Read, TensorInfo, Weight, Window
from gen.qlayers import Affine, QGraph, QLayer, QRead, QTensor

KINDS = (
    "conv3x3",
    "linear",
    "stride2",
    "stride2_asymmetric",
    "upsample",
    "concat",
    "concat_groupnorm_silu",
    "layernorm",
    "self_attention",
    "cross_attention",
    "geglu",
    "residual",
    "host_bias",
    "host_affine",
    "crop",
)


@dataclass
class Inputs:
    """Arguments of ``gen.reference.run`` after the graph."""

    latent_q: np.ndarray
    step_bias: dict[str, np.ndarray]
    prompt_q: dict[str, np.ndarray]
    step_affine: dict[str, Affine] = field(default_factory=dict)

    def args(self):
        return self.latent_q, self.step_bias, self.prompt_q


def integers(rng: np.random.Generator, shape, bits: int, low: int | None = None) -> np.ndarray:
    """Signed integers of ``bits`` bits: spread out, tiny, or nothing but the two extremes."""
    lo = -(1 << (bits - 1)) if low is None else low
    hi = (1 << (bits - 1)) - 1
    style = rng.choice(
        ["uniform", "normal", "tiny", "extreme", "constant"], p=[0.4, 0.3, 0.1, 0.1, 0.1]
    )
    if style == "uniform":
        values = rng.integers(lo, hi + 1, shape)
    elif style == "normal":
        values = np.rint(rng.normal(0, hi / 4, shape)).astype(np.int64)
    elif style == "tiny":
        values = rng.integers(-2, 3, shape)
    elif style == "extreme":
        values = np.where(rng.random(shape) < 0.5, lo, hi)
    else:
        values = np.full(shape, rng.integers(lo, hi + 1))
    return np.clip(values, lo, hi).astype(np.int64)


def _scales(rng: np.random.Generator, rows: int, magnitude: float, bits: int):
    """mult and shift [rows] that bring accumulators of ``magnitude`` near ``bits`` bits."""
    mult = rng.integers(1, 1 << 17, rows)
    if rng.random() < 0.5:
        mult |= 1 << 16
    elif rng.random() < 0.5:
        # powers of two: results fall on ties, where kinds of rounding differ
        mult = 1 << rng.integers(0, 17, rows)
    target = float(1 << (bits - 1)) * rng.choice([0.05, 0.3, 3.0])
    shift = np.rint(np.log2(np.maximum(magnitude * mult / target, 1e-9)))
    return mult.astype(np.int32), np.clip(shift, 1, 42).astype(np.int32)


class Kit:
    """Grows a graph layer by layer."""

    def __init__(self, rng: np.random.Generator, batch: int, size: tuple[int, int]) -> None:
        self.rng, self.batch, self.size = rng, batch, size
        self.tensors: dict[str, TensorInfo] = {}
        self.formats: dict[str, QTensor] = {}
        self.host: dict[str, HostTensor] = {}
        self.layers: list[QLayer] = []
        self.arrays: dict[str, np.ndarray] = {}
        channels = int(rng.integers(1, 5))
        self.replicas = int(rng.choice([1, 2, 4]))
        self.tensor("latent", channels * self.replicas, "input")

    def tensor(self, name, channels, role, size=None, heads=1, exponent=None) -> str:
        height, width = size or self.size
        self.tensors[name] = TensorInfo(name, channels, height, width, role, heads)
        bits = 8 if role in ("operand", "input") else 16
        if role in ("stream", "output"):
            exponent = int(self.rng.integers(-12, -4)) if exponent is None else exponent
            self.formats[name] = QTensor(bits, 2.0**exponent, exponent)
        else:
            self.formats[name] = QTensor(bits, float(self.rng.uniform(0.001, 0.1)))
        return name

    def read(self, sources, read: Read, table: bool = False) -> tuple[Read, QRead, float]:
        """The read side of a layer and the size of a typical operand."""
        rng = self.rng
        channels = sum(self.tensors[s].channels for s in sources)
        wide = self.formats[sources[0]].bits == 16
        exponents = [self.formats[s].exponent or 0 for s in sources]
        align = tuple(e - min(exponents) if read.norm == "group" else 0 for e in exponents)
        if read.norm == "none" and not wide and not table:
            ones = np.full(channels, 2)
            return read, QRead(ones.astype(np.int32), ones * 0, 1, align, 0, None, 0), 60.0
        spread = {"group": 4096.0, "layer": 4096.0}.get(read.norm, 2.0**13 if wide else 60.0)
        gamma = integers(rng, channels, 16)
        target = 400.0 if table else 40.0
        typical = max(float(np.abs(gamma).mean()), 1.0)
        shift = int(np.clip(np.rint(np.log2(spread * typical / target)), 1, 40))
        beta = np.rint(rng.normal(0, target, channels) * 2.0**shift)
        if rng.random() < 0.2:
            beta = integers(rng, channels, 32)
        beta = np.clip(beta, -(2**31), 2**31 - 1).astype(np.int64)
        eps = 0
        if read.norm in ("group", "layer"):
            eps = int(rng.choice([1, int(rng.integers(1, 1 << 40)), (1 << 62) + 12345]))
        lut = integers(rng, 2048, 8).astype(np.int8) if table else None
        pad = int(rng.integers(-128, 128))
        affine = None
        if read.host_affine is not None:
            self.host[read.host_affine] = HostTensor(
                read.host_affine, (self.batch, 2 * channels), "step"
            )
            affine = np.stack([gamma, beta, rng.normal(0, 2.0**shift, channels), beta * 0.0])
        qread = QRead(gamma.astype(np.int32), beta, shift, align, eps, lut, pad, affine)
        return read, qread, 60.0

    def static(
        self,
        name,
        sources,
        dest,
        read: Read | None = None,
        window: Window | None = None,
        table=False,
        residual=None,
        host_bias=False,
        gate=False,
        copy=False,
    ) -> str:
        """A layer with its own weights; ``dest`` is (channels, role, size, heads)."""
        rng = self.rng
        window = window or Window()
        channels, role, size, heads = dest
        self.tensor(name + ".out", channels, role, size, heads)
        read, qread, typical = self.read(sources, read or Read(), table)
        fan_in = sum(self.tensors[s].channels for s in sources)
        rows = channels * (2 if gate else 1)
        shape = (rows, fan_in, *window.kernel)
        weight = integers(rng, shape, 8, low=-127)
        magnitude = float(np.sqrt(np.prod(shape[1:])) * 70 * typical)
        bits = self.formats[name + ".out"].bits
        mult, shift = _scales(rng, rows, magnitude, bits)
        bias = np.rint(rng.normal(0, magnitude / 2, rows))
        if rng.random() < 0.1:
            bias = np.where(rng.random(rows) < 0.5, -(1 << 30), 1 << 30)
        gate_table, gate_shift = None, 0
        if gate:
            # value rows reach 16 bits, gate rows the 11 bits of the table index
            mult[:channels], shift[:channels] = _scales(rng, channels, magnitude, 16)
            mult[channels:], shift[channels:] = _scales(rng, channels, magnitude, 11)
            gate_table = integers(rng, 2048, 16).astype(np.int16)
            gate_shift = int(rng.choice([0, 15, 20, 24]))
        if copy:
            assert channels == fan_in and qread.gamma[0] == 2
            weight = np.eye(channels).reshape(shape)
            bias, mult, shift = bias * 0, np.full(rows, 2, np.int32), np.ones(rows, np.int32)
        residual_shift = 0
        if residual is not None:
            apart = self.formats[residual].exponent - self.formats[name + ".out"].exponent
            residual_shift = int(apart)
            shift = np.clip(shift, max(1, -residual_shift), 46 - max(0, residual_shift))
            shift = shift.astype(np.int32)
        key = None
        if host_bias:
            key = name + ".host"
            self.host[key] = HostTensor(key, (self.batch, channels), "step")
        self.arrays[name + ".weight"] = weight.astype(np.float32)
        layer = Layer(
            name=name,
            sources=tuple(sources),
            dest=name + ".out",
            weight=Weight("static", name + ".weight"),
            read=read,
            window=window,
            host_bias=key,
            residual=residual,
            gate="geglu" if gate else "none",
        )
        self.layers.append(
            QLayer(
                layer=layer,
                read=qread,
                weight=weight.astype(np.int8),
                bias=bias.astype(np.int32),
                mult=mult,
                shift=shift,
                acc_scale=rng.uniform(1e-6, 1e-4, rows),
                correction=integers(rng, rows, 20),
                residual_shift=residual_shift,
                gate_table=gate_table,
                gate_shift=gate_shift,
            )
        )
        return layer.dest

    def produce(self, name, channels, role, size=None, heads=1) -> str:
        """A tensor of the given role, computed from the latent by a 1x1 layer."""
        return self.static(name, ["latent"], (channels, role, size, heads))

    def attention(self, query, key, value, heads: int, host: bool) -> str:
        """Two layers: logits of query and key, and probabilities times value."""
        rng = self.rng
        info = self.tensors[query]
        size = (info.height, info.width)
        head_dim = info.channels // heads
        tokens = self.host[key].shape[1] if host else self.tensors[key].pixels
        self.tensor("scores", tokens, "scores", size)
        self.tensor("attended", info.channels, "operand", size, heads)
        kind = "host" if host else "tensor"
        _, identity, _ = self.read([query], Read())
        mult, shift = _scales(rng, tokens, np.sqrt(head_dim) * 3600, 16)
        zeros = np.zeros(tokens, np.int32)
        self.layers.append(
            QLayer(
                layer=Layer("qk", (query,), "scores", Weight(kind, key), heads=heads),
                read=identity,
                weight=None,
                bias=zeros,
                mult=mult,
                shift=shift,
                acc_scale=np.full(tokens, 1e-4),
                correction=zeros.astype(np.int64),
                host_weight_scale=0.01 if host else 0.0,
            )
        )
        s2 = int(rng.integers(1, 21))
        gamma = np.full(tokens, rng.integers(1, 1 << 15) if s2 > 10 else rng.integers(1, 1 << s2))
        delta = float(rng.choice([0.0027, 0.0001, 0.05]))
        table = np.rint(127 * np.exp(-delta * np.arange(2047, -1, -1))).astype(np.int8)
        read = QRead(gamma.astype(np.int32), np.full(tokens, 1023 << s2), s2, (0,), 0, table, 0)
        mult, shift = _scales(rng, head_dim, 4096 * 60, 8)
        zeros = np.zeros(head_dim, np.int32)
        self.layers.append(
            QLayer(
                layer=Layer(
                    "pv",
                    ("scores",),
                    "attended",
                    Weight(kind, value, transposed=True),
                    read=Read("softmax"),
                    heads=heads,
                ),
                read=read,
                weight=None,
                bias=zeros,
                mult=mult,
                shift=shift,
                acc_scale=np.full(head_dim, 1e-4),
                correction=zeros.astype(np.int64),
                host_weight_scale=0.01 if host else 0.0,
            )
        )
        return "attended"

    def finish(self, dest: str) -> QGraph:
        """Make ``dest`` the output, through an exact copy where it is not 16 bits wide."""
        if self.formats[dest].bits == 8:
            info = self.tensors[dest]
            size = (info.height, info.width)
            dest = self.static("copy", [dest], (info.channels, "output", size, 1), copy=True)
        self.tensors[dest] = replace(self.tensors[dest], role="output")
        graph = LayerGraph(
            self.batch,
            "latent",
            dest,
            self.tensors,
            self.host,
            [q.layer for q in self.layers],
            self.arrays,
        )
        return QGraph(graph, self.formats, self.layers, self.replicas)


def _heads(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(1, 4)), int(rng.choice([8, 16, 24, 32, 40, 64, 72]))


def random_qgraph(
    kind: str,
    rng: np.random.Generator,
    batch: int = 2,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    heads: tuple[int, int] | None = None,
) -> QGraph:
    """A graph that exercises one kind of layer (``KINDS``); shapes are drawn unless given.
    ``heads``: their number and channels.
    """
    size = size or (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    if kind.startswith("stride2"):
        size = (max(size[0], 2), max(size[1], 2))
    kit = Kit(rng, batch, size)
    c = channels or int(rng.choice([3, 8, 16, 20, 24, 40, 64, 72, 80, 136]))
    out = int(rng.choice([1, 4, 8, 12, 24, 40, 72]))
    full = (out, "stream", size, 1)
    norm = Read(str(rng.choice(["none", "group"])), groups=1, eps=1e-5)
    if kind == "conv3x3":
        table = bool(rng.random() < 0.5)
        x = kit.produce("x", c, "stream")
        dest = kit.static("conv", [x], full, norm, Window((3, 3), pad=(1, 1, 1, 1)), table)
    elif kind == "linear":
        x = kit.produce("x", c, str(rng.choice(["stream", "operand"])))
        dest = kit.static("linear", [x], (out, str(rng.choice(["stream", "operand"])), size, 1))
    elif kind in ("stride2", "stride2_asymmetric"):
        pad = (1, 1, 1, 1) if kind == "stride2" else (0, 0, 1, 1)
        x = kit.produce("x", c, "stream")
        half = tuple((n + pad[i] + pad[i + 2] - 3) // 2 + 1 for i, n in enumerate(size))
        dest = kit.static("down", [x], (out, "stream", half, 1), None, Window((3, 3), 2, pad))
    elif kind == "upsample":
        x = kit.produce("x", c, "stream")
        double = (2 * size[0], 2 * size[1])
        window = Window((3, 3), 1, (1, 1, 1, 1), 2)
        dest = kit.static("up", [x], (out, "stream", double, 1), None, window)
    elif kind == "crop":
        x = kit.produce("x", c, "stream")
        odd = (2 * size[0] - 1, 2 * size[1] - int(rng.integers(0, 2)))
        crop = (1, 2 * size[1] - odd[1])
        window = Window((3, 3), 1, (1, 1, 1, 1), 2, crop)
        dest = kit.static("up", [x], (out, "stream", odd, 1), None, window)
    elif kind in ("concat", "concat_groupnorm_silu"):
        other = int(rng.choice([4, 16, 20, 64, 88]))
        sources = [kit.produce("x", c, "stream"), kit.produce("skip", other, "stream")]
        window = Window((3, 3), pad=(1, 1, 1, 1)) if rng.random() < 0.7 else None
        if kind == "concat":
            dest = kit.static("shortcut", sources, full)
        else:
            groups = int(rng.choice([g for g in range(1, 9) if (c + other) % g == 0]))
            read = Read("group", groups, 1e-5, act="silu")
            dest = kit.static("conv", sources, full, read, window, table=True)
    elif kind == "layernorm":
        x = kit.produce("x", c, "stream")
        dest = kit.static("linear", [x], (out, "operand", size, 1), Read("layer", eps=1e-5))
    elif kind == "self_attention":
        count, head_dim = heads or _heads(rng)
        q, k, v = (kit.produce(n, count * head_dim, "operand", heads=count) for n in "qkv")
        dest = kit.attention(q, k, v, count, host=False)
    elif kind == "cross_attention":
        count, head_dim = heads or _heads(rng)
        q = kit.produce("q", count * head_dim, "operand", heads=count)
        tokens = int(rng.choice([1, 5, 16, 77]))
        for n in "kv":
            kit.host[n] = HostTensor(n, (batch, tokens, count * head_dim), "prompt")
        dest = kit.attention(q, "k", "v", count, host=True)
    elif kind == "geglu":
        x = kit.produce("x", c, "stream")
        read = Read("layer", eps=1e-5)
        dest = kit.static("geglu", [x], (out, "operand", size, 1), read, gate=True)
    elif kind == "residual":
        x, r = kit.produce("x", c, "stream"), kit.produce("r", out, "stream")
        dest = kit.static("conv", [x], full, norm, residual=r)
    elif kind == "host_affine":
        x = kit.produce("x", c, "stream")
        read = Read("group", 1, 1e-5, act="silu", host_affine="affine")
        window = Window((3, 3), pad=(1, 1, 1, 1))
        dest = kit.static("conv", [x], full, read, window, table=True)
    elif kind == "host_bias":
        x = kit.produce("x", c, "stream")
        dest = kit.static("conv", [x], full, norm, host_bias=True)
    else:
        raise ValueError(f"unknown kind {kind}")
    return kit.finish(dest)


def prompted(rng: np.random.Generator, tokens: int, size=(3, 5)) -> tuple[QGraph, Inputs]:
    """Attention to a prompt of ``tokens`` tokens, 2 heads, batch 2, and its inputs."""
    kit = Kit(rng, 2, size)
    q = kit.produce("q", 32, "operand", heads=2)
    for n in "kv":
        kit.host[n] = HostTensor(n, (2, tokens, 32), "prompt")
    qgraph = kit.finish(kit.attention(q, "k", "v", 2, host=True))
    return qgraph, random_inputs(qgraph, rng)


def shortened(inputs: Inputs, tokens: int) -> Inputs:
    """The same inputs with the first tokens of the prompt alone."""
    prompt = {name: value[:, :tokens] for name, value in inputs.prompt_q.items()}
    return replace(inputs, prompt_q=prompt)


def narrowed(qgraph: QGraph, spared: int = 0) -> QGraph:
    """The same graph with weights of 4 bits, -8 included; every layer number k with k % 3 ==
    ``spared``, copies and products of attention keep 8.
    """
    layers = []
    for k, q in enumerate(qgraph.layers):
        if q.weight is not None and q.layer.name != "copy" and k % 3 != spared:
            low = (q.weight.astype(np.int64) & 15 ^ 8) - 8
            q = replace(q, weight=low.astype(np.int8), weight_bits=4)
        layers.append(q)
    return replace(qgraph, layers=layers)


def far_apart(qgraph: QGraph) -> QGraph:
    """The same graph with a source of its last layer whose scale no engine aligns."""
    last = qgraph.layers[-1]
    aligned = replace(last.read, align=(8, *last.read.align[1:]))
    return replace(qgraph, layers=[*qgraph.layers[:-1], replace(last, read=aligned)])


def random_inputs(qgraph: QGraph, rng: np.random.Generator) -> Inputs:
    """Random arguments of ``gen.reference.run`` for ``qgraph``."""
    graph = qgraph.graph
    info = graph.tensors[graph.input]
    latent = integers(rng, (graph.batch, info.channels, info.height, info.width), 8)
    prompt = {
        name: integers(rng, host.shape, 8, low=-127).astype(np.int8)
        for name, host in graph.host_tensors.items()
        if host.when == "prompt"
    }
    step = {}
    for q in qgraph.layers:
        if q.layer.host_bias:
            spread = 1 << int(rng.integers(4, 30))
            shape = (graph.batch, len(q.bias))
            step[q.layer.name] = rng.integers(-spread, spread + 1, shape).astype(np.int32)
    affine = {}
    for q in qgraph.layers:
        if q.layer.read.host_affine is not None:
            shape = (graph.batch, len(q.read.gamma))
            gamma = integers(rng, shape, 16).astype(np.int32)
            affine[q.layer.name] = Affine(gamma, integers(rng, shape, 32))
    return Inputs(latent.astype(np.int8), step, prompt, affine)
