"""A plan as a dictionary (``--json``) and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from gen.layers import LayerGraph
from gen.macs import layer_macs, macs_per_step
from gen.plan.limits import KINDS, Limits
from gen.plan.resources import link_wires, rank_costs
from gen.plan.search import Choice
from gen.program.cost import start_cycles, update_cycles
from gen.program.program import moved_rows
from gen.program.sampler import latent_words, result_words

TOP = 10
STEPS_PER_START = 10  # with a sampler; what the host takes by default


@dataclass(frozen=True)
class Plan:
    """A chosen engine with what it was chosen for. ``cards`` work on a step together. ``others``:
    the best engines of other kinds.
    """

    model: str
    graph: LayerGraph
    choice: Choice
    limits: Limits
    clock_mhz: float
    cards: int
    seconds: float
    others: tuple[Choice, ...] = ()

    @property
    def mac_units(self) -> int:
        """Multiply-accumulates per cycle of one card."""
        engine = self.choice.engine
        return engine.ranks * engine.pixels * engine.inputs * engine.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one card's step."""
        return macs_per_step(self.graph)

    @property
    def efficiency(self) -> float:
        """MACs / (MAC units x cycles)."""
        return self.macs / (self.mac_units * self.choice.cost.cycles)

    def milliseconds(self, cycles: float) -> float:
        """Time of ``cycles`` at the plan's clock."""
        return cycles / self.clock_mhz / 1000.0

    def transfer_ms(self, steps: int = 1) -> float:
        """PCIe transfers and the start of the kernels, per step of a start of ``steps`` steps.

        Latent, result and the dynamic buffers of all ranks, one transfer each (fact sheet A.7:
        bandwidth plus a fixed time per transfer), and one start.
        """
        program, limits = self.choice.program, self.limits
        ranks = self.choice.engine.ranks
        changing = sum(each.words for each in program.step_biases)
        changing += sum(each.words for each in program.step_affines)
        latent, result = latent_words(program, steps), result_words(program, steps)
        to_card = (latent + steps * changing) * 64 * ranks
        to_host = result * 64 * ranks
        moved = to_card / limits.host_to_card_gb_per_s + to_host / limits.card_to_host_gb_per_s
        transfers = 3 * ranks
        fixed = (transfers * limits.transfer_us + limits.start_us) / 1000.0
        return (moved / 1e6 + fixed) / steps

    def several_steps(self) -> dict[str, float]:
        """A step of a start of several, where the engine has a sampler."""
        program, steps = self.choice.program, STEPS_PER_START
        if not program.has_sampler:
            return {}
        cycles = start_cycles(program, self.choice.cost.cycles, steps) / steps
        return {
            "steps_per_start": steps,
            "update_cycles": update_cycles(program),
            "ms_per_step_with_transfers": self.milliseconds(cycles) + self.transfer_ms(steps),
        }


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan in plain types; cycles per step of one card, milliseconds at the plan's clock."""
    cost, engine, limits = plan.choice.cost, plan.choice.engine, plan.limits
    useful = plan.macs / plan.mac_units
    # the array waits during moves
    idle = cost.cycles - cost.multiply
    moves = min(cost.moves, idle)
    waiting = min(cost.weights, idle - moves)
    split = {
        "macs": round(useful),
        "padding": round(cost.multiply - useful),
        "weight_stream": waiting,
        "moves": moves,
        "fills_and_drains": idle - moves - waiting,
    }
    parts = {name: {"cycles": n, "ms": plan.milliseconds(n)} for name, n in split.items()}
    parts["transfers"] = {"cycles": 0, "ms": plan.transfer_ms()}
    used = plan.choice.used.as_dict()
    return {
        "model": plan.model,
        "board": limits.board,
        "batch": plan.graph.batch,
        "cards": plan.cards,
        "bits": "w4a8" if engine.stored_bits == 4 else "w8a8",
        "macs_per_step": plan.macs,
        "mac_units": plan.mac_units,
        "cycles_per_step": cost.cycles,
        "efficiency": plan.efficiency,
        "clock_mhz": plan.clock_mhz,
        "ms_per_step": plan.milliseconds(cost.cycles),
        "ms_per_step_with_transfers": plan.milliseconds(cost.cycles) + plan.transfer_ms(),
        "several_steps": plan.several_steps(),
        "fits": True,
        "source": "modelled",
        "resources": {
            f"SLR{slr}": {
                kind: {"used": used[kind], "limit": limits.usable(kind),
                       "available": limits.resources[kind]}
                for kind in KINDS
            }
            for slr in range(engine.ranks)
        },
        "kinds": [kind(each) for each in (plan.choice, *plan.others)],
        "crossing_wires": {"used": link_wires(engine), "limit": limits.link_wires},
        "ddr_bytes_per_bank": (plan.choice.program.static_words
                               + plan.choice.program.dynamic_words) * 64
                              + plan.choice.program.spill_rows * 128,
        "memories": plan.choice.engine.memories,
        "store_rows_used": plan.choice.program.store_peak,
        "spilled": spilled(plan),
        "resource_sources": {
            each.part: {**each.resources.as_dict(), "source": each.source}
            for each in rank_costs(engine)
        },
        "breakdown": parts,
        "bound_by": bound_by(parts),
        "levers": levers(plan),
        "layers": top_layers(plan),
        "engine": asdict(engine),
        "plan_seconds": plan.seconds,
    }  # fmt: skip


