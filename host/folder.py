"""A build folder as the host reads it: everything is checked against the manifest first.

What needs torch is imported where it is needed, so that a folder can be checked in no time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import UserError
from gen.stages import FORMAT, MANIFEST
from host.axlf import read_axlf
from host.xclbin import is_genuine, read_container, sha256

if TYPE_CHECKING:
    from host.codec import Codec

PROGRAM = "program.json"
WEIGHTS = "weights.bin"


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {what} cannot be read ({error}); run `make build`") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: {what} is not what it should be; run `make build`")
    return value


class BuildFolder:
    """A finished build whose files all have the hashes of its manifest.

    Raises:
        UserError: not a build, another format, or a missing or changed file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / MANIFEST).is_file():
            raise UserError(f"{path}: not a finished build (no {MANIFEST}); run `make build`")
        self.manifest = _read_json(path / MANIFEST, "the manifest")
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{path}: made by another version of the generator; build it again")
        files = self.manifest.get("files", {})
        if not {PROGRAM, WEIGHTS} <= set(files) or "model" not in self.manifest:
            raise UserError(f"{path / MANIFEST}: incomplete; run `make build` again")
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                raise UserError(f"{file}: missing from the build; run `make build` again")
            if sha256(file) != expected:
                raise UserError(
                    f"{file}: truncated or changed since it was built; delete it and run "
                    "`make build` again"
                )
        self.program_hash: str = files[PROGRAM]
        listed = json.dumps(sorted(files.items()))
        # hash over all files: what numbers, runs and tests of this build are known by
        self.identity = hashlib.sha256(listed.encode()).hexdigest()
        self.model = (path / self.manifest["model"]["path"]).resolve()

    def codec(self) -> Codec:
        """The encoder and decoder of this build's layer program."""
        import numpy as np

        from gen.hostgraph import HostGraph
        from gen.program import load_program
        from gen.qgraph_io import load_qgraph
        from host.codec import Codec

        host = HostGraph.load(self.path)
        weights = np.fromfile(self.path / WEIGHTS, dtype=np.uint8)
        return Codec(load_program(self.path / PROGRAM), load_qgraph(self.path), host, weights)

    def check_model(self, unet: Any) -> None:
        """Refuse a float U-Net that the build was not made from.

        Weights are compared in float32 only: in another type they are other numbers.

        Raises:
            UserError: it is another one.
        """
        import torch

        from gen.identity import unet_identity

        if unet.dtype == torch.float32 and unet_identity(unet) != self.manifest["model"]["unet"]:
            raise UserError(
                f"{self.path}: made from another model than the U-Net that it is to replace; "
                f"build one from that model, or load {self.model}"
            )

    def check_xclbin(self, path: Path) -> None:
        """Refuse an xclbin that was not made from this build's layer program.

        A genuine one is vouched for by the description beside it (its hash, its UUID and the
        program's hash), which the link step writes (``gen.vitis.card_run.link_card``).

        Raises:
            UserError: it belongs to another program, or its identity is unknown.
        """
        if is_genuine(path):
            note = _read_json(path.with_suffix(".json"), "the link step's description")
            # the link step does not know the UUID where xclbinutil is missing
            known = note.get("sha256") == sha256(path) and (
                note.get("uuid") in (None, read_axlf(path).uuid)
            )
            program = note.get("program")
        else:
            program, known = read_container(path).program, True
        if program != self.program_hash or not known:
            raise UserError(
                f"{path}: made for another layer program than {self.path}; build both from the "
                "same model"
            )
