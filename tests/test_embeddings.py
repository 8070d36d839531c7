"""Calibration embeds prompts as the pipeline itself does, and shows a U-Net all that it takes."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from safetensors.torch import save_file
from tiny_pipeline import CONFIG, tiny_unet, tiny_vae
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from gen import layergraph_io
from gen.errors import UserError
from gen.lora import Lora
from gen.model import Model, find_model
from gen.passes import lower
from gen.quantise.effort import STEPS
from gen.quantise.embeddings import embed, has_text_encoder
from gen.quantise.subjects import Subjects
from gen.quantise.trajectories import CALIBRATION, Recording, load_runs, record
from gen.stages import ROOT
from gen.trace import trace_unet

TOKENIZER = ROOT / "models" / "shapes-ldm" / "tokenizer"
PROMPTS = ("a red circle", "a blue square")


def clip(kind, width, seed):
    """A text encoder of the bundled tokenizer."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=10,
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
    )
    return kind(config).eval()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A small pipeline of SDXL's kind: the object and its folder."""
    folder = tmp_path_factory.mktemp("xl")
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    unet = tiny_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=34,
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=clip(CLIPTextModel, 6, 1),
        text_encoder_2=clip(CLIPTextModelWithProjection, 10, 2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        add_watermarker=False,
    )
    pipe.save_pretrained(folder)
    return pipe, folder


def test_two_text_encoders(large):
    pipe, folder = large
    model = find_model(str(folder))
    assert has_text_encoder(model)
    made = embed(model, ["", *PROMPTS], model.tokens)
    with torch.no_grad():
        hidden, empty, pooled, empty_pooled = pipe.encode_prompt(list(PROMPTS), device="cpu")
    torch.testing.assert_close(made.hidden[1:], hidden)
    torch.testing.assert_close(made.pooled[1:], pooled)
    # the pipeline says that empty prompts are zeros
    torch.testing.assert_close(made.hidden[:1], empty[:1])
    torch.testing.assert_close(made.pooled[:1], empty_pooled[:1])
    assert not made.hidden[0].any()


def traced(model, unet, folder, size=8):
    graph, host = lower(
        trace_unet(unet, batch=model.batch, height=size, width=size, tokens=model.tokens)
    )
    layergraph_io.save(graph, folder)
    host.save(folder)
    return graph, host


