"""From a diffusers folder to a pipeline on the software card, through every file in between."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cpp import ROOT
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import save_file
from tiny_pipeline import CONFIG, tiny_pipe, tiny_unet

from gen.__main__ import main
from gen.build import Settings, run_build
from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.hostints import output_to_float, prompt_weights, quantise_latent, step_biases
from gen.model import find_model, load_unet, loras_of
from gen.program import load_program
from gen.program.engine import BOARDS
from gen.program.structs import BUFFER_STATIC
from gen.qgraph_io import load_qgraph
from gen.quantise import Options
from gen.reference import run
from gen.verify import verify
from host import image, selftest
from host.accelerator import Accelerator
from host.faults import CardFault
from host.overhead import host_overhead, waiting_card
from host.unet import AcceleratedUNet

pytestmark = pytest.mark.csim
TOKENS = 77


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_unet().save_pretrained(folder / "model")
    made = folder / "build"
    assert run_build(find_model(str(folder / "model")), made, Settings(), lambda _: None)
    return made


@pytest.fixture(scope="module")
def accelerator(build):
    return Accelerator(build)


@pytest.fixture(scope="module", params=[(1, False), (2, True)], ids=["1 rank", "2 ranks, untimed"])
def other_ranks(request, build):
    """The same quantised model for another number of ranks, and whether cycles are not modelled."""
    ranks, untimed = request.param
    folder = build.parent / f"ranks{ranks}"
    shutil.copytree(build, folder)
    board = build.parent / f"ranks{ranks}.toml"
    text = (BOARDS / "u250.toml").read_text()
    board.write_text(text.replace("\nranks = 4\n", f"\nranks = {ranks}\n"))
    model = find_model(str(build.parent / "model"))
    ran = run_build(model, folder, Settings(board=str(board), untimed=untimed), lambda _: None)
    assert ran == ["program", "emit", "compile"]
    return folder, untimed


@pytest.fixture(scope="module", params=["board", "narrow"])
def four_bits(build, request):
    """The same model with weights of 4 bits on the board's engine, or on one of a narrow array."""
    folder, board = build.parent / f"w4a8-{request.param}", "u250"
    shutil.copytree(build, folder)
    if request.param == "narrow":
        board = str(build.parent / "narrow.toml")
        text = (BOARDS / "u250.toml").read_text()
        Path(board).write_text(text.replace("\nranks = 4\n", "\nranks = 4\nweight_bits = 4\n"))
    settings = Settings(board=board, quantise=Options(weight_bits=4))
    ran = run_build(find_model(str(build.parent / "model")), folder, settings, lambda _: None)
    assert ran == ["quantise", "program", "emit", "compile"]
    return folder


def random_inputs(batch, seed):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((batch, 4, 8, 8), np.float32),
        rng.standard_normal((batch, TOKENS, 16), np.float32),
    )


def reference(build, latent, timestep, prompt):
    """The noise prediction by the integer reference."""
    qgraph, host = load_qgraph(build), HostGraph.load(build)
    steps = host.evaluate_step(timestep, len(latent))
    prompts = host.evaluate_prompt(torch.from_numpy(prompt))
    result = run(
        qgraph,
        quantise_latent(qgraph, latent),
        step_biases(qgraph, {name: value.numpy() for name, value in steps.items()}),
        prompt_weights(qgraph, {name: value.numpy() for name, value in prompts.items()}),
    )
    return output_to_float(qgraph, result)


def test_steps_equal_the_integer_reference(build, accelerator):
    for seed, timestep in enumerate((999.0, 500.0, 500.0, 0.0)):
        latent, prompt = random_inputs(2, seed)
        np.testing.assert_array_equal(
            accelerator.step(latent, timestep, prompt), reference(build, latent, timestep, prompt)
        )
    assert accelerator.cycles > 0


def ws_words(program):
    """Words of weights in the static buffer of a rank."""
    wloads = {e.layer: e.wload for e in program.entries if e.wload.ws_buffer == BUFFER_STATIC}
    return sum(each.row_words * each.ws_rows for each in wloads.values())


def test_weights_of_four_bits_run_on_an_engine_of_their_own(build, four_bits):
    eight, four = (load_program(each / "program.json") for each in (build, four_bits))
    assert (eight.engine.stored_bits, four.engine.stored_bits) == (8, 4)
    # two words a row or two passes: products of attention, and the layers at both ends
    ends = {four.entries[0].layer, four.entries[-1].layer}
    attention = {q.layer.name for q in load_qgraph(four_bits).layers if q.layer.heads}
    words = {e.layer for e in four.entries if e.mac.row_parts * e.wload.row_words == 2}
    assert words == ends | attention
    assert {e.mac.row_parts for e in four.entries if e.layer in words} == {
        8 // four.engine.weight_bits
    }
    assert ws_words(four) < 0.55 * ws_words(eight)
    accelerator = Accelerator(four_bits, device=1)
    for seed, timestep in enumerate((999.0, 0.0)):
        latent, prompt = random_inputs(2, seed)
        np.testing.assert_array_equal(
            accelerator.step(latent, timestep, prompt),
            reference(four_bits, latent, timestep, prompt),
        )


