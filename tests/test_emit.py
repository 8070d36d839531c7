"""Generated sources and their compilation."""

import os
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layerkit import random_inputs, random_qgraph

from gen import reference
from gen.compile import FLAGS, INCLUDES, compile_library, find_compiler
from gen.csim import CsimCard, CsimError
from gen.emit import SOURCES, emit_sources, kernel_tops, line_ports
from gen.emit.rom import CONSTANTS, engine_constants
from gen.errors import UserError
from gen.program import DynamicBuffer, Engine, lower, pack_static
from gen.program.binary import KERNELS

ROOT = Path(__file__).parent.parent
SMALL = replace(Engine(), ranks=4, store_rows=4096, window_rows=512, weight_rows=256)
TOPS = kernel_tops(SMALL.ranks)


@pytest.fixture(scope="module")
def small():
    qgraph = random_qgraph("host_bias", np.random.default_rng(11), size=(5, 6), channels=24)
    return qgraph, lower(qgraph, SMALL)


@pytest.fixture(scope="module")
def sources(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("src")
    emit_sources(small[1], folder)
    return folder


def test_every_constant_of_the_kernels_is_known():
    """params.hpp and Engine name the same parameters with the same defaults."""
    text = (ROOT / "hls" / "kernels" / "params.hpp").read_text()
    body = text[text.index("struct EngineDefaults") : text.index("template <class P>")]
    defaults = {n: int(v) for n, v in re.findall(r"static const int (\w+) = (\d+);", body)}
    assert dict(engine_constants(Engine())) == defaults


def test_sources_are_complete_and_repeatable(small, sources, tmp_path):
    _, program = small
    paths = emit_sources(program, tmp_path)
    names = {path.name for path in paths}
    assert {f"{top}.cpp" for top, *_ in TOPS} | {f"{k}_rom.hpp" for k in KERNELS} <= names
    assert set(SOURCES) <= names
    for path in paths:
        assert path.read_text() == (sources / path.name).read_text()
    for kernel in KERNELS:
        rom = (tmp_path / f"{kernel}_rom.hpp").read_text()
        assert f"{kernel.upper()}_ENTRIES[{len(program.entries)}]" in rom
        assert all(f"// {entry.layer}\n" in rom for entry in program.entries)
    for name, kernel, _rank in TOPS:
        top = (tmp_path / f"{name}.cpp").read_text()
        assert f'extern "C" void {name}(' in top
        assert f"lda::{kernel}" in top
    engine = (tmp_path / "engine.hpp").read_text()
    assert f"STORE_ROWS = {SMALL.store_rows};" in engine
    assert len(re.findall(r"static const int", engine)) >= len(CONSTANTS)


def test_templates_hold_no_logic():
    for template in (ROOT / "gen" / "templates" / "card").glob("*.j2"):
        text = re.sub(r"\{[%{].*?[%}]\}", "", template.read_text())
        assert not re.search(r"\b(if|while|for|switch)\s*\(", text), template.name


def test_every_link_between_ranks_has_two_ends_of_one_width():
    for ranks in (1, 2, 4):
        ports = [dict(line_ports(rank, ranks)) for rank in range(ranks)]
        for rank in range(ranks - 1):
            assert ports[rank]["to_right_s"] == ports[rank + 1]["from_left_s"] == rank + 1
            assert ports[rank + 1]["to_left_s"] == ports[rank]["from_right_s"] == ranks - 1 - rank
        assert sum(map(len, ports)) == 4 * (ranks - 1)


@pytest.mark.csim
@pytest.mark.parametrize("ranks", [1, 2])
def test_tops_of_fewer_ranks_compile(ranks, tmp_path):
    qgraph = random_qgraph("residual", np.random.default_rng(2), size=(4, 4), channels=16)
    emit_sources(lower(qgraph, replace(SMALL, ranks=ranks)), tmp_path)
    for name, _kernel, rank in kernel_tops(ranks):
        if rank is not None:
            test_kernel_tops_compile_as_vitis_sees_them(tmp_path, name)


@pytest.mark.csim
@pytest.mark.parametrize("kernel", [top for top, *_ in TOPS])
def test_kernel_tops_compile_as_vitis_sees_them(sources, kernel):
    """The plain form, with our stand-ins for the tool's headers."""
    command = [find_compiler(), "-std=c++14", "-fsyntax-only", "-DLDA_PLAIN", "-Wall", "-Werror"]
    command += ["-Wno-unknown-pragmas", "-Wno-unused-label", f"-I{sources}"]
    command += [f"-I{folder}" for folder in INCLUDES]
    done = subprocess.run(
        [*command, str(sources / f"{kernel}.cpp")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.csim
def test_built_card_equals_the_reference_and_is_cached(small, sources, tmp_path):
    qgraph, program = small
    cache, output = tmp_path / "cache", tmp_path / "card.so"
    files = [sources / name for name in SOURCES]
    assert compile_library(files, output, cache=cache, progress=False)
    inputs = random_inputs(qgraph, np.random.default_rng(1))
    dynamic = DynamicBuffer(program, qgraph)
    dynamic.set_step(inputs.step_bias)
    weights = np.frombuffer(pack_static(qgraph, program), np.uint8).reshape(program.ranks, -1)
    card = CsimCard(output, program)
    expected = reference.run(qgraph, *inputs.args())
    for _ in range(2):
        got = card.step(weights, dynamic.data, inputs.latent_q)
        np.testing.assert_array_equal(got, expected)
    assert card.cycles > 0 and card.report["status"] == "done"
    with pytest.raises(CsimError, match="weights"):
        card.step(weights[:, :-64], dynamic.data, inputs.latent_q)
    # again: found by its key, even for sources in another folder
    output.unlink()
    moved = tmp_path / "moved"
    emit_sources(program, moved)
    again = [moved / name for name in SOURCES]
    assert not compile_library(again, output, cache=cache, progress=False)
    assert output.is_file() and sorted(p.suffix for p in cache.iterdir()) == [".so"]


def script(path, body):
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def tiny(tmp_path):
    source = tmp_path / "tiny.cpp"
    source.write_text('extern "C" int answer() { return ANSWER; }\n')
    return source


def compile_tiny(tiny, tmp_path, answer="42"):
    output = tmp_path / "tiny.so"
    defines = {"ANSWER": answer}
    ran = compile_library(
        [tiny], output, defines=defines, includes=(), cache=tmp_path / "cache", progress=False
    )
    return ran, output


def test_key_depends_on_sources_flags_and_compiler(tiny, tmp_path, monkeypatch):
    assert compile_tiny(tiny, tmp_path)[0]
    assert not compile_tiny(tiny, tmp_path)[0]
    assert compile_tiny(tiny, tmp_path, "43")[0]
    tiny.write_text(tiny.read_text() + "// changed\n")
    assert compile_tiny(tiny, tmp_path)[0]
    (tmp_path / "new.hpp").write_text("// a header beside the source\n")
    assert compile_tiny(tiny, tmp_path)[0]
    real = find_compiler()
    monkeypatch.setenv(
        "CXX", script(tmp_path / "cxx", f'[ "$1" = --version ] && echo other\nexec {real} "$@"\n')
    )
    assert compile_tiny(tiny, tmp_path)[0]
    assert "-std=c++14" in FLAGS


def test_missing_compiler(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no-such-compiler was not found; install g\+\+"):
        compile_tiny(tiny, tmp_path)


def test_errors_name_the_log_and_leave_nothing(tiny, tmp_path):
    with pytest.raises(
        UserError, match=r"did not compile .*nonsense.* output is in (.*log)"
    ) as info:
        compile_tiny(tiny, tmp_path, "nonsense")
    log = Path(re.search(r"output is in (\S+\.log)", str(info.value))[1])
    assert "nonsense" in log.read_text()
    assert not (tmp_path / "tiny.so").exists()
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".log"]


def test_full_disk_and_killed_compiler(tiny, tmp_path, monkeypatch):
    real = find_compiler()
    probe = f'case "$*" in *--version*|*-dM*) exec {real} "$@";; esac\n'
    full = 'echo "as: cannot write: No space left on device" >&2; exit 1\n'
    monkeypatch.setenv("CXX", script(tmp_path / "full", probe + full))
    with pytest.raises(UserError, match="the disk is full"):
        compile_tiny(tiny, tmp_path)
    monkeypatch.setenv("CXX", script(tmp_path / "killed", probe + "kill -9 $$\n"))
    with pytest.raises(UserError, match="stopped by signal 9"):
        compile_tiny(tiny, tmp_path)
    assert not (tmp_path / "tiny.so").exists()


def test_interrupt_stops_the_compiler(tiny, tmp_path, monkeypatch):
    real = find_compiler()
    mark = tmp_path / "pid"
    probe = f'case "$*" in *--version*|*-dM*) exec {real} "$@";; esac\n'
    body = f"{probe}echo $$ > {mark}\nexec sleep 60\n"
    monkeypatch.setenv("CXX", script(tmp_path / "slow", body))

    def interrupt(_seconds):
        if mark.exists() and mark.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr("gen.compile.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_tiny(tiny, tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert not (tmp_path / "tiny.so").exists()
