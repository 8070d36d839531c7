"""mac: slots follow each other as the contract says, and memories may be as slow as it says."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from cpp import FAST, compile_cpp
from latewrites import LATE
from mackit import (
    GUARD,
    PLAIN,
    Program,
    assert_right,
    copied_kernels,
    library,
    pointwise,
    random_program,
    single,
)

from gen.program.structs import RING_NONE, RING_V, Segment

# Cycles of a run besides its slots: first job, loop entry, pipelines, loop exit, last token.
OVERHEAD = 22


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("units", [1, 2, 5])
def test_slots_follow_each_other_without_a_bubble(units, rounds):
    """lead + rounds * tiles * units * steps + the last words, in both forms."""
    ranks, tiles, groups = 4, 6, 16
    steps, beats = 8, 4
    layer = pointwise(ranks, units * rounds, units, tiles, groups)
    rows = units * steps
    # the first execution's own rows come beside the fill; the first Beat of the fill's last octet
    # is GUARD cycles old when the first tile begins
    lead = max(4 * beats, 3 * beats + GUARD, rows)
    # a tile fills the next one beside its own steps
    tile = max(rows, 4 * beats)
    filled = (tiles - 1) * tile + rows + (rounds - 1) * tiles * rows
    for form in (FAST, PLAIN):
        run = single(layer).run(library(*form, "-DLDA_RANKS=4"))
        assert run.status == 0, run.text
        assert run.cycles == lead + filled + 4 + OVERHEAD


def test_following_rows_are_there_when_an_execution_begins():
    layer = pointwise(4, 4, 4, 4, 16)
    lib = library(*FAST, "-DLDA_RANKS=4")
    rng = np.random.default_rng(1)
    one, two = (
        Program([Segment(0, 1, 1, n)], [layer], [layer.execution(rng, False)] * n, [0] * n).run(lib)
        for n in (1, 2)
    )
    fill, tiles, last = 16, 4 * 4 * 8, 4 // 2
    job = 1
    assert two.cycles - one.cycles == fill + tiles + max(job, last)


@pytest.mark.parametrize("late", [0, 1])
def test_a_lead_beyond_the_first_tile_hides_guard(late):
    """Two Beats an octet, eight steps and eight Beats a tile."""
    layer = pointwise(4, 2, 2, 16, 8, late=late)
    run = single(layer).run(library(*FAST, "-DLDA_RANKS=4"))
    assert run.status == 0, run.text
    lead = max(2 * (4 + late), 2 * 3 + GUARD)
    # 15 tiles fill the next one; without the octet that is there already, the first Beat of a
    # slot's last octet comes two cycles before the slot's end
    filling = 15 - late
    assert run.cycles == lead + 16 * 8 + (0 if late else filling * 2) + 4 + OVERHEAD


def test_weights_from_a_slow_memory_do_not_hold_up_a_round_of_many_tiles():
    """A row every fourth cycle hides behind 8 tiles; what the first round waits for is in `one`."""
    layer = pointwise(4, 16, 4, 8, 8)
    lib = library(*FAST, "-DLDA_RANKS=4")
    rng = np.random.default_rng(1)
    runs = [
        Program([Segment(0, 1)], [layer], [layer.execution(rng, False)], [0]).run(
            lib, (1, 1, interval, 1)
        )
        for interval in (1, 4)
    ]
    rows = 4 * 4
    assert runs[1].cycles - runs[0].cycles <= 4 * rows - rows


# --- hardware timing of the memories ------------------------------------------------------------


def delayed_library(folder, delay: int, ranks: int) -> ctypes.CDLL:
    """The plain form with writes to the window and weight buffers ``delay`` iterations late."""
    kernels = copied_kernels(folder) / "hls/kernels"
    text = (kernels / "mac.hpp").read_text()
    changes = [
        ("namespace lda {", LATE + "namespace lda {"),
        ("        TICK(span);\n", "        TICK(span);\n        late().tick(1);\n"),
        (
            "#else\n            fill.place(entry, fill.pass, to);\n"
            "            write_window<P>(memory.window, entry.subs, place, to, beat);\n",
            "#else\n            fill.place(entry, fill.pass, to);\n"
            "            const int subs = entry.subs;\n"
            "            late().later([=, &memory] {\n"
            "                write_window<P>(memory.window, subs, place, to, beat); });\n",
        ),
        (
            "            memory.weights[load_half * P::WEIGHT_ROWS + load.row] = weights;\n",
            "            const int to_row = load_half * P::WEIGHT_ROWS + load.row;\n"
            "            late().later([=, &memory] { memory.weights[to_row] = weights; });\n",
        ),
    ]
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (kernels / "mac.hpp").write_text(text)
    source = folder / "tests/kernels/mac.cpp"
    flags = (*PLAIN, f"-DLDA_RANKS={ranks}", f"-DLDA_DELAY={delay}", f"-DFOLDER={folder.name}")
    return ctypes.CDLL(str(compile_cpp(source, flags)))


@pytest.mark.parametrize("ranks", [1, 4])
def test_no_read_comes_sooner_than_guard_after_its_write(ranks, tmp_path):
    """Writes GUARD iterations late change nothing; one more iteration does."""
    rng = np.random.default_rng(ranks)
    programs = [random_program(rng, ranks) for _ in range(25)]
    programs += [
        single(pointwise(ranks, 4, per_round, tiles, 2, ring))
        for per_round in (1, 2) for tiles in (1, 2) for ring in (RING_NONE, RING_V)
    ]  # fmt: skip
    late = delayed_library(tmp_path / "late", GUARD, ranks)
    for program in programs:
        assert_right(program, program.run(late))
    later = delayed_library(tmp_path / "later", GUARD + 1, ranks)
    wrong = 0
    for program in programs:
        want, valid = program.expected()
        wrong += not np.array_equal(program.run(later).acc[valid], want[valid])
    assert wrong > 0