@pytest.mark.slow
def test_eight_bits_on_an_engine_of_four_bit_rows(build):
    """Every layer in two passes: the integers of the same model on its own engine."""
    folder, board = build.parent / "halves", build.parent / "halves.toml"
    shutil.copytree(build, folder)
    text = (BOARDS / "u250.toml").read_text()
    board.write_text(text.replace("\nranks = 4\n", "\nranks = 2\nweight_bits = 4\n"))
    run_build(
        find_model(str(build.parent / "model")), folder, Settings(board=str(board)), lambda _: None
    )
    program = load_program(folder / "program.json")
    assert all(e.mac.row_parts == 2 for e in program.entries)
    latent, prompt = random_inputs(2, 3)
    np.testing.assert_array_equal(
        Accelerator(folder, device=1).step(latent, 700.0, prompt),
        reference(build, latent, 700.0, prompt),
    )


@pytest.mark.slow
def test_bundled_model_with_weights_of_four_bits(tmp_path):
    """Built by the command, every layer of a step equal to the reference."""
    build = tmp_path / "shapes"
    arguments = ["build", str(ROOT / "models" / "shapes-ldm"), "--bits", "w4a8"]
    assert main([*arguments, "--out", str(build)]) == 0
    assert load_program(build / "program.json").engine.stored_bits == 4
    assert verify(build, steps=1)


def test_prompts_of_every_length_equal_the_integer_reference(build, accelerator):
    """One length after the other on the same card, and back to a longer one."""
    latent, whole = random_inputs(2, 8)
    for tokens in (1, 3, TOKENS, 2, TOKENS - 1):
        prompt = whole[:, :tokens]
        np.testing.assert_array_equal(
            accelerator.step(latent, 300.0, prompt), reference(build, latent, 300.0, prompt)
        )


def test_prompts_that_are_too_long_or_too_wide(accelerator):
    latent, whole = random_inputs(2, 8)
    with pytest.raises(UserError, match=f"has {TOKENS + 2} tokens, .* with --tokens {TOKENS + 2}"):
        accelerator.step(latent, 300.0, np.resize(whole, (2, TOKENS + 2, 16)))
    for wrong in (whole[:, :0], whole[:, :, :8], whole[:1], whole[0]):
        with pytest.raises(UserError, match=rf"was built for \[2, 1 to {TOKENS}, 16\]"):
            accelerator.step(latent, 300.0, wrong)


def test_ranks_of_the_build(build, accelerator):
    assert load_program(build / "program.json").ranks == 4
    codec = accelerator._codec
    assert [rank.result for rank in codec.ranks] == [True, False, False, False]
    (size, offset), (other_size, other) = codec.step_range, codec.prompt_range
    assert size and other_size and (offset + size <= other or other + other_size <= offset)


def test_host_code_is_lean(accelerator):
    # without a wait: what other processes do to the caches meanwhile is not the host's
    with waiting_card(0):
        taken = host_overhead(accelerator, tiny_unet())
    print(f"host code: {taken.processor:.0f} us of processor time per step, wall {taken.wall:.0f}")
    assert 5 < taken.processor <= 150


def test_known_step_is_kept_and_made_again(build, accelerator, monkeypatch):
    path = build / selftest.FILE
    codec, identity = accelerator._codec, accelerator.identity
    made = selftest.known_step(build, identity, codec)
    kept = path.read_bytes()
    monkeypatch.setattr(selftest, "_compute", lambda *_: pytest.fail("computed again"))
    again = selftest.known_step(build, identity, codec)
    np.testing.assert_array_equal(again.result, made.result)
    assert made.result.any()
    monkeypatch.undo()
    for damaged in (kept[:100], b"", kept[:-1]):
        path.write_bytes(damaged)
        selftest.known_step(build, identity, codec)
        assert path.read_bytes() == kept
    selftest.known_step(build, "another build", codec)
    assert selftest._read(path, identity, 4) is None
    path.unlink()


