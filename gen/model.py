"""Where a U-Net comes from: a pipeline folder, a U-Net folder, a hub id or an architecture.

Only ``from_pretrained`` on safetensors files is used; nothing in a model folder is executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gen.errors import UserError
from gen.hub import download
from gen.lora import Lora, check_loras, fuse_loras
from gen.random_weights import random_unet
from gen.stages import ROOT

ARCHITECTURES = ROOT / "models" / "architectures"
CLASSES = ("UNet2DConditionModel", "UNet2DModel")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# folders of a pipeline, besides the U-Net's, that a build depends on
PARTS = (
    "scheduler",
    "text_encoder",
    "tokenizer",
    "text_encoder_2",
    "tokenizer_2",
    "bert",
    "class_embedding",
)
WEIGHTS = "diffusion_pytorch_model"
TOKENS = 77
MODEL = "model.json"  # of a build


@dataclass(frozen=True)
class Model:
    """A model as the user named it.

    ``kind``: ``pipeline`` (a folder or hub id with model_index.json), ``unet`` (a folder that
    holds just a U-Net) or ``architecture`` (a configuration with random weights from a seed).
    ``files``: what its identity depends on, for stages to watch. ``tokens``: of a prompt, 0 for
    an unconditional U-Net. ``batch``: 2 where guidance needs a pair. ``loras`` are fused into the
    weights; ``name`` tells them too.
    """

    name: str
    kind: str
    path: Path
    files: tuple[Path, ...]
    tokens: int
    batch: int
    loras: tuple[Lora, ...] = ()

    @property
    def unet_folder(self) -> Path:
        """Where the U-Net's configuration and weights are."""
        return _unet_folder(self.path)

    def description(self) -> dict[str, Any]:
        """Name and LoRAs as JSON, for ``loras_of``."""
        return {"name": self.name, "loras": [[str(x.path), x.scale] for x in self.loras]}


def loras_of(build: Path) -> tuple[Lora, ...]:
    """The LoRAs that a build's model was made with.

    Raises:
        UserError: the build tells nothing of its model, or a file is gone.
    """
    described = read_json(build / MODEL)
    return tuple(Lora.parse(f"{path}:{scale}") for path, scale in described.get("loras", []))


def architectures() -> list[str]:
    """Names of the architectures that are shipped."""
    return sorted(path.stem for path in ARCHITECTURES.glob("*.json"))


def find_model(name: str, loras: Sequence[str | Lora] = ()) -> Model:
    """Resolve a folder, hub id or architecture name; LoRAs may be ``FILE`` or ``FILE:SCALE``.

    Raises:
        UserError: nothing of that name, a folder that is not diffusers', a failed download, or a
            file that is no LoRA.
    """
    model = _find(name)
    if not loras:
        return model
    parsed = tuple(Lora.parse(lora) if isinstance(lora, str) else lora for lora in loras)
    check_loras(parsed)
    listed = ", ".join(f"{lora.path.name}:{lora.scale:g}" for lora in parsed)
    files = (*model.files, *(lora.path for lora in parsed))
    return replace(model, name=f"{model.name} with {listed}", files=files, loras=parsed)


def _find(name: str) -> Model:
    path = Path(name).resolve()
    if path.is_dir():
        return _folder(name, path)
    if (ARCHITECTURES / f"{name}.json").is_file():
        return _architecture(name, ARCHITECTURES / f"{name}.json")
    if path.suffix == ".json" and path.is_file():
        return _architecture(path.stem, path)
    if HUB_ID.fullmatch(name) and not path.exists():
        return _folder(name, download(name))
    raise UserError(
        f"{name}: neither a folder, nor a hub id (owner/name), nor one of the architectures "
        f"{', '.join(architectures())}; name one of these"
    )


def load_unet(model: Model, scratch: Path | None = None) -> Any:
    """The U-Net in float32 on the CPU, in eval mode, with the model's LoRAs fused.

    Weights that are float32 on disk are memory-mapped; so are those of an architecture if there is
    a ``scratch`` folder for a file that holds them.

    Raises:
        UserError: files are missing or damaged, or the class is none that is supported.
    """
    import diffusers

    if model.kind == "architecture":
        described = read_json(model.path)
        file = None if scratch is None else scratch / "random-weights"
        kind = getattr(diffusers, described["class"])
        unet = random_unet(kind, described["config"], file)
    else:
        unet = _load(model.unet_folder)
    fuse_loras(unet, model.loras, "unet")
    return unet.eval()


