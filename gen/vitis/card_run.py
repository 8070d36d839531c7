"""Compiling kernels to ``.xo`` and linking them to an xclbin with ``v++``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError
from gen.reports.link import LinkLog, parse_info, parse_link_log
from gen.stages import ROOT, file_hash, write_json
from gen.vitis.engine import engine_of, kernel_of
from gen.vitis.tools import SOURCE_VITIS, need, need_platform, probe, run_logged
from gen.vitis.topology import TARGETS


@dataclass(frozen=True)
class CardBuild:
    """A build for one target and platform; ``clock_mhz`` is asked for at the link."""

    build: Path
    target: str
    platform: str
    clock_mhz: int

    @property
    def folder(self) -> Path:
        """Folder of objects and xclbins of the target and platform."""
        return self.build / "vitis" / f"{self.target}.{Path(self.platform).stem}"

    @property
    def xclbin(self) -> Path:
        """The linked file."""
        return self.folder / f"engine.{self.clock_mhz}.xclbin"

    def xo(self, kernel: str) -> Path:
        """The compiled kernel."""
        return self.folder / f"{kernel}.xo"


def _check(card: CardBuild) -> str:
    if card.target not in TARGETS:
        raise UserError(f"TARGET={card.target} is not possible; use {' or '.join(TARGETS)}")
    tool = need("v++", f"make xclbin TARGET={card.target}", SOURCE_VITIS)
    need_platform(card.platform)
    return tool


def _errors(text: str) -> str:
    errors = parse_link_log(text).errors
    return f" ({errors[0]})" if errors else ""


def compile_kernel(card: CardBuild, kernel: str) -> Path:
    """Compile one kernel; the ``.xo`` appears only when the tool has succeeded.

    Raises:
        UserError: tool, platform or source are missing, or the compilation failed.
    """
    tool = _check(card)
    kernel_of(card.build, kernel)
    source = card.build / "src" / f"{kernel}.cpp"
    config = card.build / "vitis" / "compile" / f"{kernel}.cfg"
    for path, goal in ((source, "make build"), (config, "make vitis-files")):
        if not path.is_file():
            raise UserError(f"{path} does not exist; run {goal} first")
    work = card.folder / "work" / kernel
    shutil.rmtree(work, ignore_errors=True)
    made, log = work / f"{kernel}.xo", work / "v++.log"
    command = [
        *(tool, "-c", "-t", card.target, "-k", kernel, "--platform", card.platform),
        *("--config", str(config), "--temp_dir", str(work / "temp")),
        *("--log_dir", str(work / "logs"), "--report_dir", str(work / "reports")),
        *("-I", str(card.build / "src"), "-I", str(ROOT / "hls" / "kernels")),
        *("-o", str(made), str(source)),
    ]
    result = run_logged(command, log, work)
    if result.status != 0 or not made.is_file():
        raise UserError(f"v++ could not compile {kernel}{_errors(result.text)}; the log is {log}")
    made.replace(card.xo(kernel))
    return card.xo(kernel)


def _link(card: CardBuild, package: bool) -> tuple[Path | None, LinkLog, Path]:
    """Link in a scratch folder: the xclbin or None, what the logs say, and the main log."""
    tool = _check(card)
    config = card.build / "vitis" / "link" / f"{card.target}.{card.clock_mhz}.cfg"
    if not config.is_file():
        raise UserError(
            f"{config} does not exist; run make vitis-files CLOCK={card.clock_mhz} first"
        )
    objects = [card.xo(kernel.name) for kernel in engine_of(card.build).kernels]
    for path in objects:
        if not path.is_file():
            raise UserError(f"{path} does not exist; run make xo TARGET={card.target} first")
    work = card.folder / f"link.{card.clock_mhz}"
    shutil.rmtree(work, ignore_errors=True)
    linked, log = work / "engine.link.xclbin", work / "v++.log"
    common = ["-t", card.target, "--platform", card.platform]
    folders = [
        *("--temp_dir", str(work / "temp"), "--log_dir", str(work / "logs")),
        *("--report_dir", str(work / "reports")),
    ]
    optimise = ["--optimize", "2"] if card.target == "hw" else ["-g"]
    command = [tool, "-l", *common, "--config", str(config), *folders, "--save-temps", *optimise]
    command += ["-o", str(linked), *map(str, objects)]
    result = run_logged(command, log, work)
    made = linked
    if result.status == 0 and linked.is_file() and package:
        made = work / "engine.xclbin"
        command = [tool, "-p", str(linked), *common, *folders]
        command += ["--package.out_dir", str(work / "package"), "-o", str(made)]
        result = run_logged(command, work / "package.log", work)
    texts = [path.read_text(errors="replace") for path in _logs(work)]
    facts = parse_link_log("\n".join(texts))
    return (made if result.status == 0 and made.is_file() else None), facts, log


def _logs(work: Path) -> list[Path]:
    """Every log that may tell of timing; the tool's own log last."""
    inner = sorted(path for path in work.rglob("runme.log") if "vpl" in path.parts)
    outer = sorted(path for path in (work / "logs").rglob("*.log"))
    return [*inner, *outer, *(path for path in [work / "v++.log"] if path.is_file())]


