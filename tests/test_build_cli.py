"""What ``python -m gen build`` makes of its arguments."""

from __future__ import annotations

import pytest
from PIL import Image

import gen.build
from gen.__main__ import main
from gen.errors import UserError
from gen.model import find_model, prompt_tokens


@pytest.fixture
def settings(monkeypatch):
    """The settings that the build is started with."""
    seen = []
    monkeypatch.setattr(gen.build, "run_build", lambda model, out, chosen: seen.append(chosen))
    return seen


def test_bits(settings):
    assert main(["build", "sd15"]) == 0
    assert main(["build", "sd15", "--bits", "w4a8"]) == 0
    wide, narrow = (chosen.quantise for chosen in settings)
    assert (wide.weight_bits, wide.rounds_together, wide.replays) == (8, False, False)
    assert (narrow.weight_bits, narrow.rounds_together, narrow.replays) == (4, True, True)
    with pytest.raises(SystemExit):
        main(["build", "sd15", "--bits", "w5a8"])


def test_tokens_of_the_longest_prompt(settings, capsys):
    assert main(["build", "sd15", "--tokens", "154"]) == 0
    assert settings[0].tokens == 154
    assert [prompt_tokens(find_model("sd15"), wanted) for wanted in (0, 231)] == [77, 231]
    with pytest.raises(UserError, match="takes no prompt; leave out --tokens"):
        prompt_tokens(find_model("ddpm-cifar10-32"), 8)
    with pytest.raises(UserError, match="-1 tokens are no prompt"):
        prompt_tokens(find_model("sd15"), -1)


def test_calibration_on_prompts_or_pictures(settings, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    folder = tmp_path / "pictures"
    folder.mkdir()
    assert main(["build", "sd15", "--calibration", str(folder)]) == 2
    assert "holds no picture" in capsys.readouterr().err
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    assert main(["build", "sd15", "--calibration", str(tmp_path / "prompts.txt")]) == 0
    assert main(["build", "sd15", "--calibration", str(folder)]) == 0
    prompts, pictures = (chosen.subjects for chosen in settings)
    assert prompts.prompts == ("a cat", "a dog") and not prompts.pictures
    assert pictures.pictures == ((folder / "a.png").resolve(),) and not pictures.prompts


def test_engine_file_that_changes_makes_another_program(tmp_path):
    """What the file says counts, not its name."""
    file = tmp_path / "engine.toml"
    found = []
    for rows in (4096, 8192):
        file.write_text(f"[engine]\nstore_rows = {rows}\n")
        made = gen.build.stages(
            find_model("models/shapes-ldm"), tmp_path, gen.build.Settings(board=str(file))
        )
        found.append({stage.name: stage.options for stage in made})
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"program"}
