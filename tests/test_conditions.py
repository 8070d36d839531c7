"""Extra inputs on the software card: equal to the integer reference, per sample and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from tiny_pipeline import tiny_unet

from gen.build import Settings, run_build
from gen.errors import UserError
from gen.hostgraph import HostGraph
from gen.hostints import (
    output_to_float,
    prompt_weights,
    quantise_latent,
    step_affines,
    step_biases,
)
from gen.model import find_model
from gen.qgraph_io import load_qgraph
from gen.reference import run
from host.accelerator import Accelerator
from host.unet import AcceleratedUNet

pytestmark = pytest.mark.csim


def built(unet, folder):
    unet.save_pretrained(folder / "model")
    run_build(find_model(str(folder / "model")), folder / "build", Settings(), lambda _: None)
    return folder / "build"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        layers_per_block=1,
        num_class_embeds=4,
    ).eval()
    return unet, built(unet, tmp_path_factory.mktemp("labelled"))


def reference(build, latent, timestep, prompt, extra):
    qgraph, host = load_qgraph(build), HostGraph.load(build)
    given = {name: torch.from_numpy(value) for name, value in extra.items()}
    steps = host.evaluate_step(timestep, len(latent), given)
    prompts = host.evaluate_prompt(None if prompt is None else torch.from_numpy(prompt), given)
    result = run(
        qgraph,
        quantise_latent(qgraph, latent),
        step_biases(qgraph, {name: value.numpy() for name, value in steps.items()}),
        prompt_weights(qgraph, {name: value.numpy() for name, value in prompts.items()}),
        step_affine=step_affines(qgraph, {name: value.numpy() for name, value in steps.items()}),
    )
    return output_to_float(qgraph, result)


def test_class_labels_of_every_sample(labelled):
    unet, build = labelled
    stand_in = AcceleratedUNet(Accelerator(build), unet)
    latent = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([3, 0, 1])
    for chosen in (labels, labels.flip(0), labels):
        result = stand_in(latent, 70, chosen).sample.numpy()
        assert result.shape == (3, 3, 8, 8)
        for i, label in enumerate(chosen.numpy()):
            extra = {"class_labels": np.array([label])}
            expected = reference(build, latent[i : i + 1].numpy(), 70.0, None, extra)
            np.testing.assert_array_equal(result[i : i + 1], expected)
    first, second = (
        stand_in(latent[:1], 70, labels[:1])[0],
        stand_in(latent[:1], 70, labels[1:2])[0],
    )
    assert (first != second).any()


def test_labels_that_are_missing_are_refused(labelled):
    accelerator = Accelerator(labelled[1])
    with pytest.raises(UserError, match="class_labels, not with none"):
        accelerator.step(np.zeros((1, 3, 8, 8), np.float32), 1.0)
    with pytest.raises(UserError, match=r"class_labels has shape \[2\]"):
        accelerator.step(
            np.zeros((1, 3, 8, 8), np.float32), 1.0, extra={"class_labels": np.zeros(2, np.int64)}
        )


def test_a_pipeline_of_norms_that_time_scales(tmp_path):
    """``scale_shift``: norms change at every step, through diffusers' own pipeline."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 24),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        layers_per_block=1,
        resnet_time_scale_shift="scale_shift",
    ).eval()
    build = built(unet, tmp_path)
    stand_in = AcceleratedUNet(Accelerator(build), unet)
    pipe = DDIMPipeline(unet, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    seen = []

    def compared(_, given, result):
        latent, timestep = given[0].numpy(), float(given[1])
        seen.append(timestep)
        expected = reference(build, latent, timestep, None, {})
        np.testing.assert_array_equal(result.sample.numpy(), expected)

    stand_in.register_forward_hook(compared)
    pipe.unet = stand_in
    pictures = []
    for seed in (3, 3, 4):
        generator = torch.Generator().manual_seed(seed)
        pictures.append(pipe(generator=generator, num_inference_steps=3, output_type="np").images)
    assert len(set(seen)) == 3 and len(seen) == 9
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_pooled_prompt_and_size_of_sdxl(tmp_path):
    unet = tiny_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=60,
        use_linear_projection=True,
        time_cond_proj_dim=6,
    )
    build = built(unet, tmp_path)
    accelerator = Accelerator(build)
    stand_in = AcceleratedUNet(accelerator, unet)
    batch = accelerator.batch
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(batch, 4, 8, 8, generator=generator)
    prompt = torch.randn(batch, 77, 16, generator=generator)
    results = []
    for size, guidance in ((32.0, 1.0), (64.0, 1.0), (64.0, 7.0)):
        added = {
            "text_embeds": torch.randn(batch, 12, generator=generator),
            "time_ids": torch.full((batch, 6), size),
        }
        weight = torch.full((batch, 6), guidance)
        for timestep in (900, 30):
            result = stand_in(
                latent, timestep, prompt, timestep_cond=weight, added_cond_kwargs=added
            ).sample.numpy()
            extra = {"timestep_cond": weight.numpy()}
            extra |= {f"added_cond_kwargs_{name}": value.numpy() for name, value in added.items()}
            expected = reference(build, latent.numpy(), float(timestep), prompt.numpy(), extra)
            np.testing.assert_array_equal(result, expected)
            results.append(result)
    assert len({each.tobytes() for each in results}) == len(results)
