"""Loops that may not end, and their hints."""

from __future__ import annotations

from tree_sitter import Node

from gen.hlslint.calls import calls_in
from gen.hlslint.finding import Found
from gen.hlslint.rules import unit_rules
from gen.hlslint.syntax import LOOPS, find, identifiers, row, text
from gen.hlslint.unit import Unit


def _condition(loop: Node) -> Node | None:
    condition = loop.child_by_field_name("condition")
    if condition is not None and condition.type == "condition_clause":
        return condition.child_by_field_name("value")
    if condition is not None and condition.type == "parenthesized_expression":
        return condition.named_children[0]
    return condition


def _touched(loop: Node) -> set[str]:
    """Root variables that a loop may change: assigned, counted, or handed to a call."""
    touched: set[str] = set()
    for node in find(loop, "assignment_expression"):
        left = node.child_by_field_name("left")
        if left is not None:
            touched |= identifiers(left)
    for node in find(loop, "update_expression"):
        touched |= identifiers(node)
    for call in calls_in(loop):
        touched |= identifiers(call.node)
    for node in find(loop, "binary_expression"):
        if text(node.child_by_field_name("operator")) == ">>":
            touched |= identifiers(node)
    return touched


@unit_rules("loop-bounded")
def bounded(unit: Unit) -> Found:
    """A loop without an end cannot be synthesised into a kernel that finishes.

    A free-running kernel starts over by itself and needs no endless loop either.
    """
    for loop in find(unit.root, *LOOPS):
        if loop.type == "for_range_loop":
            continue
        condition = _condition(loop)
        if condition is None or text(condition) in ("true", "1"):
            yield row(loop), "the loop has no end"
            continue
        if any(call.name in ("empty", "full") for call in calls_in(condition)):
            yield row(loop), "the loop ends when a stream happens to be empty or full"
            continue
        names = identifiers(condition)
        if names and not names & _touched(loop) and not any(calls_in(condition)):
            yield row(loop), f"nothing in the loop changes {', '.join(sorted(names))}"


@unit_rules("loop-tripcount")
def tripcount(unit: Unit) -> Found:
    """A wrong trip count makes the reports wrong, which nothing else shows."""
    for pragma in unit.pragmas:
        if pragma.name != "loop_tripcount":
            continue
        low, high = pragma.value("min"), pragma.value("max")
        if low is None or high is None:
            yield row(pragma.node), "a trip count needs min= and max="
        elif low.isdigit() and high.isdigit() and int(low) > int(high):
            yield row(pragma.node), f"min={low} is above max={high}"


@unit_rules("loop-exits")
def exits(unit: Unit) -> Found:
    """A pipelined loop with several exits or jumps is scheduled worse than it looks."""
    for pragma in unit.pragmas:
        if pragma.name != "pipeline" or pragma.place != "loop":
            continue
        body = pragma.node.parent
        if body is None:
            continue
        for jump in find(body, "break_statement", "return_statement", "goto_statement"):
            inner = next((a for a in _between(jump, body) if a.type in _OWNERS), None)
            if inner is None:
                yield row(jump), "a pipelined loop is left from its middle"


_OWNERS = LOOPS | {"switch_statement", "lambda_expression"}


def _between(node: Node, outer: Node) -> list[Node]:
    found = []
    current = node.parent
    while current is not None and current.id != outer.id:
        found.append(current)
        current = current.parent
    return found
