"""Constants that Python repeats of the kernels and of their simulation."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess

import pytest
from cpp import BASE_FLAGS, ROOT

from gen.program import Engine, buffers, cost_clocks, layout, structs
from gen.program import sampler as sampler_words
from gen.program.cost import CostModel
from gen.qlayers import TABLE_SIZE
from gen.reference import sampler

HEADERS = (
    "hls_burst_maxi.h", "hls_stream.h", "scheduler.hpp", "timing.hpp",
    "post.hpp", "pre.hpp", "sampler.hpp", "store.hpp", "wload.hpp",
)  # fmt: skip


def of_both_ports(option: str) -> int:
    """An option of the m_axi ports of wload."""
    text = (ROOT / "gen/templates/card/wload.cpp.j2").read_text()
    weights, dynamic = re.findall(rf"mode=m_axi .* {option}=(\d+)", text)
    assert weights == dynamic
    return int(weights)


# C++ expression -> what Python has for it
EXACT = {
    "lda::EARLY": cost_clocks.EARLY,
    "lda::SPILL_BURST": cost_clocks.SPILL_BURST,
    "lda::SPILL_AHEAD": cost_clocks.SPILL_AHEAD,
    "lda::TABLE_READY": cost_clocks.TABLE_CYCLES,
    "lda::POST_DISTANCE - 1": cost_clocks.PARAMETER_CYCLES,
    "lda::POST_DISTANCE": cost_clocks.STAT_CYCLES,
    "sim::Timing().memory_read.latency": cost_clocks.DDR_LATENCY,
    "sim::Timing().memory_write.latency": cost_clocks.DDR_LATENCY,
    "sim::Timing().memory_write.buffered_words": cost_clocks.WRITE_BUFFER,
    "lda::BURST_WORDS": cost_clocks.BURST_WORDS,
    "lda::FETCH_AHEAD + 1": of_both_ports("num_read_outstanding"),
    "lda::MAX_TAPS": structs.MAX_TAPS,
    "lda::MAX_SOURCES": structs.MAX_SOURCES,
    "lda::GROUP": layout.GROUP,
    "lda::SUB": layout.SUB,
    "lda::WORD_BYTES": layout.WORD,
    "sizeof(lda::Pair)": layout.ROW,
    "lda::TABLE_SIZE": TABLE_SIZE,
    "lda::TABLE_WORDS": buffers.TABLE_WORDS,
    "lda::FRACTION_BITS": sampler.FRACTION_BITS,
    "lda::STATE_BITS": sampler.STATE_BITS,
    "lda::COEFFICIENT_BITS": sampler.COEFFICIENT_BITS,
    "lda::SLOTS_PER_WORD": sampler_words.SLOTS_PER_WORD,
}
# bandwidths, which the simulation has in thousandths of a cycle per word
WORD_CYCLES = CostModel(Engine()).word_cycles
CLOSE = {
    "sim::Timing().memory_read.millicycles_per_word / 1000.0": WORD_CYCLES,
    "sim::Timing().memory_write.millicycles_per_word / 1000.0": cost_clocks.WRITE_SHARE
    * WORD_CYCLES,
}


def values(folder, kernels) -> dict[str, float]:
    """What the C++ expressions are."""
    names = [*EXACT, *CLOSE]
    lines = [f'#include "{name}"' for name in HEADERS]
    lines += ['extern "C" {', "extern const double VALUES[];", "const double VALUES[] = {"]
    lines += [f"    double({name})," for name in names]
    source = folder / "constants.cpp"
    source.write_text("\n".join([*lines, "};", "}", ""]))
    target = source.with_suffix(".so")
    subprocess.run(["g++", *BASE_FLAGS, f"-I{kernels}", str(source), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    return dict(zip(names, (ctypes.c_double * len(names)).in_dll(library, "VALUES"), strict=True))


def differences(found: dict[str, float]) -> list[str]:
    wrong = [name for name, value in EXACT.items() if found[name] != value]
    return wrong + [
        name for name, value in CLOSE.items() if found[name] != pytest.approx(value, rel=1e-3)
    ]


def test_constants_are_those_of_the_kernels(tmp_path):
    assert differences(values(tmp_path, ROOT / "hls" / "kernels")) == []


def test_a_run_of_wload_is_one_burst():
    assert of_both_ports("max_read_burst_length") == cost_clocks.BURST_WORDS


def test_a_constant_that_drifts_is_seen(tmp_path):
    kernels = tmp_path / "kernels"
    shutil.copytree(ROOT / "hls" / "kernels", kernels)
    header = kernels / "post_stats.hpp"
    right = "static const int POST_DISTANCE = 3;"
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, "static const int POST_DISTANCE = 4;"))
    found = differences(values(tmp_path, kernels))
    assert found == ["lda::TABLE_READY", "lda::POST_DISTANCE - 1", "lda::POST_DISTANCE"]
