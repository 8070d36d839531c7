"""Reproduce the bundled model: auto-encoder, then U-Net, then the decoder again, and export.

``python -m models.recipe --out models/shapes-ldm``; started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from .dataset import draw_block, training_set
from .export import save_pipeline
from .tokenizer import build_tokenizer
from .train_unet import Denoiser, encode_pictures, train_unet
from .train_vae import psnr, refine_decoder, train_vae

log = logging.getLogger("models.recipe")

CHECK_SEED = 999
"""Seed of the pictures that no stage trains on."""


def trained_vae(work: Path, minutes: float) -> AutoencoderKL:
    """Auto-encoder from ``work``, trained first when it is not there."""
    folder = work / "vae"
    checks = draw_block(CHECK_SEED, 0)[0]
    if not folder.exists():
        pictures, _ = training_set(work)
        vae = train_vae(pictures, checks[:64], work, minutes)
        partial = work / "vae.new"
        vae.save_pretrained(partial)
        partial.rename(folder)
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True)
    log.info("auto-encoder: %.2f dB on %d fresh pictures", psnr(vae, checks), len(checks))
    return vae


def main() -> None:
    """Run every stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--work", type=Path, help="folder of checkpoints (default: in build/)")
    parser.add_argument("--vae-minutes", type=float, default=21.0)
    parser.add_argument("--minutes", type=float, default=75.0, help="training time of the U-Net")
    parser.add_argument("--decoder-minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    work = options.work or Path("build") / f"{options.out.name}-training"
    work.mkdir(parents=True, exist_ok=True)

    tokenizer = build_tokenizer(work / "tokenizer")
    vae = trained_vae(work, options.vae_minutes)
    pictures, captions = training_set(work)
    latents = encode_pictures(vae, pictures, work / "latents.pt")
    log.info("%d latents, standard deviation %.3f", len(latents), float(latents.std()))

    def export(net: Denoiser) -> None:
        save_pipeline(options.out, vae, net.text_encoder, tokenizer, net.unet)
        log.info("wrote %s", options.out)

    net = train_unet(latents, captions, tokenizer, work, options.minutes, export)
    refined = work / "vae-refined"
    if not refined.exists():
        torch.set_num_threads(options.threads or os.cpu_count() or 1)
        checks = draw_block(CHECK_SEED, 0)[0]
        refine_decoder(vae, latents, pictures, checks[:64], options.decoder_minutes)
        log.info("refined decoder: %.2f dB on %d fresh pictures", psnr(vae, checks), len(checks))
        vae.save_pretrained(refined)
    vae = AutoencoderKL.from_pretrained(refined, local_files_only=True)
    export(net)


if __name__ == "__main__":
    main()
