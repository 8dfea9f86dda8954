"""A picture of what a VAE makes of clips: every fourth frame above its reconstruction.

draw_strip(vae, batches, Path("runs/vae/samples/step-00002000.png"))
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from model.vae import VideoVAE, from_pixels, to_pixels

CLIPS = 6
CHUNK = 8  # latent frames that go through the VAE at a time
LEAST_HEIGHT = 128  # of a frame in the picture; smaller ones are drawn larger, by whole numbers


@torch.no_grad()
def draw_strip(vae: VideoVAE, batches: list[Tensor], path: Path) -> None:
    """Write a PNG of the first clip of each of the first batches (B, T, H, W, 3) uint8; none without clips."""
    rows: list[np.ndarray] = []
    for frames in batches[:CLIPS]:
        x = from_pixels(frames[:1]).to(vae.latent_std.device)
        y = to_pixels(vae.decode_latents(vae.encode_latents(x, chunk=CHUNK), like=x, chunk=CHUNK)).cpu()
        larger = max(1, LEAST_HEIGHT // x.shape[3])
        for video in (frames[0], y[0]):
            row = np.concatenate(list(video[::4].numpy()), axis=1)  # (H, n·W, 3)
            rows.append(row.repeat(larger, axis=0).repeat(larger, axis=1))
        rows.append(np.full((6, rows[-1].shape[1], 3), 255, np.uint8))
    if not rows:
        return
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.concatenate(padded)[:, :, ::-1]):
        raise OSError(f"{path} could not be written")
