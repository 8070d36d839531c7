"""The sampler on the card: which engine holds a model's latent, and the words of its buffers.

Behind the rows of the latent and of the result lie the words that hls/kernels/sampler.hpp names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from gen.layers import LayerGraph
from gen.program.engine import Engine
from gen.program.io import pack_latent
from gen.program.layout import GROUP, ROW, WORD, Stored, ceil_div, up_to
from gen.program.program import Program
from gen.program.structs import Updates
from gen.qlayers import QGraph
from gen.reference.sampler import Coefficients, Int32, offsets, quantise_state

Bytes = NDArray[np.uint8]

SLOTS_PER_WORD = 2  # pixel slots of the state in a word
STATE_LANES = GROUP  # int32 of a pixel slot in memory


def samples(graph: LayerGraph) -> tuple[int, int]:
    """Latents of a step, and items from one to its partner in a guided pair (0: no pairs).

    A U-Net that takes a prompt is built for pairs if its batch is even: items s and s + batch/2
    read the same latent, the first without the prompt.
    """
    prompted = any(host.when == "prompt" for host in graph.host_tensors.values())
    if prompted and graph.batch % 2 == 0:
        return graph.batch // 2, graph.batch // 2
    return graph.batch, 0


def with_sampler(engine: Engine, graph: LayerGraph) -> Engine:
    """The engine with a sampler that holds the latents of a step.

    Raises:
        UserError: a result that is no prediction for its latent alone.
    """
    latent, result = graph.tensors[graph.input], graph.tensors[graph.output]
    layer = next(layer for layer in graph.layers if layer.dest == graph.output)
    why = ""
    if (latent.height, latent.width) != (result.height, result.width):
        why = "its result has another size than its latent"
    elif latent.channels % result.channels:
        why = f"it reads {latent.channels} channels and predicts {result.channels}"
    elif result.channels > GROUP:
        why = f"its latent has {result.channels} channels, {GROUP} are possible"
    elif latent.channels > 2 * GROUP:
        why = f"its input has {latent.channels} channels, {2 * GROUP} are possible"
    elif layer.host_bias is not None or layer.residual is not None:
        why = f"its last layer ({layer.name}) adds other tensors"
    if why:
        raise UserError(f"the sampler cannot run on the card: {why}; build without --sampler")
    count, _ = samples(graph)
    slots = count * up_to(result.height * result.width, 2 * GROUP)
    return replace(engine, sampler_pixels=slots, sampler_channels=result.channels)


def updates_of(
    graph: LayerGraph, engine: Engine, latent: Stored, result: Stored, step_word: int, end_word: int
) -> Updates:
    """The constants of several steps. What a step has of its own lies in the dynamic buffer from
    ``step_word`` to ``end_word``.

    Raises:
        UserError: a latent that the engine's sampler does not hold.
    """
    if not engine.sampler_pixels:
        return Updates(step_word, end_word - step_word, 0, 0, 0, 0)
    count, partner = samples(graph)
    octets = count * result.item_octets
    need = with_sampler(engine, graph)
    have = (engine.sampler_pixels, engine.sampler_channels)
    wanted = (need.sampler_pixels, need.sampler_channels)
    if have[0] < wanted[0] or have[1] != wanted[1]:
        raise UserError(
            f"the engine's sampler holds {have[0]} pixels of {have[1]} channels, "
            f"{wanted[0]} of {wanted[1]} are needed; choose sampler_pixels and sampler_channels so"
        )
    return Updates(
        step_word,
        end_word - step_word,
        octets,
        partner * result.item_octets,
        latent.local_groups,
        latent.group_rows,
    )


def latent_words(program: Program, steps: int) -> int:
    """Words of the latent buffer of every rank for starts of up to ``steps`` steps."""
    rows = program.input_rows * (ROW // WORD)
    if steps == 1:
        return rows
    return rows + program.updates.groups + state_words(program) + steps - 1


def result_words(program: Program, steps: int) -> int:
    """Words of the result buffer of every rank for starts of up to ``steps`` steps."""
    rows = program.output_rows * (ROW // WORD)
    return rows + (state_words(program) if steps > 1 else 0)


def dynamic_words(program: Program, steps: int) -> int:
    """Words of the dynamic buffer of every rank for starts of up to ``steps`` steps."""
    return program.dynamic_words + (steps - 1) * program.updates.step_words


def port_steps(program: Program) -> int:
    """Steps of the start that the kernels' ports are declared for and that test benches run."""
    return 2 if program.has_sampler else 1