def _describe(card: CardBuild, facts: LinkLog) -> tuple[str | None, float | None]:
    """UUID and achieved kernel clock (MHz) of the linked file, as far as they can be found."""
    tool = shutil.which("xclbinutil")
    if tool is not None:
        shown = probe([tool, "--info", "-i", str(card.xclbin)])
        if shown.status == 0:
            info = parse_info(shown.text)
            card.xclbin.with_suffix(".info").write_text(shown.text)
            return info.uuid, info.kernel_mhz
    return None, facts.scaled_mhz


def link_card(
    card: CardBuild, fallback_mhz: Sequence[int] = (), package: bool = False
) -> list[str]:
    """Link and describe the xclbin; lines to print.

    Where timing fails outright, the clocks of ``fallback_mhz`` are tried in their order; any
    other failure ends the attempt. Beside the xclbin lies ``engine.CLOCK.json``: its hash, UUID,
    the hash of the program it was built from, and the clocks asked for and achieved.

    Raises:
        UserError: a tool or file is missing, or the link failed.
    """
    made, facts, log = _link(card, package)
    if made is None:
        slower = [mhz for mhz in fallback_mhz if mhz < card.clock_mhz]
        if facts.timing_failed and slower:
            next_card = CardBuild(card.build, card.target, card.platform, slower[0])
            lines = link_card(next_card, slower[1:], package)
            return [f"timing failed at {card.clock_mhz} MHz, linked for {slower[0]} MHz", *lines]
        why = f" ({facts.errors[0]})" if facts.errors else ""
        if facts.timing_failed:
            raise UserError(
                f"the link failed timing at {card.clock_mhz} MHz{why}; set a lower CLOCK=, or "
                f"FALLBACK=1 to try the board's other clocks in turn (log: {log})"
            )
        raise UserError(f"v++ could not link{why}; the log is {log}")
    made.replace(card.xclbin)
    uuid, achieved = _describe(card, facts)
    program = card.build / "program.json"
    description = {
        "xclbin": card.xclbin.name,
        "sha256": file_hash(card.xclbin),
        "uuid": uuid,
        "program": hashlib.sha256(program.read_bytes()).hexdigest(),
        "target": card.target,
        "platform": card.platform,
        "clock_asked_mhz": card.clock_mhz,
        "clock_mhz": achieved,
    }
    write_json(card.xclbin.with_suffix(".json"), description)
    lines = [f"linked {card.xclbin}"]
    if achieved is None:
        lines.append("the achieved clock is not known: xclbinutil was not found")
    elif achieved < card.clock_mhz:
        lines.append(f"timing was met at {achieved:g} MHz only, of {card.clock_mhz} MHz asked for")
    if card.target == "hw_emu":
        tool = need("emconfigutil", "hw_emu", SOURCE_VITIS)
        config = [tool, "--platform", card.platform, "--od", str(card.folder), "--nd", "1"]
        if probe(config).status != 0:
            raise UserError(f"emconfigutil failed; run it by hand: {' '.join(config)}")
        lines.append(f"run it with XCL_EMULATION_MODE=hw_emu EMCONFIG_PATH={card.folder}")
    return lines