def test_pooled_prompts_and_picture_sizes_reach_the_unet(large, tmp_path):
    pipe, folder = large
    model = find_model(str(folder))
    _, host = traced(model, pipe.unet, tmp_path)
    record(model, tmp_path, Subjects(prompts=PROMPTS), tmp_path)
    runs = load_runs(tmp_path / CALIBRATION)
    assert len(runs) == 2 * STEPS
    made = embed(model, ["", *PROMPTS], model.tokens)
    timesteps = diffusers.DDIMScheduler()
    timesteps.set_timesteps(STEPS)
    sizes = torch.tensor([16.0, 16.0, 0, 0, 16.0, 16.0]).expand(2, 6)
    for index, (_, values) in enumerate(runs):
        pair = made.rows([0, 1 + index // STEPS])
        extra = {
            "added_cond_kwargs_text_embeds": pair.pooled,
            "added_cond_kwargs_time_ids": sizes,
        }
        expected = host.evaluate_step(float(timesteps.timesteps[index % STEPS]), 2, extra)
        expected = expected | host.evaluate_prompt(pair.hidden, extra)
        for name, value in expected.items():
            torch.testing.assert_close(values[name], value)


def test_text_encoder_of_latent_diffusion(tmp_path):
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    config = LDMBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        head_dim=4,
        d_model=12,
    )
    bert = LDMBertModel(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = Model("ldm", "pipeline", tmp_path, (), 77, 2)
    assert has_text_encoder(model)
    ids = tokenizer(list(PROMPTS), padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = bert(ids.input_ids)[0]
    made = embed(model, PROMPTS, 77)
    torch.testing.assert_close(made.hidden, expected)
    assert made.pooled is None and made.hidden.shape == (2, 77, 12)


def test_long_prompts_are_embedded_in_stretches(large):
    """As pipelines for long prompts do: the prompt, then the empty prompt, each as a whole."""
    pipe, folder = large
    model = find_model(str(folder))
    own = model.tokens
    made, short = embed(model, PROMPTS, 2 * own + 3), embed(model, PROMPTS, own)
    torch.testing.assert_close(made.hidden[:, :own], short.hidden)
    torch.testing.assert_close(made.pooled, short.pooled)
    with torch.no_grad():
        empty = pipe.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
        encoders = ((pipe.text_encoder, slice(6)), (pipe.text_encoder_2, slice(6, 16)))
        for encoder, columns in encoders:
            expected = encoder(empty, output_hidden_states=True).hidden_states[-2]
            for row in made.hidden[..., columns]:
                torch.testing.assert_close(row[own : 2 * own], expected[0])
    assert embed(model, PROMPTS, 5).hidden.shape == (2, 5, 16)


def test_loras_are_fused_into_text_encoders(tmp_path):
    encoder = clip(CLIPTextModel, 16, 3)
    encoder.save_pretrained(tmp_path / "text_encoder")
    CLIPTokenizer.from_pretrained(TOKENIZER).save_pretrained(tmp_path / "tokenizer")
    # module names are those of the text encoder
    name = next(n for n, _ in encoder.named_modules() if n.endswith("layers.0.self_attn.q_proj"))
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    key = f"text_encoder.{name}.lora_{{}}.weight"
    save_file({key.format("A"): down, key.format("B"): up}, tmp_path / "a.safetensors")
    plain = Model("clip", "pipeline", tmp_path, (), 16, 2)
    lora = Lora(tmp_path / "a.safetensors", 0.5)
    fused = Model("clip", "pipeline", tmp_path, (), 16, 2, (lora,))
    before, after = (embed(model, PROMPTS, 16).hidden for model in (plain, fused))
    with torch.no_grad():
        encoder.get_submodule(name).weight += 0.5 * up @ down
        ids = CLIPTokenizer.from_pretrained(TOKENIZER)(
            list(PROMPTS), padding="max_length", max_length=16, return_tensors="pt"
        )
        expected = encoder(ids.input_ids)[0]
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after, atol=1e-3)
    save_file({key.format("A").replace("q_proj", "nobody"): down}, tmp_path / "b.safetensors")
    other = Model("clip", "pipeline", tmp_path, (), 16, 2, (Lora(tmp_path / "b.safetensors"),))
    with pytest.raises(UserError, match="has no module"):
        embed(other, PROMPTS, 16)


@pytest.mark.parametrize("channels", [9, 8, 5])
def test_unets_that_take_more_than_the_latent(channels, tmp_path):
    """In-painting sees a mask and the picture around it; others see noise."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**CONFIG, in_channels=channels).eval()
    model = Model("more", "unet", tmp_path, (), 5, 2)
    graph, _ = traced(model, unet, tmp_path)
    assert graph.tensors[graph.input].channels == channels
    record(model, tmp_path, Subjects(prompts=PROMPTS), tmp_path)
    recording = Recording.load(tmp_path / CALIBRATION)
    samples = [recording.arrays[f"sample/{i}"] for i, _, _ in recording.runs]
    first, second = samples[:2]
    assert first.shape == (2, channels, 8, 8)
    # the latent changes from step to step, the rest does not
    assert torch.equal(first[:, 4:], second[:, 4:])
    assert not torch.equal(first[:, :4], second[:, :4])
    if channels == 9:
        mask, around = first[:, 4:5], first[:, 5:]
        assert set(mask.unique().tolist()) == {0.0, 1.0} and 0.2 < mask.mean() < 0.5
        assert not (around * mask).any() and (around * (1 - mask)).std() > 0.3
