"""A cached set of training pictures with their captions."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np

from .scenes import Image8, caption, render, sample_placement, sample_scene

BLOCK = 512
"""Pictures drawn from one seed."""


def draw_block(seed: int, index: int) -> tuple[Image8, list[str]]:
    """Pictures ``(512, 64, 64, 3)`` and captions of one block of the training set."""
    rng = np.random.default_rng((seed, index))
    pictures, captions = [], []
    for _ in range(BLOCK):
        scene = sample_scene(rng)
        pictures.append(render(scene, sample_placement(rng, len(scene.things))))
        captions.append(caption(scene))
    return np.stack(pictures), captions


def training_set(folder: Path, blocks: int = 64, seed: int = 1) -> tuple[Image8, list[str]]:
    """Pictures ``(512 * blocks, 64, 64, 3)`` and captions, drawn once and kept in ``folder``."""
    path = folder / f"pictures-{seed}-{blocks}.npz"
    if not path.exists():
        with multiprocessing.Pool() as pool:
            parts = pool.map(partial(draw_block, seed), range(blocks), chunksize=1)
        pictures = np.concatenate([part[0] for part in parts])
        captions = np.array([text for part in parts for text in part[1]])
        folder.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial.npz")
        np.savez(partial_path, pictures=pictures, captions=captions)
        partial_path.rename(path)
    with np.load(path) as stored:
        return stored["pictures"], stored["captions"].tolist()
