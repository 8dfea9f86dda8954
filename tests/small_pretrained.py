"""Small random instances of the pretrained video VAEs, saved as diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WAN: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, 0.4],
    "latents_std": [0.15, 0.2, 0.25, 0.1],
}
LTX: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "scaling_factor": 0.8,
}
#: kind -> class of diffusers and its configuration
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "wan": ("AutoencoderKLWan", WAN),
    # Wan 2.2: pixels in patches of 2 x 2 before the first convolution
    "wan16": (
        "AutoencoderKLWan",
        WAN
        | {
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
        },
    ),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
    ),
    "ltx": ("AutoencoderKLLTXVideo", LTX),
    # LTX-Video 0.9.1: the decoder knows the time of diffusion and adds noise
    "ltx91": (
        "AutoencoderKLLTXVideo",
        LTX | {"timestep_conditioning": True, "decoder_inject_noise": (True, True, True, True, True)},
    ),
    "cogvideox": (
        "AutoencoderKLCogVideoX",
        {
            "block_out_channels": (8, 8, 8, 8),
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "scaling_factor": 0.7,
        },
    ),
}


def make_pretrained(kind: str, seed: int = 0) -> Any:
    """A network of diffusers with random weights, and statistics where they are part of the weights."""
    import diffusers

    torch.manual_seed(seed)
    name, config = KINDS[kind]
    network = getattr(diffusers, name)(**config).eval().requires_grad_(False)
    for parameter in network.parameters():
        # What training would have moved from 0: biases, and how much noise is added.
        if not parameter.any():
            parameter.normal_(std=0.05)
    if kind.startswith("ltx"):
        network.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
        network.latents_std.copy_(torch.linspace(0.2, 0.6, 8))
    return network


def pretrained_folder(folder: Path, kind: str = "wan", seed: int = 0) -> Path:
    """`folder` with the network that `make_pretrained` makes, as save_pretrained writes it."""
    make_pretrained(kind, seed).save_pretrained(folder)
    return folder
