"""Which model a build was made from: a hash over a U-Net's configuration and float weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch


def unet_identity(unet: Any) -> str:
    """SHA-256, in hex, over the public configuration and all weights of a diffusers U-Net.

    Names starting with an underscore (paths, library versions) do not count, nor does the file
    format that the weights came from.
    """
    digest = hashlib.sha256()
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(unet.state_dict().items()):
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
