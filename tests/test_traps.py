"""What compiles under g++ and fails, or misbehaves, in Vitis or XRT: every such trap is seen by a
rule of the checker or by a test, or it is said why no program can see it here.

Every rule has a planted violation of its own (test_hlslint.py, test_hlslint_config.py).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import gen.hlslint.check  # noqa: F401  (its import makes the rules known)
from gen.hlslint.rules import bench_rules, config_rules, unit_rules

TESTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Trap:
    """What goes wrong; the rules and tests (FILE::NAME) that see it; what they cannot see."""

    what: str
    rules: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    unseen: str = ""


TRAPS = (
    Trap("streams are unbounded in C simulation, and two deep in hardware",
         ("stream-depth", "link-depth"),
         ("test_layers_csim::test_fifo_one_too_small_is_a_named_deadlock",
          "test_vitis_emit::test_depths_are_those_of_the_kernels")),
    Trap("a stream with two readers or writers, or fed back",
         ("dataflow-canonical", "stream-endpoints", "stream-feedback", "region-memory",
          "link-stream", "link-self")),
    Trap("elements left at the end of C simulation are a warning only", (),
         ("test_vitis_make::test_leftover_data_is_a_failure",
          "test_vitis_bench::test_bench_passes_and_notices_faults",
          "test_sim::test_leftover_tokens_name_the_fifo")),
    Trap("an initialised array in UltraRAM", ("uram-initialised",)),
    Trap("huge initialiser lists", ("initialiser-size",)),
    Trap("ap_uint over AP_INT_MAX_W", ("integer-width",)),
    Trap("ap_axiu on internal streams", ("side-channels",)),
    Trap("ports called in or out", ("port-name",)),
    Trap("keep and last of an AXI word unset", ("side-channels-set",)),
    Trap("a padded struct on a stream, a struct on a memory port",
         ("stream-element", "port-element"),
         ("test_vitis_emit::test_widths_are_those_of_the_compiler",)),
    Trap("a free-running kernel with a scalar or a memory", ("protocol",),
         ("test_contract::test_kernels_that_cannot_be_opened",)),
    Trap("state of a free-running kernel in statics", ("static-state", "stream-static"),
         ("test_layers_csim::test_steps_do_not_depend_on_the_step_before",)),
    Trap("the last results stay in a stalled pipeline", ("hls-style",),
         ("test_sim::test_results_stuck_in_a_stalled_pipeline",
          "test_vitis_emit::test_pipeline_style_is_said_everywhere")),
    Trap("conditions and returns in a dataflow region", ("dataflow-canonical",)),
    Trap("a local array with values is filled at every call", ("array-refilled",)),
    Trap("a test bench that is not deterministic", ("bench-deterministic",),
         ("test_vitis_make::test_bench_that_cannot_pass",)),
    Trap("co-simulation of a free-running kernel with m_axi, or II above 1 without stream ports",
         ("protocol", "port-interface")),
    Trap("depth of an m_axi port smaller than its buffer", ("m-axi",),
         ("test_cosim::test_faults_do_not_pass",
          "test_vitis_bench::test_vectors_are_complete_and_agree")),
    Trap("misaligned memory, pointer arithmetic", ("pointer", "burst-bundle"),
         ("test_swcard::test_sub_buffer_shares_memory_and_must_be_aligned",
          "test_card::test_buffers_are_whole_words_and_readable_at_once")),
    Trap("a dependence that is wrongly denied", ("dependence-reason",),
         unseen="that the reason is true: co-simulation shows it"),
    Trap("wrong trip counts", ("loop-tripcount", "loop-bounded")),
    Trap("recursion, containers, function pointers, virtual functions",
         ("recursion", "dynamic-memory", "header", "construct")),
    Trap("the sign of char", ("plain-char",)),
    Trap("variables and memories that are read before they are written", ("uninitialised",),
         ("test_poison::test_nothing_depends_on_unwritten_memory",)),
    Trap("packed products that overflow, or need more DSPs", ("multiply-binding",),
         ("test_packed::test_packed_products_equal_plain_ones",
          "test_packed::test_planted_fault_is_caught",
          "test_reports::test_table_of_modelled_and_measured"),
         unseen="the number of DSPs: the report of synthesis says it, beside the model's"),
    Trap("an initiation interval that is missed", ("loop-exits",),
         ("test_reports::test_csynth_loops_nest_and_missed_ii_is_found",
          "test_vitis_make::test_synthesis_with_both_front_ends")),
    Trap("a link that misses timing lowers the clock", ("link-timing",),
         ("test_vitis_make::test_scaled_clock_is_read_back",
          "test_vitis_make::test_scaled_clock_without_xclbinutil_comes_from_the_log")),
    Trap("an object compiled for another target or clock", ("link-clock", "config-part"),
         ("test_vitis_emit::test_link_faster_than_the_kernels_is_refused",
          "test_vitis_make::test_emulation_and_package")),
    Trap("a buffer in the wrong bank is cloned", ("link-memory",),
         ("test_card::test_buffer_of_another_bank_is_refused",
          "test_contract::test_wrong_bank_is_cloned_with_a_warning")),
    Trap("reading memory that was never written", (),
         ("test_swcard::test_kernel_reading_unwritten_memory_is_an_error",
          "test_card::test_buffers_are_whole_words_and_readable_at_once")),
    Trap("kernel(...) swallows wrong arguments", ("port-order",),
         ("test_card::test_real_card_is_driven_by_pyxrt_and_its_portable_subset_alone",
          "test_card::test_arguments_that_are_no_buffers", "test_contract::test_set_arg")),
    Trap("bo.write ignores strides", (), ("test_contract::test_write_ignores_strides",)),
    Trap("wait holds the interpreter", (), ("test_workers::test_every_picture_once_on_some_card",)),
    Trap("a run that is started twice", (), ("test_swcard::test_start_twice",
                                             "test_contract::test_start_before_the_wait")),
    Trap("no shell after a reboot", (), ("test_vitis_make::test_card_without_shell_is_named",
                                         "test_faults::test_cards_that_cannot_be_used")),
    Trap("software emulation", ("config-target",),
         ("test_vitis_make::test_software_emulation_is_refused",)),
    Trap("stale streams after an aborted run", (),
         ("test_card::test_every_load_programs_unless_the_user_has_an_ini",
          "test_swcard::test_failed_card_is_fresh_after_closing_and_loading")),
    Trap("many kernel starts a step", (), ("test_card::test_steps_repeat_with_the_same_runs",)),
    Trap("kernels without an SLR", ("link-slr", "link-crossing")),
    Trap("too many AXI masters", ("m-axi", "link-memory"),
         ("test_hlslint_config::test_too_many_masters_on_one_memory",)),
)  # fmt: skip


@cache
def names_in(module: str) -> frozenset[str]:
    tree = ast.parse((TESTS / f"{module}.py").read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.what)
def test_trap_is_seen(trap):
    known = {rule.name for rule in (*unit_rules.all, *bench_rules.all, *config_rules.all)}
    assert trap.rules or trap.tests
    assert set(trap.rules) <= known
    for test in trap.tests:
        module, _, name = test.partition("::")
        assert name in names_in(module), test


def test_every_trap_is_listed():
    """Their number is that of the table they come from."""
    assert len(TRAPS) == 40 and len({trap.what for trap in TRAPS}) == 40