def test_wrong_weights_do_not_pass_the_self_test(build, accelerator):
    codec, session = accelerator._codec, accelerator._session
    known = selftest.known_step(build, accelerator.identity, codec)
    session.self_test(known, codec.result_values)
    for rank in session.ranks:
        weights = rank.weights
        half = weights.size // 2
        kept = weights.array[half:].copy()
        weights.array[half:] ^= 0x11
        session.send_weights()
        try:
            with pytest.raises(CardFault, match="computes wrongly"):
                session.self_test(known, codec.result_values)
        finally:
            weights.array[half:] = kept
            session.send_weights()
    session.self_test(known, codec.result_values)


def test_other_batches_equal_the_reference(build, accelerator):
    latent, prompt = random_inputs(3, 9)
    timesteps = np.array([700.0, 700.0, 20.0])
    result = accelerator.step(latent, timesteps, prompt)
    first = reference(build, latent[:2], 700.0, prompt[:2])
    last = reference(build, latent[[2, 2]], 20.0, prompt[[2, 2]])
    np.testing.assert_array_equal(result, np.concatenate([first, last[:1]]))


def draw(pipe, steps=3):
    """A latent that the pipeline draws."""
    embeds = torch.randn(2, 1, TOKENS, 16, generator=torch.Generator().manual_seed(0))
    return pipe(
        prompt_embeds=embeds[0],
        negative_prompt_embeds=embeds[1],
        num_inference_steps=steps,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
    ).images.numpy()


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
        UniPCMultistepScheduler,
    ],
)
def test_pipeline_on_the_card_draws_nearly_the_same(accelerator, scheduler):
    pipe = tiny_pipe()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    expected = draw(pipe)
    pipe.unet = AcceleratedUNet(accelerator, pipe.unet)
    error = draw(pipe) - expected
    noise_ratio = (expected**2).mean() / (error**2).mean()
    assert 20 < 10 * np.log10(noise_ratio) < 90


def test_images_do_not_depend_on_the_number_of_ranks(accelerator, other_ranks):
    pipe = tiny_pipe()
    float_unet = pipe.unet
    pipe.unet = AcceleratedUNet(accelerator, float_unet)
    expected = draw(pipe)
    folder, untimed = other_ranks
    other = Accelerator(folder, device=1)
    pipe.unet = AcceleratedUNet(other, float_unet)
    np.testing.assert_array_equal(draw(pipe), expected)
    assert (other.cycles is None) == untimed


def test_lora_changes_the_weights_and_not_the_card(build, tmp_path):
    shutil.copytree(build, tmp_path / "build")
    query = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"unet.{query}.lora_A.weight": torch.full((1, 32), 0.2),
        f"unet.{query}.lora_B.weight": torch.full((32, 1), 0.2),
    }
    save_file(tensors, tmp_path / "style.safetensors")
    lora = f"{tmp_path / 'style.safetensors'}:0.5"
    model = find_model(str(build.parent / "model"), [lora])
    ran = run_build(model, tmp_path / "build", Settings(), lambda _: None)
    assert "trace" in ran and "quantise" in ran and "compile" not in ran
    assert [str(each.path) for each in loras_of(tmp_path / "build")] == [lora.split(":")[0]]
    accelerator = Accelerator(tmp_path / "build")
    latent, prompt = random_inputs(2, 3)
    result = accelerator.step(latent, 10.0, prompt)
    expected = reference(tmp_path / "build", latent, 10.0, prompt)
    np.testing.assert_array_equal(result, expected)
    assert (result != reference(build, latent, 10.0, prompt)).any()
    plain = tiny_unet()
    with pytest.raises(UserError, match="made from another model"):
        AcceleratedUNet(accelerator, plain)
    AcceleratedUNet(accelerator, load_unet(model))


def test_what_no_kernel_computes_is_refused_by_the_build(tmp_path):
    config = {**CONFIG, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "model")
    model = find_model(str(tmp_path / "model"))
    with pytest.raises(
        UserError, match=r"^mid_block\.attentions\.0: cat of permute .* not supported"
    ):
        run_build(model, tmp_path / "build", Settings(), lambda _: None)
    assert not (tmp_path / "build" / "layers.json").exists()


def test_rebuilding_runs_no_stage(build):
    folder = build.parent / "model"
    assert run_build(find_model(str(folder)), build, Settings(), lambda _: None) == []


@pytest.mark.parametrize("name", ["weights.bin", "program.json", "card.so", "quant.safetensors"])
def test_truncated_file_is_named(build, tmp_path, capsys, name):
    copy = tmp_path / "build"
    shutil.copytree(build, copy)
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    status = image.main(["--build", str(copy), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and name in error


def test_wrong_latent_is_refused(accelerator):
    with pytest.raises(UserError, match=r"\[2, 4, 16, 16\].*\[batch, 4, 8, 8\]"):
        accelerator.step(np.zeros((2, 4, 16, 16)), 1, random_inputs(2, 0)[1])
