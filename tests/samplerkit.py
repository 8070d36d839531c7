"""Several steps in one start: a graph whose result is a prediction for its latent, its buffers,
and what the integer reference says.
"""

from __future__ import annotations

import numpy as np
from layerkit import Kit, random_inputs

from gen.layers import HostTensor, Read, Window
from gen.program import DynamicBuffer, Engine, lower, pack_static, unpack_result, verify_program
from gen.program.binary import program_bytes
from gen.program.layout import ROW
from gen.program.program import Program
from gen.program.sampler import (
    dynamic_buffers,
    dynamic_words,
    latent_buffers,
    latent_words,
    result_state,
    result_words,
    samples,
    with_sampler,
)
from gen.reference import run
from gen.reference.sampler import Coefficients, quantise_state, update


def eps_graph(rng, batch=2, prompt=True, size=(5, 7), channels=4, replicas=4, again=False):
    """Latent -> convolution with a bias per step -> norm scaled per step -> attention to a prompt
    -> convolution back to the latent's channels, which reads the latent, too, if ``again``.
    """
    kit = Kit(rng, batch, size)
    kit.replicas = replicas
    kit.tensor("latent", channels * replicas, "input")
    window = Window((3, 3), pad=(1, 1, 1, 1))
    x = kit.static("in", ["latent"], (40, "stream", size, 1), None, window, host_bias=True)
    norm = Read("group", 4, 1e-5, act="silu", host_affine="affine")
    x = kit.static("mid", [x], (32, "stream", size, 1), norm, window, table=True)
    if prompt:
        q = kit.static("q", [x], (32, "operand", size, 2))
        for name in "kv":
            kit.host[name] = HostTensor(name, (batch, 5, 32), "prompt")
        x = kit.attention(q, "k", "v", 2, host=True)
    sources = [x, "latent"] if again else [x]
    dest = kit.static("conv_out", sources, (channels, "stream", size, 1), None, window)
    return kit.finish(dest)


def random_coefficients(rng) -> Coefficients:
    """Mostly ordinary ones; some that saturate the state."""
    if rng.random() < 0.2:
        signs = rng.choice([-1, 1], 3)
        return Coefficients(*(int(s * v) for s, v in zip(signs, [2**31 - 1, 2**45, 2**45],
                                                         strict=True)))  # fmt: skip
    c0, c1 = (int(v) for v in rng.integers(-(1 << 37), 1 << 37, 2))
    return Coefficients(int(rng.integers(1 << 25, 1 << 27)), c0, c1)


def sampled(qgraph, ranks: int, **engine) -> Program:
    """The program on an engine with a sampler, verified. ``engine``: its other parameters."""
    made = Engine(**{"ranks": ranks, "cache_rows": 4096} | engine)
    program = lower(qgraph, with_sampler(made, qgraph.graph))
    verify_program(program)
    return program


class SeveralSteps:
    """``steps`` steps of a graph in one start, from a random state."""

    def __init__(self, rng, qgraph, program: Program, steps: int) -> None:
        self.qgraph, self.program, self.steps = qgraph, program, steps
        graph, ranks = qgraph.graph, program.ranks
        count, partner = samples(graph)
        self.inputs = [random_inputs(qgraph, rng) for _ in range(steps)]
        for each in self.inputs:
            each.prompt_q = self.inputs[0].prompt_q
        info = graph.tensors[graph.output]
        shape = (count, info.channels, info.height, info.width)
        spread = int(rng.choice([1 << 25, 1 << 30]))
        self.state = rng.integers(-spread, spread, shape).astype(np.int32)
        self.by = [random_coefficients(rng) for _ in range(steps - 1)]
        self.items = np.arange(graph.batch) % count
        self.partner = partner
        static = np.frombuffer(pack_static(qgraph, program), dtype=np.uint8)
        self.weights = list(static.reshape(ranks, -1))
        self.dynamic = dynamic_buffers(program, [self._dynamic(each) for each in self.inputs])
        assert self.dynamic[0].nbytes == 64 * dynamic_words(program, steps)
        self.latent = latent_buffers(program, qgraph, self.state, self.by)
        assert len(self.latent[0]) == latent_words(program, steps)
        # what an earlier start left there must not matter
        spill = [np.full((program.spill_rows, ROW), 0xA5, np.uint8) for _ in range(ranks)]
        self.spill = spill if program.moves else None
        self.blob = program_bytes(program)

    def _dynamic(self, inputs):
        dynamic = DynamicBuffer(self.program, self.qgraph)
        dynamic.set_step(inputs.step_bias)
        dynamic.set_affine(inputs.step_affine)
        dynamic.set_prompt(inputs.prompt_q)
        return dynamic.data

    def expected(self):
        """(result of the last step, state that it was computed from)."""
        state, count = self.state, len(self.state)
        for step, each in enumerate(self.inputs):
            latent = quantise_state(state, self.qgraph.input_replicas)[self.items]
            result = run(self.qgraph, latent, each.step_bias, each.prompt_q,
                         step_affine=each.step_affine)  # fmt: skip
            if step + 1 < self.steps:
                other = result[self.partner : self.partner + count]
                state = update(state, result[:count], other, self.by[step])
        return result, state

    def on(self, card):
        """The same from a card, of every rank's state."""
        assert card.set_program(self.blob) == 0, card.error
        words = result_words(self.program, self.steps)
        results = [np.zeros((words, 64), np.uint8) for _ in self.weights]
        status = card.step(
            self.weights, self.dynamic, self.latent, results, self.spill, steps=self.steps
        )
        assert status == 0, card.error
        rows = 2 * self.program.output_rows
        states = [result_state(self.program, each) for each in results]
        return unpack_result(self.program, [each[:rows] for each in results]), states
