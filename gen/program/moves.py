"""Where spilled tensors lie in the store and in DDR, and the moves between them (docs/engine.md,
"Moves").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gen.program.geometry import Strip
from gen.program.layout import GROUP, Stored
from gen.program.memory import Allocation, Interval, allocate
from gen.program.planned import Planned
from gen.program.schedule import Node, Schedule
from gen.program.spill import Choice, Residence, rows_of
from gen.program.structs import Addr, Move


@dataclass(frozen=True)
class Moves:
    """Moves of an entry: before the first execution of its segment, before and after every one."""

    once: tuple[Move, ...] = ()
    before: tuple[Move, ...] = ()
    after: tuple[Move, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.once or self.before or self.after)


NO_MOVES = Moves()


@dataclass(frozen=True)
class Homes:
    """First rows, of a rank's store: of the tensors of every layer by role (``rows``) and of the
    staging regions (``staging``); of spilled tensors in DDR (``ddr``, ``ddr_rows`` in all); and the
    moves of every entry.
    """

    rows: list[dict[str, int]]
    staging: list[dict[str, int]]
    ddr: dict[str, int] = field(default_factory=dict)
    ddr_rows: int = 0
    moves: list[Moves] = field(default_factory=list)


def staged_rows(tensor: Stored, role: str, strip: Strip) -> tuple[int, int]:
    """(first, number) of the rows of a local group, within its item, that a strip reads or
    writes.
    """
    if role.startswith("source"):
        return rows_of(tensor, strip.fill_slot, strip.fill_slot + strip.fill * GROUP)
    return rows_of(tensor, strip.out_slot, strip.out_slot + strip.slots)


class Placement:
    """A choice for a schedule. Times are those of the schedule's work."""

    def __init__(
        self,
        choice: Choice,
        uses: Mapping[str, Sequence[int]],
        sizes: Mapping[str, int],
        order: Sequence[Node],
        layers: Sequence[Planned],
        plan: Schedule,
    ) -> None:
        self.choice, self.uses, self.sizes = choice, uses, sizes
        self.order, self.layers, self.plan = order, layers, plan
        self._times = [(-1, -1), *self._node_times(), (plan.end(), plan.end())]
        self.spilled = choice.spilled(uses)

    def _node_times(self) -> list[tuple[int, int]]:
        found = []
        for node in self.order:
            times = [self.plan.times(layer) for layer in node]
            found.append((min(t[0] for t in times), max(t[1] for t in times)))
        return found

    def intervals(self) -> list[Interval]:
        """Residences, named TENSOR@PLACE, and staging regions, named LAYER:ROLE.

        A sampler writes the latent of the next step where the host has written the first one,
        while it reads the result.
        """
        updated = (self.plan.end(),) if self.layers[0].engine.sampler_pixels else ()
        found = [
            Interval(
                _name(each),
                self.sizes[each.tensor],
                self._times[each.first][0],
                self._times[each.last][1],
                updated if each.first == 0 else (),
            )
            for each in self.choice.residences
        ]
        for layer, roles in self.choice.staged.items():
            made = self.layers[layer]
            for role in roles:
                tensor = dict(made.roles)[role]
                rows = max(staged_rows(tensor, role, strip)[1] for strip in made.strips)
                name = _staging_name(made, role)
                span = self.plan.times(layer)
                found.append(Interval(name, tensor.local_groups * rows, *span))
        return found

    def homes(self, store: Allocation, tensors: Mapping[str, Stored]) -> Homes:
        """Everything with its address. ``store``: of ``intervals``."""
        lives = [Interval(name, tensors[name].rows, self.uses[name][0], self.uses[name][-1])
                 for name in self.spilled]  # fmt: skip
        ddr = allocate(lives, 1)
        rows: list[dict[str, int]] = [{} for _ in self.layers]
        staging: list[dict[str, int]] = [{} for _ in self.layers]
        for place, node in enumerate(self.order, start=1):
            for layer in node:
                made, staged = self.layers[layer], self.choice.staged.get(layer, ())
                for role, tensor in made.roles:
                    if role in staged:
                        staging[layer][role] = store.address[_staging_name(made, role)]
                    else:
                        rows[layer][role] = store.address[_name(self._home(tensor.name, place))]
        homes = Homes(rows, staging, ddr.address, ddr.peak)
        homes.moves.extend(self._moves(homes, store, tensors))
        return homes

    def row(self, tensor: str, place: int, store: Allocation) -> int:
        """First row of a tensor that is whole at a place."""
        return store.address[_name(self._home(tensor, place))]

    def _home(self, tensor: str, place: int) -> Residence:
        return next(
            each
            for each in self.choice.residences
            if each.tensor == tensor and each.first <= place <= each.last
        )

    def _moves(self, homes: Homes, store: Allocation, tensors: Mapping[str, Stored]) -> list[Moves]:
        puts: dict[int, list[Move]] = {}
        fetches: dict[int, list[Move]] = {}
        for each in self.choice.residences:
            uses, rows = self.uses[each.tensor], tensors[each.tensor].rows
            row = store.address[_name(each)]
            if each.first > uses[0]:
                fetches.setdefault(each.first, []).append(
                    _whole(0, rows, row, homes.ddr[each.tensor])
                )
            elif each.last < uses[-1]:
                puts.setdefault(each.last + 1, []).append(
                    _whole(1, rows, row, homes.ddr[each.tensor])
                )
        once = {
            self._first_entry(place): (*puts.get(place, ()), *fetches.get(place, ()))
            for place in {*puts, *fetches}
        }
        found = []
        for index, work in enumerate(self.plan.work):
            made, strip = self.layers[work.layer], self.layers[work.layer].strips[work.strip]
            before: list[Move] = []
            after: list[Move] = []
            for role, row in homes.staging[work.layer].items():
                tensor = dict(made.roles)[role]
                (after if role == "dest" else before).append(
                    _strip(tensor, role, strip, row, homes.ddr[tensor.name], made.n0)
                )
            found.append(Moves(once.get(index, ()), tuple(before), tuple(after)))
        return found

    def _first_entry(self, place: int) -> int:
        node = self.order[place - 1]
        return min(index for index, work in enumerate(self.plan.work) if work.layer in node)


def _name(residence: Residence) -> str:
    return f"{residence.tensor}@{residence.first}"


def _staging_name(made: Planned, role: str) -> str:
    return f"{made.layer.name}:{role}"


def _whole(put: int, rows: int, row: int, ddr: int) -> Move:
    return Move(put, rows, 1, 0, 0, Addr(row), Addr(ddr))


def _strip(tensor: Stored, role: str, strip: Strip, row: int, ddr: int, items: int) -> Move:
    """What a strip reads or writes of all local groups, of the execution's item."""
    first, rows = staged_rows(tensor, role, strip)
    per_item = tensor.group_rows // tensor.items if items > 1 else 0
    move = Move(
        put=int(role == "dest"),
        rows=rows,
        repeat=tensor.local_groups,
        store_stride=rows,
        ddr_stride=tensor.group_rows,
        store=Addr(row),
        ddr=Addr(ddr + first, per_item),
    )
    if rows == tensor.group_rows:
        return replace(move, rows=rows * move.repeat, repeat=1, store_stride=0, ddr_stride=0)
    return move


def moves_table(moves: Sequence[Moves]) -> tuple[list[Move], list[tuple[int, int, int, int]]]:
    """All moves, and (first, once, before, after) of every entry."""
    table: list[Move] = []
    counts = []
    for each in moves:
        counts.append((len(table), len(each.once), len(each.before), len(each.after)))
        table += [*each.once, *each.before, *each.after]
    return table, counts
