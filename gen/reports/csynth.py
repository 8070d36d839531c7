"""``csynth.xml``: latency, area and initiation intervals as Vitis HLS estimates them.

The overall file and those of single functions have one layout (root ``profile``); the overall one
repeats the others' contents under ``ModuleInformation/Module``. Loop tables nest as loops do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from gen.errors import UserError
from gen.reports.text import integer, number, read_xml


@dataclass(frozen=True)
class Resources:
    """Area; ``bram18`` counts 18 Kb halves. None where the tool does not say."""

    bram18: int | None
    dsp: int | None
    ff: int | None
    lut: int | None
    uram: int | None


@dataclass(frozen=True)
class Loop:
    """A loop of a function; cycles. ``ii`` is None where the loop is not pipelined."""

    name: str
    depth: int
    trip_count: int | None
    latency: int | None
    iteration_latency: int | None
    ii: int | None
    target_ii: int | None
    pipeline_depth: int | None

    @property
    def missed(self) -> bool:
        """Whether the tool settled for a longer initiation interval than was asked for.

        Old versions do not write the wish down; one cycle is what every kernel asks for.
        """
        return self.ii is not None and self.ii > (self.target_ii or 1)


@dataclass(frozen=True)
class Function:
    """Estimates of one function; latency and interval in cycles, periods in ns."""

    name: str
    estimated_period_ns: float | None
    latency_best: int | None
    latency_average: int | None
    latency_worst: int | None
    interval_min: int | None
    interval_max: int | None
    resources: Resources
    loops: tuple[Loop, ...]


@dataclass(frozen=True)
class CsynthReport:
    """The top function, functions below it, what the part has, and the clock asked for (ns)."""

    top: Function
    modules: tuple[Function, ...]
    available: Resources
    target_period_ns: float | None
    part: str | None

    def functions(self) -> Iterator[Function]:
        """The top, then those below it."""
        yield self.top
        yield from self.modules

    def missed_loops(self) -> list[tuple[str, Loop]]:
        """(function, loop) of every loop that missed its initiation interval."""
        found = [(f.name, loop) for f in self.functions() for loop in f.loops if loop.missed]
        return list(dict.fromkeys(found))

    @property
    def timing_met(self) -> bool | None:
        """Whether the estimated period is within the one asked for; None if unknown."""
        estimate, target = self.top.estimated_period_ns, self.target_period_ns
        return None if estimate is None or target is None else estimate <= target


def _resources(node: Element | None) -> Resources:
    def count(*tags: str) -> int | None:
        if node is None:
            return None
        return next(
            (integer(node.findtext(tag)) for tag in tags if node.find(tag) is not None), None
        )

    return Resources(
        bram18=count("BRAM_18K"),
        dsp=count("DSP", "DSP48E"),
        ff=count("FF"),
        lut=count("LUT"),
        uram=count("URAM"),
    )


def _range_end(node: Element, tag: str) -> int | None:
    """A figure that is text, or a ``range`` of min and max."""
    upper = node.findtext(f"{tag}/range/max")
    return integer(upper if upper is not None else node.findtext(tag))


_LOOP_FIELDS = frozenset({"Name", "TripCount", "Latency", "IterationLatency", "PipelineII"})


def _loops(node: Element | None, depth: int = 0) -> Iterator[Loop]:
    if node is None:
        return
    for child in node:
        if not any(field.tag in _LOOP_FIELDS for field in child):
            continue
        yield Loop(
            name=child.findtext("Name") or child.tag,
            depth=depth,
            trip_count=_range_end(child, "TripCount"),
            latency=_range_end(child, "Latency"),
            iteration_latency=_range_end(child, "IterationLatency"),
            ii=integer(child.findtext("PipelineII")),
            target_ii=integer(child.findtext("PipelineTargetII") or child.findtext("TargetII")),
            pipeline_depth=integer(child.findtext("PipelineDepth")),
        )
        yield from _loops(child, depth + 1)


def _function(node: Element, name: str) -> Function:
    estimates = node.find("PerformanceEstimates")
    if estimates is None:
        estimates = Element("PerformanceEstimates")
    overall = estimates.find("SummaryOfOverallLatency")
    if overall is None:
        overall = Element("SummaryOfOverallLatency")
    return Function(
        name=name,
        estimated_period_ns=number(
            estimates.findtext("SummaryOfTimingAnalysis/EstimatedClockPeriod")
        ),
        latency_best=integer(overall.findtext("Best-caseLatency")),
        latency_average=integer(overall.findtext("Average-caseLatency")),
        latency_worst=integer(overall.findtext("Worst-caseLatency")),
        interval_min=integer(overall.findtext("Interval-min")),
        interval_max=integer(overall.findtext("Interval-max")),
        resources=_resources(node.find("AreaEstimates/Resources")),
        loops=tuple(_loops(estimates.find("SummaryOfLoopLatency"))),
    )


def read_csynth(path: Path) -> CsynthReport:
    """Read an overall or a per-function report.

    Raises:
        UserError: the file is missing, damaged or not such a report.
    """
    root = read_xml(path, "the HLS synthesis report")
    if root.tag != "profile" or root.find("PerformanceEstimates") is None:
        raise UserError(f"{path} is not an HLS synthesis report; run make csynth again")
    user = root.find("UserAssignments")
    top = root.findtext("UserAssignments/TopModelName")
    return CsynthReport(
        top=_function(root, top or path.stem.removesuffix("_csynth")),
        modules=tuple(
            _function(module, module.findtext("Name") or "?")
            for module in root.iterfind("ModuleInformation/Module")
            if module.findtext("Name") != top
        ),
        available=_resources(root.find("AreaEstimates/AvailableResources")),
        target_period_ns=None if user is None else number(user.findtext("TargetClockPeriod")),
        part=None if user is None else user.findtext("Part"),
    )