def kind(choice: Choice) -> dict[str, Any]:
    """What distinguishes an engine from one of another kind, and what each costs per SLR."""
    engine = choice.engine
    return {
        "array_bits": engine.weight_bits,
        "stored_bits": engine.stored_bits,
        "cycles_per_step": choice.cost.cycles,
        **choice.used.as_dict(),
    }


def spilled(plan: Plan) -> dict[str, Any]:
    """Tensors that lie in DDR for a while: how many, rows of 128 bytes of each rank that they take
    there, rows that are moved in a step, and cycles of these moves.
    """
    program = plan.choice.program
    return {
        "tensors": len(program.spilled),
        "ddr_rows": program.spill_rows,
        "rows_moved": moved_rows(program),
        "cycles": plan.choice.cost.moves,
    }


def bound_by(parts: dict[str, dict[str, float]]) -> str:
    """The largest part of a step's time."""
    return max(parts, key=lambda name: parts[name]["ms"])


def levers(plan: Plan) -> dict[str, float]:
    """Milliseconds per step with one thing changed and all else equal.

    A clock scales the cycles; 4-bit weights that are widened for the array halve the weight stream;
    a second card halves a guided pair.
    """
    cost = plan.choice.cost
    now = plan.milliseconds(cost.cycles)
    found = {
        f"clock {mhz} MHz": now * plan.clock_mhz / mhz
        for mhz in plan.limits.clocks_mhz
        if mhz > plan.clock_mhz
    }
    if plan.choice.engine.stored_bits == 8:
        found["4-bit weights"] = plan.milliseconds(cost.cycles - cost.weights / 2)
    batch = plan.graph.batch
    if batch > 1:
        found[f"{plan.cards + 1} cards"] = now * ceil(batch / (plan.cards + 1)) / batch
    return found


def top_layers(plan: Plan, count: int = TOP) -> list[dict[str, Any]]:
    """The layers that cost most, strips of a layer together, and products that share executions."""
    names = {layer.name: layer.name for layer in plan.graph.layers}
    for entry in plan.choice.program.entries:
        if entry.parts:
            values, keys = (part.layer for part in entry.parts)
            names[values] = names[keys] = f"{keys} with {values.rpartition('.')[2]}"
    cycles: dict[str, int] = {}
    for each in plan.choice.cost.layers:
        cycles[names[each.layer]] = cycles.get(names[each.layer], 0) + each.cycles
    macs = dict.fromkeys(cycles, 0)
    for layer in plan.graph.layers:
        macs[names[layer.name]] += layer_macs(plan.graph, layer)
    order = sorted(cycles, key=lambda name: -cycles[name])[:count]
    return [
        {
            "layer": name,
            "cycles": cycles[name],
            "share": cycles[name] / plan.choice.cost.cycles,
            "macs": macs[name],
            "efficiency": macs[name] / (plan.mac_units * max(1, cycles[name])),
        }
        for name in order
    ]


