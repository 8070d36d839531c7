"""Small float layer graphs with random weights, for the tests of calibration and quantisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gen.layers import HostTensor, Layer, LayerGraph, Read, TensorInfo, Weight, Window

BATCH, SIZE, WIDTH, HEADS, TOKENS = 2, 4, 32, 2, 5


class FloatKit:
    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, TensorInfo] = {}
        self.host: dict[str, HostTensor] = {}
        self.layers: list[Layer] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.tensor("latent", 4, "input")

    def tensor(self, name, channels, role, size=SIZE, heads=1):
        self.tensors[name] = TensorInfo(name, channels, size, size, role, heads)
        return name

    def array(self, key, *shape, spread=1.0, mean=0.0):
        self.arrays[key] = (self.rng.normal(size=shape) * spread + mean).astype(np.float32)
        return key

    def affine(self, name, channels, **read):
        gamma = self.array(f"{name}.gamma", channels, spread=0.3, mean=1.0)
        beta = self.array(f"{name}.beta", channels, spread=0.3)
        return Read(gamma=gamma, beta=beta, **read)

    def static(
        self, name, sources, channels, role, read=None, kernel=1, size=SIZE, heads=1, **options
    ):
        inputs = sum(self.tensors[s].channels for s in sources)
        rows = channels * (2 if options.get("gate") else 1)
        spread = (inputs * kernel**2) ** -0.5
        pad = (kernel // 2,) * 4
        window = options.pop("window", Window((kernel, kernel), 1, pad))
        self.layers.append(
            Layer(
                name,
                tuple(sources),
                self.tensor(f"{name}.out", channels, role, size, heads),
                Weight(
                    "static", self.array(f"{name}.w", rows, inputs, kernel, kernel, spread=spread)
                ),
                read or Read(),
                window,
                bias=self.array(f"{name}.b", rows, spread=0.2),
                **options,
            )
        )
        return f"{name}.out"

    def attention(self, name, query, key, value, kind):
        tokens = TOKENS if kind == "host" else SIZE * SIZE
        self.tensor(f"{name}.scores", tokens, "scores")
        self.tensor(f"{name}.out", WIDTH, "operand", heads=HEADS)
        scale = (WIDTH // HEADS) ** -0.5
        self.layers += [
            Layer(
                f"{name}.qk",
                (query,),
                f"{name}.scores",
                Weight(kind, key),
                scale=scale,
                heads=HEADS,
            ),
            Layer(
                f"{name}.pv",
                (f"{name}.scores",),
                f"{name}.out",
                Weight(kind, value, transposed=True),
                Read("softmax"),
                heads=HEADS,
            ),
        ]
        return f"{name}.out"

    def graph(self, output):
        return LayerGraph(
            BATCH, "latent", output, self.tensors, self.host, self.layers, self.arrays
        )


def small_unet(seed: int = 0, affine: bool = False) -> LayerGraph:
    """One of every kind of layer that a U-Net has; ``affine``: a norm that the host scales."""
    kit = FloatKit(seed)
    x = kit.static("conv_in", ["latent"], WIDTH, "stream", kernel=3)
    kit.host["temb"] = HostTensor("temb", (BATCH, WIDTH), "step")
    silu = kit.affine("norm1", WIDTH, norm="group", groups=4, eps=1e-5, act="silu")
    h = kit.static("conv1", [x], WIDTH, "stream", silu, 3, host_bias="temb")
    silu = kit.affine("norm2", WIDTH, norm="group", groups=4, eps=1e-5, act="silu")
    if affine:
        kit.host["affine"] = HostTensor("affine", (BATCH, 2 * WIDTH), "step")
        silu = replace(silu, host_affine="affine")
    h = kit.static("conv2", [h], WIDTH, "stream", silu, 3, residual=x)
    ln = kit.affine("ln1", WIDTH, norm="layer", eps=1e-5)
    q, k, v = (kit.static(n, [h], WIDTH, "operand", ln, heads=HEADS) for n in ("q", "k", "v"))
    a = kit.attention("self", q, k, v, "tensor")
    h = kit.static("out1", [a], WIDTH, "stream", residual=h)
    ln = kit.affine("ln2", WIDTH, norm="layer", eps=1e-5)
    q = kit.static("q2", [h], WIDTH, "operand", ln, heads=HEADS)
    for n in ("k2", "v2"):
        kit.host[n] = HostTensor(n, (BATCH, TOKENS, WIDTH), "prompt")
    a = kit.attention("cross", q, "k2", "v2", "host")
    h = kit.static("out2", [a], WIDTH, "stream", residual=h)
    ln = kit.affine("ln3", WIDTH, norm="layer", eps=1e-5)
    g = kit.static("ff1", [h], 2 * WIDTH, "operand", ln, gate="geglu")
    h = kit.static("ff2", [g], WIDTH, "stream", residual=h)
    down = Window((3, 3), 2, (1, 1, 1, 1))
    d = kit.static("down", [h], WIDTH, "stream", kernel=3, size=SIZE // 2, window=down)
    up = Window((3, 3), 1, (1, 1, 1, 1), 2)
    u = kit.static("up", [d], WIDTH, "stream", kernel=3, window=up)
    silu = kit.affine("norm3", 2 * WIDTH, norm="group", groups=4, eps=1e-5, act="silu")
    h = kit.static("merge", [u, x], WIDTH, "stream", silu, 3)
    s = kit.static("shortcut", [u, x], WIDTH, "stream", residual=h)
    silu = kit.affine("norm_out", WIDTH, norm="group", groups=4, eps=1e-5, act="silu")
    return kit.graph(kit.static("conv_out", [s], 4, "output", silu, 3))


def random_run(graph: LayerGraph, seed: int):
    """A (sample, host tensors) pair in torch."""
    generator = torch.Generator().manual_seed(seed)
    info = graph.tensors[graph.input]
    shape = (graph.batch, info.channels, info.height, info.width)
    host = {n: torch.randn(h.shape, generator=generator) for n, h in graph.host_tensors.items()}
    return torch.randn(shape, generator=generator), host
