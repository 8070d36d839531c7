"""From a U-Net to the software card: every layer of a step, bit for bit, of one and four ranks."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import unets
from diffusers import UNet2DConditionModel
from generic_card import GenericCard, GraphRun, ranked
from layerkit import Inputs
from test_passes import IMAGE, Sketch

from gen.hostints import prompt_weights, quantise_latent, step_affines, step_biases
from gen.model import architectures
from gen.program import Engine
from gen.quantise import Options, calibrate, quantise

# those that differ from another in sizes alone, and one of 913 layers
AT_LENGTH = ("sd15", "sd15-256", "ldm-text2im-large-256", "sdxl-base")


@cache
def cut() -> unets.Case:
    """An up-sampling by 2 of 4x5 pixels to 7x9."""
    return unets.odd()


@cache
def scaled() -> unets.Case:
    """Norms that the time embedding scales and shifts."""
    return unets.scale_shift()


@cache
def classes() -> unets.Case:
    """Norms scaled by time and class labels, one item each."""
    config = unets.TINY | {"resnet_time_scale_shift": "scale_shift", "num_class_embeds": 5}
    extra = {"class_labels": torch.tensor([4, 1])}
    return unets.case(UNet2DConditionModel, config, 2, 8, 8, 5, extra, dict(extra))


def integers(qgraph, run) -> Inputs:
    """Integer inputs of a (sample, host values) pair."""
    sample, host = run
    arrays = {name: value.numpy() for name, value in host.items()}
    return Inputs(
        quantise_latent(qgraph, sample.numpy()),
        step_biases(qgraph, arrays),
        prompt_weights(qgraph, arrays),
        step_affines(qgraph, arrays),
    )


def quantised(graph, runs):
    """The integer graph of ``graph`` and the integer inputs of the last run."""
    qgraph = quantise(graph, calibrate(graph, runs, progress=False), Options(), progress=False)
    return qgraph, integers(qgraph, runs[-1])


def runs_of(case, timesteps):
    torch.manual_seed(2)
    return [(torch.randn_like(case.sample), case.host_values(t)) for t in timesteps]


@cache
def of_model(make):
    made = make()
    return quantised(made.layers, runs_of(made, (900.0, 500.0, 100.0)))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in AT_LENGTH else ()) for n in architectures()],
)
def test_shipped_architectures_equal_the_reference(name):
    """All blocks of the architecture, an eighth of its channels, at two timesteps."""
    case = unets.narrow(name)
    runs = runs_of(case, (900.0, 100.0))
    qgraph, last = quantised(case.layers, runs)
    card = GenericCard(*ranked(4))
    results = []
    for inputs in (integers(qgraph, runs[0]), last):
        graph = GraphRun(qgraph, inputs, Engine(ranks=4))
        assert graph.first_difference(card) is None
        results.append(graph.on(card).copy())
    assert results[0].std() > 0 and (results[0] != results[1]).any()


def test_blocks_of_sdxl_equal_the_reference():
    """Several transformer layers a block, linear projections, pooled prompt and picture size."""
    graph = GraphRun(*of_model(unets.sdxl_like), Engine(ranks=4))
    assert graph.first_difference(GenericCard(*ranked(4))) is None


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("make", [cut, scaled, classes])
def test_a_step_equals_the_reference(make, ranks):
    graph = GraphRun(*of_model(make), Engine(ranks=ranks))
    assert graph.first_difference(GenericCard(*ranked(ranks))) is None
    changing = [q for q in graph.qgraph.layers if q.layer.read.host_affine is not None]
    assert len(graph.program.step_affines) == len(changing)
    assert bool(changing) == (make is not cut)


def test_scales_of_another_step_are_another_result():
    """The card takes them from the dynamic buffer."""
    qgraph, inputs = of_model(scaled)
    here = GraphRun(qgraph, inputs)
    other = {
        name: type(each)(np.roll(each.gamma, 1, axis=1), each.beta)
        for name, each in inputs.step_affine.items()
    }
    there = GraphRun(qgraph, Inputs(*inputs.args(), other))
    card = GenericCard()
    assert not np.array_equal(here.on(card).copy(), there.on(card))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_a_table(approximate):
    sketch = Sketch()
    first = sketch.conv("first", "sample", out=6)
    gelu = sketch.add("gelu", "gelu", [first], (2, 6, 4, 4), approximate=approximate)
    graph = sketch.form(sketch.conv("last", gelu, inside=6))
    torch.manual_seed(0)
    qgraph, inputs = quantised(graph, [(torch.randn(IMAGE), {}) for _ in range(3)])
    assert qgraph.layers[1].read.table is not None
    run = GraphRun(qgraph, inputs, Engine(ranks=2))
    assert run.first_difference(GenericCard(*ranked(2))) is None
