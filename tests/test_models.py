"""The drawing domain and the bundled pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.recipe.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    caption,
    draw,
    is_held_out,
    parse_caption,
    sample_scene,
)

MODEL = Path(__file__).parent.parent / "models" / "shapes-ldm"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason="weights are not in this checkout")


def test_domain_size() -> None:
    assert (len(SHAPES), len(COLOURS), len(BACKGROUNDS)) == (6, 8, 6)


def test_drawing_depends_on_the_seed_alone() -> None:
    scene = parse_caption("a red circle and a blue star on a forest background")
    first = draw(scene, 5)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw(scene, 5))
    assert not np.array_equal(first, draw(scene, 6))


def test_captions_round_trip() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        assert parse_caption(caption(scene)) == scene


@pytest.mark.parametrize("text", ["", "a red dog on a sky background", "a red circle"])
def test_other_sentences_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sentence"):
        parse_caption(text)


def test_held_out_combinations_stay_out_of_training() -> None:
    rng = np.random.default_rng(0)
    assert not any(is_held_out(sample_scene(rng)) for _ in range(300))
    assert all(is_held_out(sample_scene(rng, held_out=True)) for _ in range(30))


def test_objects_have_their_colours() -> None:
    for name, rgb in COLOURS.items():
        picture = draw(Scene((Thing(name, "square"),), "sky"), 1)
        assert tuple(int(v) for v in picture[33, 32]) == rgb


def test_every_domain_word_is_one_token(tmp_path: Path) -> None:
    from models.recipe.tokenizer import build_tokenizer, domain_words

    tokenizer = build_tokenizer(tmp_path)
    for word in domain_words():
        assert len(tokenizer.tokenize(word)) == 1
    longest = "a yellow triangle and a yellow triangle on a sunset background"
    assert len(tokenizer(longest).input_ids) <= tokenizer.model_max_length == 16


def test_orthogonalised_steps_have_flat_spectra() -> None:
    import torch

    from models.recipe.muon import orthogonalise

    matrix = torch.randn(48, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


@needs_model
def test_model_is_small_and_safe() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


@needs_model
def test_unet_has_the_promised_shape() -> None:
    import json

    config = json.loads((MODEL / "unet" / "config.json").read_text())
    assert config["block_out_channels"] == [64, 128, 192]
    assert config["attention_head_dim"] == [2, 4, 6]
    assert (config["norm_num_groups"], config["cross_attention_dim"]) == (16, 64)


@needs_model
def test_pipeline_loads_and_draws() -> None:
    from models.sampling import generate, load_pipeline, round_trip

    pipeline = load_pipeline(MODEL)
    images = generate(pipeline, ["a red circle on a sky background"] * 2, steps=2)
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8
    again = generate(pipeline, ["a red circle on a sky background"], steps=2)
    assert np.abs(images[0].astype(int) - again[0]).max() <= 2

    drawn = draw(parse_caption("a red circle and a blue star on a snow background"), 0)[None]
    error = np.square(round_trip(pipeline, drawn).astype(float) - drawn).mean()
    assert 10 * np.log10(255**2 / error) > 26
