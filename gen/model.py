"""Where a U-Net comes from: a pipeline folder, a U-Net folder, a hub id or an architecture.

Only ``from_pretrained`` on safetensors files is used; nothing in a model folder is executed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gen.errors import UserError
from gen.stages import ROOT

ARCHITECTURES = ROOT / "models" / "architectures"
CLASSES = ("UNet2DConditionModel", "UNet2DModel")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Model:
    """A model as the user named it.

    ``kind``: ``pipeline`` (a folder or hub id with model_index.json), ``unet`` (a folder that
    holds just a U-Net) or ``architecture`` (a configuration with random weights from a seed).
    ``files``: what its identity depends on, for stages to watch.
    """

    name: str
    kind: str
    path: Path
    files: tuple[Path, ...]
    tokens: int
    batch: int


def architectures() -> list[str]:
    """Names of the architectures that are shipped."""
    return sorted(path.stem for path in ARCHITECTURES.glob("*.json"))


def find_model(name: str) -> Model:
    """Resolve a folder, hub id or architecture name.

    Raises:
        UserError: nothing of that name, a folder that is not diffusers', or a failed download.
    """
    path = Path(name).resolve()
    if path.is_dir():
        return _folder(name, path)
    if (ARCHITECTURES / f"{name}.json").is_file():
        return _architecture(name, ARCHITECTURES / f"{name}.json")
    if path.suffix == ".json" and path.is_file():
        return _architecture(path.stem, path)
    if HUB_ID.fullmatch(name) and not path.exists():
        return _folder(name, _download(name))
    raise UserError(
        f"{name}: neither a folder, nor a hub id (owner/name), nor one of the architectures "
        f"{', '.join(architectures())}; name one of these"
    )


def load_unet(model: Model) -> Any:
    """The U-Net in float32 on the CPU, in eval mode.

    Raises:
        UserError: files are missing or damaged, or the class is none that is supported.
    """
    import diffusers

    if model.kind == "architecture":
        described = read_json(model.path)
        torch.manual_seed(0)
        return getattr(diffusers, described["class"]).from_config(described["config"]).eval()
    folder = model.path / "unet" if model.kind == "pipeline" else model.path
    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in CLASSES:
        raise UserError(f"{folder}: {kind} is not supported; {' or '.join(CLASSES)} is needed")
    try:
        unet = (
            getattr(diffusers, kind)
            .from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
            .float()
        )
    except Exception as error:
        # diffusers, safetensors and json each raise their own kinds
        raise UserError(
            f"{folder}: the U-Net cannot be loaded ({' '.join(str(error).split())[:300]}); "
            "restore its files (weights must be safetensors)"
        ) from error
    return unet.eval()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError if it is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); restore the file") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; restore the file")
    return value


def _folder(name: str, path: Path) -> Model:
    if (path / "model_index.json").is_file():
        index = read_json(path / "model_index.json")
        if "unet" not in index or not (path / "unet" / "config.json").is_file():
            raise UserError(f"{path}: this pipeline has no U-Net; name one that has")
        parts = ["unet", "scheduler", "text_encoder", "tokenizer", "class_embedding"]
        files = [path / "model_index.json"]
        files += [p for part in parts for p in sorted((path / part).glob("*")) if p.is_file()]
        return Model(name, "pipeline", path, tuple(files), _tokens(path), 2)
    config = path / "config.json"
    if config.is_file() and read_json(config).get("_class_name") in CLASSES:
        conditional = read_json(config)["_class_name"] == CLASSES[0]
        files = sorted(p for p in path.iterdir() if p.is_file())
        return Model(name, "unet", path, tuple(files), 77 if conditional else 0, 1 + conditional)
    raise UserError(
        f"{path}: not a diffusers folder (neither model_index.json nor the config.json of a U-Net "
        "is there); name the folder that `save_pretrained` wrote"
    )


def _architecture(name: str, path: Path) -> Model:
    described = read_json(path)
    if described.get("class") not in CLASSES or "config" not in described:
        raise UserError(f"{path}: names no U-Net class and configuration; see {ARCHITECTURES}")
    return Model(
        name, "architecture", path, (path,), described.get("tokens", 0), described.get("batch", 1)
    )


def _tokens(path: Path) -> int:
    """Prompt tokens of a pipeline: what its tokenizer pads to; 0 without a text encoder."""
    if not (path / "text_encoder" / "config.json").is_file():
        return 0
    config = read_json(path / "text_encoder" / "config.json")
    return int(config.get("max_position_embeddings") or config.get("n_ctx") or 77)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.txt", "*.safetensors"],
                ignore_patterns=["*.fp16.*", "*.non_ema.*", "safety_checker/*", "*.ckpt"],
            )
        )
    except Exception as error:
        # the hub client raises a different kind for each: offline, gated, not found, disk
        raise UserError(
            f"{name}: could not be downloaded from the hub ({' '.join(str(error).split())[:200]}); "
            "check the name, log in if it is gated, or name a local folder"
        ) from error