def _load(folder: Path) -> Any:
    import diffusers
    from diffusers.utils import logging

    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in CLASSES:
        raise UserError(f"{folder}: {kind} is not supported; {' or '.join(CLASSES)} is needed")
    variant = weights_variant(folder)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return (
            getattr(diffusers, kind)
            .from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, variant=variant
            )
            .float()
        )
    except Exception as error:
        # diffusers, safetensors and json each raise their own kinds
        raise UserError(
            f"{folder}: the U-Net cannot be loaded ({' '.join(str(error).split())[:300]}); "
            "restore its files (weights must be safetensors)"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def prompt_tokens(model: Model, wanted: int) -> int:
    """Tokens of the longest prompt: ``wanted``, or the pipeline's own for 0.

    Raises:
        UserError: a number that no prompt has, or a U-Net without prompts.
    """
    if wanted < 0:
        raise UserError(f"{wanted} tokens are no prompt; give 1 or more by --tokens")
    if wanted and not model.tokens:
        raise UserError(f"{model.name} takes no prompt; leave out --tokens")
    return wanted or model.tokens


def weights_variant(folder: Path) -> str | None:
    """The variant (such as fp16) of a U-Net's weights, None where there are plain ones.

    Raises:
        UserError: there are no safetensors.
    """
    names = sorted(path.name for path in folder.glob(f"{WEIGHTS}*.safetensors"))
    if not names:
        raise UserError(
            f"{folder}: holds no weights as safetensors; load the model in diffusers and save it "
            "by save_pretrained"
        )
    variants = [re.fullmatch(rf"{WEIGHTS}\.([a-z]\w*)(-.*)?\.safetensors", name) for name in names]
    named = [found.group(1) for found in variants if found]
    return named[0] if len(named) == len(names) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError if it is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); restore the file") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; restore the file")
    return value


def _unet_folder(path: Path) -> Path:
    """``unet`` below a pipeline's folder, or the folder itself (old pipelines and lone U-Nets)."""
    return path / "unet" if (path / "unet").is_dir() else path


def _folder(name: str, path: Path) -> Model:
    index, folder = path / "model_index.json", _unet_folder(path)
    config = folder / "config.json"
    if index.is_file():
        if "unet" not in read_json(index) or not config.is_file():
            raise UserError(f"{path}: this pipeline has no U-Net; name one that has")
        found = [p for part in PARTS for p in sorted((path / part).glob("*")) if p.is_file()]
        files = (index, *_own_files(folder), *found)
        return _described(Model(name, "pipeline", path, files, _tokens(path), 2), read_json(config))
    config = path / "config.json"
    if config.is_file() and read_json(config).get("_class_name") in CLASSES:
        files = _own_files(path)
        return _described(Model(name, "unet", path, files, TOKENS, 2), read_json(config))
    raise UserError(
        f"{path}: not a diffusers folder (neither model_index.json nor the config.json of a U-Net "
        "is there); name the folder that `save_pretrained` wrote"
    )


def _described(model: Model, config: dict[str, Any]) -> Model:
    """``model`` with the tokens and batch that its U-Net's configuration asks for."""
    if config.get("_class_name") == CLASSES[1]:
        return replace(model, tokens=0, batch=1)
    # a distilled guidance scale is an input, not a second half of the batch
    return replace(model, batch=2 if config.get("time_cond_proj_dim") is None else 1)


def _own_files(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(folder.iterdir()) if path.is_file())


def _architecture(name: str, path: Path) -> Model:
    described = read_json(path)
    if described.get("class") not in CLASSES or "config" not in described:
        raise UserError(f"{path}: names no U-Net class and configuration; see {ARCHITECTURES}")
    return Model(
        name, "architecture", path, (path,), described.get("tokens", 0), described.get("batch", 1)
    )


def _tokens(path: Path) -> int:
    """Prompt tokens of a pipeline: what its tokenizer pads to."""
    for part in ("text_encoder", "bert"):
        config = path / part / "config.json"
        if config.is_file():
            described = read_json(config)
            return int(described.get("max_position_embeddings") or described.get("n_ctx") or TOKENS)
    return TOKENS
