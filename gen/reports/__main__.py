"""``python -m gen.reports BUILD``: modelled figures against those that the tools measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gen.errors import UserError
from gen.program import load_program
from gen.reports.measured import gather, save
from gen.reports.table import rows, text
from gen.vitis.topology import ENGINE


def main() -> int:
    """Entry point; exit status 2 for a missing build or a damaged report."""
    parser = argparse.ArgumentParser(prog="python -m gen.reports", description=__doc__)
    parser.add_argument("build", type=Path)
    arguments = parser.parse_args()
    try:
        program = load_program(arguments.build / "program.json")
        measured = gather(arguments.build, [kernel.name for kernel in ENGINE.kernels])
        path = save(measured, arguments.build)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(text(rows(program, measured))))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
