"""The attribute reader that judges pictures."""

from __future__ import annotations

import numpy as np
import pytest

from models.checker import all_right, drawn, held_out_prompts, matches, read_attributes
from models.recipe.scenes import draw, is_held_out, parse_caption


def test_reads_drawn_pictures() -> None:
    pairs = drawn(40, seed=3)
    right = [all_right(image, prompt) for image, prompt in pairs]
    assert np.mean(right) >= 0.975


def test_reads_noisy_pictures() -> None:
    rng = np.random.default_rng(0)
    right = []
    for image, prompt in drawn(20, seed=4):
        noisy = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        right.append(all_right(noisy, prompt))
    assert np.mean(right) >= 0.95


SHOWN = "a red circle and a blue star on a forest background"


@pytest.mark.parametrize(
    ("wrong", "attributes"),
    [
        ("a pink circle and a blue star on a forest background", {"first colour"}),
        ("a red heart and a blue star on a forest background", {"first shape"}),
        ("a red circle and a cyan star on a forest background", {"second colour"}),
        ("a red circle and a blue cross on a forest background", {"second shape"}),
        ("a red circle and a blue star on a night background", {"background"}),
        (
            "a blue star and a red circle on a forest background",
            {"first colour", "first shape", "second colour", "second shape"},
        ),
    ],
)
def test_a_wrong_attribute_is_caught(wrong: str, attributes: set[str]) -> None:
    image = draw(parse_caption(SHOWN), 2)
    assert all_right(image, SHOWN)
    verdict = matches(image, wrong)
    assert {name for name, right in verdict.items() if not right} == attributes


def test_a_wrong_count_is_caught() -> None:
    image = draw(parse_caption(SHOWN), 2)
    assert not matches(image, "a red circle on a forest background")["count"]


def test_an_empty_picture_has_no_things() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert set(read_attributes(grey).things) == {None}


def test_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        read_attributes(np.zeros((64, 64, 3), np.float32))  # type: ignore[arg-type]


def test_held_out_prompts() -> None:
    prompts = held_out_prompts(50, seed=1)
    assert prompts == held_out_prompts(50, seed=1)
    assert len(set(prompts)) == 50
    assert all(is_held_out(parse_caption(prompt)) for prompt in prompts)
