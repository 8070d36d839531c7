"""What of a board an engine may use, from ``gen/boards/NAME.toml``."""

from __future__ import annotations

from dataclasses import dataclass

from gen.errors import UserError
from gen.vitis.board import BOARDS, read_toml

KINDS = ("lut", "ff", "bram36", "uram", "dsp")


@dataclass(frozen=True)
class Limits:
    """Per SLR: ``resources`` that kernels may have, and the share of them that a plan may use
    (``headroom``; placement and routing need the rest). ``link_wires`` between neighbouring SLRs;
    transfers: GB/s and microseconds; ``ddr_gb_per_s`` achieved by one bank.
    """

    board: str
    slrs: int
    resources: dict[str, int]
    headroom: dict[str, float]
    link_wires: int
    ddr_gb_per_s: float
    host_to_card_gb_per_s: float
    card_to_host_gb_per_s: float
    transfer_us: float
    start_us: float
    clocks_mhz: tuple[int, ...]

    def usable(self, kind: str) -> int:
        """Most of a resource that one rank may use."""
        return int(self.resources[kind] * self.headroom[kind])


def load_limits(board: str) -> Limits:
    """Limits of a board by name.

    Raises:
        UserError: no such board, or its file lacks a field.
    """
    path = BOARDS / f"{board}.toml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in BOARDS.glob("*.toml")))
        raise UserError(f"{board} is not a known board; choose one of {known}")
    data = read_toml(path)
    try:
        return Limits(
            board=data["name"],
            slrs=data["slr"]["count"],
            resources={kind: int(data["slr"][kind]) for kind in KINDS},
            headroom={kind: float(data["headroom"][kind]) for kind in KINDS},
            link_wires=int(data["headroom"]["link_wires"]),
            ddr_gb_per_s=float(data["ddr"]["bank_gb_per_s"]),
            host_to_card_gb_per_s=float(data["pcie"]["host_to_card_gb_per_s"]),
            card_to_host_gb_per_s=float(data["pcie"]["card_to_host_gb_per_s"]),
            transfer_us=float(data["pcie"]["transfer_us"]),
            start_us=float(data["pcie"]["start_us"]),
            clocks_mhz=tuple(sorted({data["clock"]["target_mhz"], *data["clock"]["next_mhz"]})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks the field {error}; add it as in u250.toml") from error
