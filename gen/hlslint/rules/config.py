"""Configuration files of any kind."""

from __future__ import annotations

from pathlib import Path

from gen.hlslint.config import Config
from gen.hlslint.finding import Found
from gen.hlslint.rules import config_rules

SECTIONS = frozenset(
    {"", "connectivity", "clock", "profile", "advanced", "vivado", "hls", "package", "debug",
     "linkhook"}
)  # fmt: skip
MIN_UNCERTAINTY_PERCENT = 5.0


@config_rules("config-line")
def line(config: Config) -> Found:
    """A line that is no setting, or an unknown section, is dropped or ends the run."""
    for number, content in config.broken:
        yield number, f"no setting: {content}"
    for setting in config.settings:
        if setting.section not in SECTIONS:
            yield setting.line, f"unknown section {setting.section}"


@config_rules("config-remark")
def remark(config: Config) -> Found:
    """A remark behind a value becomes part of the value in some tool versions."""
    for setting in config.settings:
        if "#" in setting.value:
            yield setting.line, "a remark stands behind a value"


@config_rules("config-part")
def part(config: Config) -> Found:
    """Kernels compiled for another part link, and emulate or time wrongly."""
    for setting in config.values("part"):
        if setting.value != config.board.part:
            yield setting.line, f"part {setting.value} is not the board's {config.board.part}"
    for setting in config.values("platform"):
        if Path(setting.value).stem not in config.board.platforms:
            yield setting.line, f"platform {setting.value} is not known for {config.board.name}"


@config_rules("config-target")
def target(config: Config) -> Found:
    """Software emulation was dropped by newer tools."""
    for setting in config.settings:
        if setting.value == "sw_emu":
            yield setting.line, "sw_emu is no longer supported; use csim or hw_emu"


@config_rules("config-file")
def file(config: Config) -> Found:
    """Tcl hooks with relative paths do not resolve, as Vivado runs in its own folder."""
    for setting in config.settings:
        value = setting.value.split("=")[-1]
        if value.endswith(".tcl") and not Path(value).is_absolute():
            yield setting.line, f"{value} is a relative path"
        elif value.endswith(".tcl") and not Path(value).is_file():
            yield setting.line, f"{value} does not exist"
    for setting in config.values("syn.file"):
        if not Path(setting.value).is_absolute():
            yield setting.line, f"{setting.value} is a relative path"


@config_rules("hls-uncertainty")
def uncertainty(config: Config) -> Found:
    """Without a clock uncertainty the tool schedules against 27 % less than the period."""
    if not config.is_hls:
        return
    found = config.values("clock_uncertainty")
    if not found:
        yield 1, "clock_uncertainty is not set"
    for setting in found:
        share, percent = setting.value.rstrip("%"), setting.value.endswith("%")
        number = percent and share.replace(".", "").isdigit()
        if number and float(share) < MIN_UNCERTAINTY_PERCENT:
            yield setting.line, f"{setting.value} leaves nothing for routing"


@config_rules("hls-clock")
def clock(config: Config) -> Found:
    """A clock for the kernel beside the platform's freqhz is an error or ignored."""
    if not config.is_hls:
        return
    if config.values("freqhz") and config.values("clock", "hls"):
        yield config.values("freqhz")[0].line, "freqhz and clock are both set"
    if not config.values("freqhz") and not config.values("clock", "hls"):
        yield 1, "no clock is set"


@config_rules("hls-style")
def style(config: Config) -> Found:
    """Which pipeline style is the default differs by version: stalled ones keep their tail."""
    if config.is_hls and not config.values("syn.compile.pipeline_style"):
        yield 1, "syn.compile.pipeline_style is not set"


@config_rules("hls-language")
def language(config: Config) -> Found:
    """Another language standard than C++14 is not documented for the tool."""
    for setting in config.values("syn.cflags"):
        if "-std=c++14" not in setting.value.split():
            yield setting.line, "syn.cflags does not say -std=c++14"
