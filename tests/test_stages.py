"""Stages: resumed, skipped, never half written."""

import errno
import json

import pytest

from gen.errors import UserError
from gen.stages import RECORD, Stage, file_hash, output_hashes, run_stages


def stage(name, inputs, outputs, run, **options):
    return Stage(name, name, ["gen/errors.py"], inputs, outputs, run, options)


def writer(name, text, calls):
    def run(build, scratch):
        calls.append(name)
        (scratch / name).write_text(text)

    return run


def quiet(_):
    pass


def test_second_run_does_nothing(tmp_path):
    calls = []
    stages = [
        stage("first", [], ["a.txt"], writer("a.txt", "1", calls)),
        stage("second", ["a.txt"], ["b.txt"], writer("b.txt", "2", calls)),
    ]
    assert run_stages(stages, tmp_path, quiet) == ["first", "second"]
    assert run_stages(stages, tmp_path, quiet) == []
    assert calls == ["a.txt", "b.txt"]


def test_tampered_output_is_made_again(tmp_path):
    calls = []
    stages = [stage("first", [], ["a.txt"], writer("a.txt", "1", calls))]
    run_stages(stages, tmp_path, quiet)
    (tmp_path / "a.txt").write_text("tampered")
    assert run_stages(stages, tmp_path, quiet) == ["first"]
    assert (tmp_path / "a.txt").read_text() == "1"


def test_changed_option_or_input_runs_what_follows(tmp_path):
    calls = []

    def stages(option):
        return [
            stage("first", [], ["a.txt"], writer("a.txt", option, calls), option=option),
            stage("second", ["a.txt"], ["b.txt"], writer("b.txt", "2", calls)),
        ]

    run_stages(stages("x"), tmp_path, quiet)
    assert run_stages(stages("y"), tmp_path, quiet) == ["first", "second"]


def test_interrupt_keeps_finished_stages_and_leaves_nothing_half_written(tmp_path):
    calls = []

    def interrupted(build, scratch):
        (scratch / "b.txt").write_text("half")
        raise KeyboardInterrupt

    first = stage("first", [], ["a.txt"], writer("a.txt", "1", calls))
    with pytest.raises(KeyboardInterrupt):
        run_stages([first, stage("second", [], ["b.txt"], interrupted)], tmp_path, quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", RECORD]
    second = stage("second", [], ["b.txt"], writer("b.txt", "2", calls))
    assert run_stages([first, second], tmp_path, quiet) == ["second"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"no folder can be made there .*--out"):
            run_stages([], place)


def test_full_disk_is_one_sentence(tmp_path):
    def full(build, scratch):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="disk is full"):
        run_stages([stage("first", [], ["a.txt"], full)], tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_folder_outputs_are_hashed_file_by_file(tmp_path):
    def run(build, scratch):
        (scratch / "src").mkdir()
        (scratch / "src" / "x.cpp").write_text("int x;")

    stages = [stage("emit", [], ["src"], run)]
    run_stages(stages, tmp_path, quiet)
    expected = {"src/x.cpp": file_hash(tmp_path / "src" / "x.cpp")}
    assert output_hashes(tmp_path, ["src"]) == expected
    assert json.loads((tmp_path / RECORD).read_text())["emit"]["outputs"] == expected
    (tmp_path / "src" / "x.cpp").unlink()
    assert run_stages(stages, tmp_path, quiet) == ["emit"]


def test_scratch_of_a_killed_run_is_removed(tmp_path):
    (tmp_path / ".first-killed").mkdir()
    run_stages([stage("first", [], ["a.txt"], writer("a.txt", "1", []))], tmp_path, quiet)
    assert not (tmp_path / ".first-killed").exists()


def test_a_resuming_stage_finds_what_it_had_finished(tmp_path):
    found = []

    def run(build, scratch):
        found.append(sorted(p.name for p in scratch.iterdir()))
        (scratch / f"part{len(found)}").write_text("done")
        if len(found) in (1, 3):
            raise KeyboardInterrupt
        (scratch / "a.txt").write_text("whole")

    def stages(option):
        options = {"option": option}
        return [Stage("slow", "slow", (), [], ["a.txt"], run, options, resumes=True)]

    with pytest.raises(KeyboardInterrupt):
        run_stages(stages("x"), tmp_path, quiet)
    assert run_stages(stages("x"), tmp_path, quiet) == ["slow"]
    assert found == [[], ["part1"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", RECORD]
    # what was left for other options is of no use
    with pytest.raises(KeyboardInterrupt):
        run_stages(stages("y"), tmp_path, quiet)
    run_stages(stages("z"), tmp_path, quiet)
    assert found[2:] == [[], []]


def test_a_large_file_is_hashed_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("gen.stages._LARGE", 1)
    path = tmp_path / "large"
    path.write_bytes(b"one")
    before = file_hash(path)
    assert file_hash(path) == before
    path.write_bytes(b"two")
    assert file_hash(path) != before
