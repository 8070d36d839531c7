"""Finding models: folders, architectures, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors

from gen.errors import UserError
from gen.model import architectures, find_model, load_unet


def test_every_shipped_architecture_is_found():
    assert {"ddpm-cifar10-32", "ldm-celebahq-256", "sd15", "sdxl-base"} <= set(architectures())
    for name in architectures():
        model = find_model(name)
        assert model.kind == "architecture" and model.batch in (1, 2)


def test_unknown_name_is_one_sentence():
    with pytest.raises(UserError, match="no-such-model: neither a folder"):
        find_model("no-such-model")


def test_folder_that_is_not_diffusers(tmp_path):
    (tmp_path / "something.txt").write_text("")
    with pytest.raises(UserError, match="not a diffusers folder"):
        find_model(str(tmp_path))


def test_damaged_index(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        find_model(str(tmp_path))


def test_unsupported_class(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "X"]}))
    (tmp_path / "unet" / "config.json").write_text(
        json.dumps({"_class_name": "UNet3DConditionModel"})
    )
    with pytest.raises(UserError, match="UNet3DConditionModel is not supported"):
        load_unet(find_model(str(tmp_path)))


def test_truncated_weights(tmp_path):
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    )
    unet.save_pretrained(tmp_path)
    model = find_model(str(tmp_path))
    assert model.kind == "unet" and model.batch == 1
    assert load_unet(model).config.sample_size == 8
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_unet(model)


def test_relative_names_are_resolved(tmp_path, monkeypatch):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "X"]}))
    (tmp_path / "model" / "unet" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("model").path.is_absolute()
    assert all(file.is_absolute() for file in find_model("model").files)


def small_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        layers_per_block=1,
    )


def index_of(folder, name="unet"):
    (folder / "model_index.json").write_text(json.dumps({name: ["diffusers", "X"]}))


def test_float32_weights_are_memory_mapped(tmp_path):
    small_unet().save_pretrained(tmp_path)
    unet = load_unet(find_model(str(tmp_path)))
    regions = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors") and str(tmp_path) in line:
            regions.append([int(end, 16) for end in line.split()[0].split("-")])
    assert regions
    for name, parameter in unet.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in regions), name


def test_a_variant_is_loaded_where_there_is_no_other(tmp_path):
    unet = small_unet()
    unet.half().save_pretrained(tmp_path, variant="fp16")
    loaded = load_unet(find_model(str(tmp_path)))
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.conv_in.weight, unet.conv_in.weight.float())
    small_unet().save_pretrained(tmp_path)
    loaded = load_unet(find_model(str(tmp_path)))
    assert not torch.equal(loaded.conv_in.weight, unet.conv_in.weight.float())


def test_weights_of_another_format_are_refused(tmp_path):
    small_unet().save_pretrained(tmp_path)
    next(tmp_path.glob("*.safetensors")).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="holds no weights as safetensors"):
        load_unet(find_model(str(tmp_path)))


def test_old_pipelines_hold_the_unet_at_their_root(tmp_path):
    from diffusers import UNet2DModel

    UNet2DModel(
        sample_size=8,
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    ).save_pretrained(tmp_path)
    index_of(tmp_path)
    model = find_model(str(tmp_path))
    assert (model.kind, model.batch, model.tokens) == ("pipeline", 1, 0)
    assert tmp_path / "diffusion_pytorch_model.safetensors" in model.files
    assert load_unet(model).config.sample_size == 8


def test_batch_and_tokens_follow_the_configuration(tmp_path):
    small_unet().save_pretrained(tmp_path / "unet")
    index_of(tmp_path)
    model = find_model(str(tmp_path))
    assert (model.batch, model.tokens) == (2, 77)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"max_position_embeddings": 33}))
    assert find_model(str(tmp_path)).tokens == 33
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"time_cond_proj_dim": 4}))
    assert find_model(str(tmp_path)).batch == 1


def refused(kind, text):
    """An error as the hub's client raises it."""
    return kind(text, response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            lambda: refused(errors.GatedRepoError, "403.\nAsk first."),
            "^owner/name: this model is gated; accept",
        ),
        (lambda: refused(errors.RepositoryNotFoundError, "401.\n"), "the hub has no such model"),
        (lambda: errors.OfflineModeIsEnabled("offline"), "the hub cannot be reached"),
        (lambda: errors.LocalEntryNotFoundError("not cached"), "the hub cannot be reached"),
        (lambda: refused(errors.HfHubHTTPError, "503"), "refused the download"),
        (lambda: OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_failed_downloads_are_one_sentence(monkeypatch, error, message):
    def fail(*args, **options):
        raise error()

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=message) as refusal:
        find_model("owner/name")
    assert "\n" not in str(refusal.value)


def test_half_precision_is_downloaded_only_where_there_is_no_other(tmp_path, monkeypatch):
    def fetch(name, *, allow_patterns, ignore_patterns):
        assert name == "owner/name" and "*.bin" not in allow_patterns
        calls.append("*.fp16*" in ignore_patterns)
        if not calls[-1]:
            small_unet().half().save_pretrained(tmp_path / "unet", variant="fp16")
            index_of(tmp_path)
        return str(tmp_path)

    calls = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model = find_model("owner/name")
    assert calls == [True, False]
    assert load_unet(model).dtype == torch.float32
    calls.clear()
    find_model("owner/name")
    assert calls == [True]
