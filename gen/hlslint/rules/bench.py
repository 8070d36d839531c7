"""Test benches, which co-simulation runs twice."""

from __future__ import annotations

from gen.hlslint.calls import calls_in
from gen.hlslint.finding import Found
from gen.hlslint.rules import bench_rules
from gen.hlslint.syntax import find, row, text
from gen.hlslint.unit import Unit

_CHANGING = frozenset(
    {"rand", "random", "drand48", "srand", "time", "clock", "gettimeofday", "clock_gettime",
     "getenv", "getpid", "random_device", "now"}
)  # fmt: skip


@bench_rules("bench-deterministic")
def deterministic(unit: Unit) -> Found:
    """Co-simulation runs the bench twice: one that draws anew reports mismatches of its own."""
    for call in calls_in(unit.root):
        if call.name.split("::")[-1] in _CHANGING:
            yield row(call.node), f"{call.name}() differs from run to run"
    for node in find(unit.root, "type_identifier"):
        if text(node) == "random_device":
            yield row(node), "std::random_device differs from run to run"


@bench_rules("bench-status")
def status(unit: Unit) -> Found:
    """A bench that always returns 0 passes whatever the kernel does."""
    for function in unit.functions:
        if function.name != "main":
            continue
        returns = [text(node) for node in find(function.body, "return_statement")]
        if all(each.replace(" ", "") == "return0;" for each in returns):
            yield row(function.node), "main returns nothing but 0"
