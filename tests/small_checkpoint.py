"""A checkpoint with random weights, as training would write it, on the VAE that ships with the code; films for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import write_video
from safetensors.torch import save_file
from small_text_encoder import open_clip_text_folder

from model.any_vae import any_vae_id
from model.config import DiTConfig, FlowConfig
from model.dit import DiT
from pipelines.demo.weights import embedded
from pipelines.text_place import text_id
from train.config import ConditionMix

SIZE, FPS = (5, 4, 6), 8.0  # 17 pictures of 32 x 48
HEIGHT, WIDTH = 8 * SIZE[1], 8 * SIZE[2]
PIECE = 4 * (SIZE[0] - 1) + 1


def film(path: Path, count: int, begin: int) -> str:
    """Write pictures of one grey each, from `begin` to 60 more: coding hardly changes them."""
    levels = np.linspace(begin, begin + 60, count).astype(np.uint8)
    pictures = np.broadcast_to(levels[:, None, None, None], (count, HEIGHT, WIDTH, 3))
    return str(write_video(path, pictures, fps=int(FPS)))


def write_checkpoint(
    root: Path,
    size: tuple[int, int, int] = SIZE,
    patch: tuple[int, int, int] = (1, 2, 2),
    **condition: float,
) -> Path:
    """Write a text encoder and a checkpoint below `root`; returns the checkpoint's folder.

    All weights are random, so that every input moves every output. `condition` changes the mix of training.
    """
    text = open_clip_text_folder(root / "text")
    shape = DiTConfig(channels=16, patch=patch, width=32, depth=1, heads=1, ffn=64, text_width=24)
    torch.manual_seed(0)
    dit = DiT(shape)
    weights = {name: w + 0.1 * torch.randn_like(w) for name, w in dit.state_dict().items()}
    folder = root / "step-00000001"
    folder.mkdir(parents=True)
    save_file(weights, folder / "ema.safetensors")
    about: dict[str, Any] = {
        "model": asdict(shape),
        "flow": asdict(FlowConfig()),
        "latents": {
            "vae": "embedded",
            "vae_id": any_vae_id(embedded("vae")),
            "text_encoder": str(text),
            "text_id": text_id(str(text)),
        },
        "typical": {"size": size, "fps": FPS},
        "train": {"condition": asdict(ConditionMix(**condition))},
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "COMPLETE").write_text("")
    return folder
