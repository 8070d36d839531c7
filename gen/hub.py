"""Downloads from the hub: configuration and safetensors of one model."""

from __future__ import annotations

from pathlib import Path

from gen.errors import UserError

ALLOWED = ["*.json", "*.txt", "*.model", "*.safetensors"]
IGNORED = ["*.non_ema.*", "safety_checker/*", "*onnx*", "openvino*", "flax*"]
HALF = "*.fp16*"


def download(name: str) -> Path:
    """The local folder of hub model ``owner/name``; half precision only where there is no other.

    Raises:
        UserError: no such model, a gated one, no connection, or no space.
    """
    folder = _snapshot(name, [*IGNORED, HALF])
    if not list(folder.glob("**/diffusion_pytorch_model*.safetensors")):
        folder = _snapshot(name, IGNORED)
    return folder


def _snapshot(name: str, ignored: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=ALLOWED, ignore_patterns=ignored))
    except GatedRepoError as error:
        raise UserError(
            f"{name}: this model is gated; accept its licence on the hub's page and log in by "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: the hub has no such model, or it is private; check the name, or log in by "
            "`hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"{name}: not downloaded yet, and the hub cannot be reached; connect (and unset "
            "HF_HUB_OFFLINE), or name a local folder"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"{name}: the hub refused the download ({_line(error)}); try again later"
        ) from error
    except Exception as error:
        # what is below the hub client raises kinds of its own: proxies, names, disk
        raise UserError(
            f"{name}: could not be downloaded from the hub ({_line(error)}); check connection and "
            "disk, or name a local folder"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
