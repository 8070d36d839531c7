"""Finding models: folders, architectures, and what is refused."""

import json

import pytest

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
