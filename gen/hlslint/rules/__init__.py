"""The rules, by subject. Each one's docstring opens with the trap that it guards against."""

from __future__ import annotations

from gen.hlslint.config import Config
from gen.hlslint.finding import Rules
from gen.hlslint.unit import Unit

unit_rules: Rules[Unit] = Rules()
config_rules: Rules[Config] = Rules()
bench_rules: Rules[Unit] = Rules()