def buffer_words(program: Program) -> dict[str, int]:
    """Words of every buffer of a rank as the kernels' ports declare them."""
    steps = port_steps(program)
    return {
        "latent": latent_words(program, steps),
        "result": result_words(program, steps),
        "weights": program.static_words,
        "dynamic": dynamic_words(program, steps),
        **({"spill": ROW // WORD * program.spill_rows} if program.moves else {}),
    }


def state_words(program: Program) -> int:
    """Words of the state."""
    return ceil_div(program.updates.octets * GROUP, SLOTS_PER_WORD)


def lane_words(program: Program, qgraph: QGraph, rank: int) -> Bytes:
    """Where the lanes of a rank's input come from, uint8 [local groups, 64]."""
    plan, tensor = program.updates, program.tensors[program.input]
    channels = tensor.channels // qgraph.input_replicas
    rounding = offsets(qgraph.input_replicas)
    words = np.zeros((plan.groups, WORD), np.uint8)
    for local in range(plan.groups):
        first = (local * program.ranks + rank) * GROUP
        for lane in range(min(GROUP, max(0, tensor.channels - first))):
            replica, channel = divmod(first + lane, channels)
            words[local, 4 * lane : 4 * lane + 4] = np.array([rounding[replica]], "<i4").view("u1")
            words[local, 4 * GROUP + lane] = channel
    return words


def pack_state(program: Program, state: Int32) -> Bytes:
    """Words uint8 [words, 64] of a state int32 [samples, channels, height, width]."""
    tensor = program.tensors[program.output]
    count, channels = state.shape[:2]
    slots = np.zeros((count, tensor.pitch, STATE_LANES), "<i4")
    slots[:, : tensor.pixels, :channels] = state.reshape(count, channels, -1).transpose(0, 2, 1)
    return slots.reshape(-1).view(np.uint8).reshape(-1, WORD)


def unpack_state(program: Program, words: Bytes) -> Int32:
    """The state int32 [samples, channels, height, width] of its words."""
    tensor = program.tensors[program.output]
    slots = words.reshape(-1).view("<i4").reshape(-1, tensor.pitch, STATE_LANES)
    values = slots[:, : tensor.pixels, : tensor.channels].transpose(0, 2, 1)
    return np.ascontiguousarray(
        values.reshape(-1, tensor.channels, tensor.height, tensor.width), np.int32
    )


def coefficient_words(updates: Sequence[Coefficients]) -> Bytes:
    """Words uint8 [updates, 64]."""
    words = np.zeros((len(updates), WORD), np.uint8)
    for word, by in zip(words, updates, strict=True):
        word[:4] = np.array([by.a], "<i4").view(np.uint8)
        word[8:24] = np.array([by.c0, by.c1], "<i8").view(np.uint8)
    return words


def latent_buffers(
    program: Program,
    qgraph: QGraph,
    state: Int32,
    updates: Sequence[Coefficients],
    lanes: Sequence[Bytes] = (),
) -> list[Bytes]:
    """The latent buffer of every rank, uint8 [words, 64], for a start from ``state`` [samples,
    channels, height, width] of one step more than there are ``updates``. ``lanes``: what
    ``lane_words`` gives for every rank, if that is known.
    """
    items = np.arange(program.batch) % len(state)
    rows = pack_latent(program, quantise_state(state, qgraph.input_replicas)[items])
    words = [each.reshape(-1, WORD) for each in rows]
    if not updates:
        return words
    lanes = lanes or [lane_words(program, qgraph, rank) for rank in range(program.ranks)]
    behind = [pack_state(program, state), coefficient_words(updates)]
    return [
        np.concatenate([rows, of_rank, *behind]) for rows, of_rank in zip(words, lanes, strict=True)
    ]


def dynamic_buffers(program: Program, steps: Sequence[Bytes]) -> list[Bytes]:
    """The dynamic buffer of every rank for a start of several steps, of those of single steps
    (``DynamicBuffer.data``, uint8 [ranks, bytes]) with the same prompt.
    """
    size = program.updates.step_words * WORD
    own = [data[:, data.shape[1] - size :] for data in steps[1:]]
    return [np.ascontiguousarray(each) for each in np.concatenate([steps[0], *own], axis=1)]


def result_state(program: Program, words: Bytes) -> Int32:
    """The state behind the rows of a rank's result buffer."""
    return unpack_state(program, words.reshape(-1, WORD)[2 * program.output_rows :])
