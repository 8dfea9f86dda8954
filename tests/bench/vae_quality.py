"""PSNR and SSIM of a VAE on clips of the procedural world that no training has seen.

    for footage, encoded in unseen(clips=30): ...       # (T, H, W, 3) uint8 each
    figures(vae, clips=30)                              # {"footage": {"psnr_db", "ssim", ...}, "encode": ...}

Each scene is drawn and written as the demo's films are, and read back in two ways: 17 frames of its own size and
rate, and as `reelmill encode` reads clips (64 × 64 pixels in area, 8 frames/s). Half of the scenes are of
combinations that training never shows.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.vae import from_pixels
from pipelines.demo.film_plan import FRAME_RATES, FRAME_SIZES
from pipelines.demo.films import CRF, encode
from pipelines.demo.scene import draw_scene
from pipelines.demo.world import render
from pipelines.encode_frames import FrameConfig, Shape, fit, read_clip, timing
from tests.bench.vae_networks import Ours
from train.vae_loss import psnr, ssim

UNSEEN = 1 << 42  # trainings draw their scenes from other seeds
FRAMES = 17


def unseen(clips: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clips as they are, and as `reelmill encode` reads them; the same ones each time."""
    config = FrameConfig()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for number in range(clips):
            rng = np.random.default_rng((UNSEEN, number))
            width, height = FRAME_SIZES[number % len(FRAME_SIZES)]
            fps = FRAME_RATES[number % len(FRAME_RATES)]
            n_frames = 2 * fps + fps // 8
            scene = draw_scene(rng, held_out=number % 2 == 0, duration_s=n_frames / fps)
            pictures = render(scene, n_frames=n_frames, fps=fps, width=width, height=height)
            encode(path, iter([pictures]), fps=fps, crf=CRF)
            data = path.read_bytes()
            frames, rate = timing(n_frames, fps, config, temporal=4)
            small_width, small_height = fit(width, height, config)
            yield (
                read_clip(io.BytesIO(data), Shape(FRAMES, height, width), fps),
                read_clip(io.BytesIO(data), Shape(frames, small_height, small_width), rate),
            )


@torch.inference_mode()
def figures(ours: Ours, clips: int) -> dict[str, Any]:
    """Means over clips, from pixels to normalised latents and back, by the way the clips are read."""
    vae = ours.network
    found: dict[str, list[tuple[float, float]]] = {"footage": [], "encode": []}
    for pair in unseen(clips):
        for name, frames in zip(found, pair, strict=True):
            x = from_pixels(torch.from_numpy(frames)[None]).to(ours.setup.device)
            with ours.precision():
                y = vae.decode_latents(vae.encode_latents(x), like=x)
            found[name].append((psnr(y, x).item(), ssim(y, x).item()))
    rows = {}
    for name, values in found.items():
        quality, likeness = np.array(values).T
        rows[name] = {
            "psnr_db": float(quality.mean()),
            "psnr_db_least": float(quality.min()),
            "ssim": float(likeness.mean()),
            "clips": len(values),
            "reason": None,
        }
    return rows
