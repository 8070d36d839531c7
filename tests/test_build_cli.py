"""What ``python -m gen build`` makes of its arguments."""

from __future__ import annotations

import pytest
from PIL import Image

import gen.build
from gen.__main__ import main


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
