"""``python -m gen.hlslint [paths]``: check sources and configurations for Vitis.

Paths are files, folders, or build folders (their generated kernels and link configurations);
without any, hls/kernels. A finding is allowed by a comment in its line or the one above,
``// hlslint: allow RULE: reason``. Exit status 1 with findings, 2 for bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.errors import UserError
from gen.stages import ROOT


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m gen.hlslint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / "hls" / "kernels"])
    parser.add_argument(
        "--board", default="u250", help="board of configurations outside of a build"
    )
    parser.add_argument("-I", dest="folders", action="append", type=Path, default=[])
    parser.add_argument("--rules", action="store_true", help="list the rules")
    arguments = parser.parse_args()
    try:
        from gen.hlslint.check import check_paths
        from gen.hlslint.rules import bench_rules, config_rules, unit_rules
    except ImportError as error:
        print(
            f"{error}: tree-sitter and tree-sitter-cpp are needed; run make venv", file=sys.stderr
        )
        return 2
    if arguments.rules:
        for name, trap in (*unit_rules.listing(), *bench_rules.listing(), *config_rules.listing()):
            print(f"{name:20} {trap}")
        return 0
    try:
        found = check_paths(arguments.paths, arguments.folders, arguments.board)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for finding in found:
        print(finding)
    print(f"{len(found)} finding(s)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