def _several_line(data: dict[str, float]) -> list[str]:
    if not data:
        return []
    return [
        f"sampler    {data['steps_per_start']} steps per start, {data['update_cycles']:,} cycles "
        f"between two; with PCIe and start {data['ms_per_step_with_transfers']:.3f} ms per step"
    ]


def _kind_lines(plan: Plan) -> list[str]:
    """Which kind of engine takes weights of 4 bits, and what the other one would cost."""
    if plan.choice.engine.stored_bits == 8:
        return []
    names = {
        8: "an array of 8-bit weights (4-bit ones are widened, all pass once)",
        4: "an array of 4-bit weights (those of 8 bits pass twice)",
    }
    lead = "weights    stored in 4 bits, for "
    lines = []
    for each in (plan.choice, *plan.others):
        used = each.used
        lines.append(
            f"{lead}{names[each.engine.weight_bits]}: {each.cost.cycles:,} cycles, {used.lut:,} "
            f"LUT, {used.dsp:,} DSP, {used.uram} UltraRAM per SLR"
        )
        lead = "           instead of "
    return lines


def as_text(plan: Plan) -> str:
    """The plan for people."""
    data = as_dict(plan)
    engine = plan.choice.engine
    lines = [
        f"{plan.model}, batch {plan.graph.batch}, {data['bits'].upper()} on {plan.limits.board} "
        f"at {plan.clock_mhz:g} MHz"
        + (f", {plan.cards} cards" if plan.cards > 1 else "")
        + "  (modelled)",
        "",
        f"engine     {engine.ranks} ranks of {engine.pixels} pixels x {engine.inputs} inputs x "
        f"{engine.outputs} outputs = {plan.mac_units:,} MACs per cycle "
        f"({engine.fabric_outputs} of {engine.outputs} outputs in fabric)",
        f"buffers    window {engine.window_rows} rows ({engine.memories['window']}), weights "
        f"2 x {engine.weight_rows} ({engine.memories['weights']}), store {engine.store_rows} rows "
        f"({engine.memories['store']}, {plan.choice.program.store_peak} used), kept weights "
        f"{engine.cache_rows} of {plan.choice.program.static_rows} rows",
        f"step       {data['cycles_per_step']:,} cycles = {data['ms_per_step']:.3f} ms, "
        f"efficiency {data['efficiency']:.1%}; with PCIe and start "
        f"{data['ms_per_step_with_transfers']:.3f} ms",
        *_kind_lines(plan),
        *_several_line(data["several_steps"]),
    ]
    kept = data["spilled"]
    if kept["tensors"]:
        lines.append(
            f"spilled    {kept['tensors']} tensors lie in DDR for a while ({kept['ddr_rows']} rows "
            f"of each rank); {kept['rows_moved']} rows are moved in a step, {kept['cycles']:,} "
            "cycles"
        )
    lines += [
        "",
        "per SLR    " + "".join(f"{kind:>12}" for kind in KINDS) + f"{'crossing':>12}",
    ]
    used = plan.choice.used.as_dict()
    wires = data["crossing_wires"]
    lines += [
        "  used     " + "".join(f"{used[kind]:>12,}" for kind in KINDS) + f"{wires['used']:>12,}",
        "  limit    "
        + "".join(f"{plan.limits.usable(kind):>12,}" for kind in KINDS)
        + f"{wires['limit']:>12,}",
        "",
        f"{'time':<20}{'cycles':>12}{'ms':>12}",
    ]
    for name, part in data["breakdown"].items():
        cycles = f"{part['cycles']:,}" if part["cycles"] else ""
        lines.append(f"  {name:<18}{cycles:>12}{part['ms']:>12.3f}")
    lines += ["", f"{'costliest layers':<64}{'cycles':>12}{'share':>8}{'efficiency':>12}"]
    for layer in data["layers"]:
        lines.append(
            f"  {layer['layer'][-60:]:<62}{layer['cycles']:>12,}{layer['share']:>8.1%}"
            f"{layer['efficiency']:>12.1%}"
        )
    lines += [
        "",
        f"bound by {data['bound_by'].replace('_', ' ')}; one change at a time would give:",
    ]
    lines += [f"  {name:<20}{ms:>10.3f} ms" for name, ms in data["levers"].items()]
    return "\n".join(lines)
