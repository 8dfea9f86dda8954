"""How the four video VAEs of diffusers differ: their compression, lengths, statistics, decoders and tiles.

    network = AutoencoderKLWan.from_pretrained(folder)
    config_of(network)                # PretrainedConfig(name="wan", channels=16, temporal=4, spatial=8, ...)
    mean, std = statistics_of(network)  # (C,) each: (latent - mean) / std is what diffusion models see

The rules are those of diffusers 0.42: of its autoencoders, and of its pipelines for the statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.errors import BadInput

#: What config.json calls them, and how the ids of ours begin.
NAMES = {
    "AutoencoderKLWan": "wan",
    "AutoencoderKLHunyuanVideo": "hunyuan-video",
    "AutoencoderKLLTXVideo": "ltx-video",
    "AutoencoderKLCogVideoX": "cogvideox",
}


@dataclass(frozen=True)
class PretrainedConfig:
    """The shape of a pretrained video VAE.

    Attributes:
        name: its kind, one of NAMES; part of the VAE's id.
        channels: latent channels.
        temporal: pictures per latent frame after the first.
        spatial: pixels per latent position, in height and in width.
        frame_step: clips are padded to frame_step·k+1 pictures; a multiple of `temporal`.
    """

    name: str
    channels: int
    temporal: int
    spatial: int
    frame_step: int


def config_of(network: Any) -> PretrainedConfig:
    """The shape of a network of diffusers. Raises KeyError if it is of another class than NAMES has."""
    told, name = network.config, NAMES[type(network).__name__]
    if name == "wan":
        temporal, spatial = told.scale_factor_temporal, told.scale_factor_spatial
        return PretrainedConfig(name, told.z_dim, temporal, spatial, frame_step=4)  # chunks of 4 pictures
    if name == "cogvideox":
        temporal, spatial = int(told.temporal_compression_ratio), 2 ** (len(told.block_out_channels) - 1)
        # It goes in chunks of 8 pictures and of 2 latent frames, the odd one in the first chunk. An even number
        # of latent frames would be decoded without a first frame of its own, to 4t pictures.
        return PretrainedConfig(
            name, told.latent_channels, temporal, spatial, network.num_sample_frames_batch_size
        )
    temporal, spatial = network.temporal_compression_ratio, network.spatial_compression_ratio
    return PretrainedConfig(name, told.latent_channels, temporal, spatial, frame_step=temporal)


def statistics_of(network: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the raw latents, (C,) float32 each, as its pipelines apply them.

    Wan tells both per channel in its config, LTX-Video in its weights with a factor beside them, HunyuanVideo
    and CogVideoX a factor for all; a shift is known to the format though none of the four uses it. CogVideoX's
    `invert_scale_latents` is about the picture that its image-to-video model is given, not about videos.

    Raises BadInput if they do not fit the channels or a deviation is not positive.
    """
    told, channels = network.config, config_of(network).channels
    if NAMES[type(network).__name__] == "ltx-video":
        mean, std = network.latents_mean, network.latents_std
    else:
        mean, std = told.get("latents_mean"), told.get("latents_std")
    mean = (told.get("shift_factor") or 0.0) if mean is None else mean
    std = 1.0 if std is None else std
    mean, std = (torch.as_tensor(x, dtype=torch.float32).cpu() for x in (mean, std))
    std = std / told.get("scaling_factor", 1.0)
    for name, found in (("mean", mean), ("standard deviation", std)):
        if found.ndim and found.shape != (channels,):
            raise BadInput(
                f"its {name} is for {found.numel()} channels but it has {channels}: its config.json is not "
                "that of its weights."
            )
    if not (std > 0).all() or not torch.isfinite(torch.cat([mean.view(-1), std.view(-1)])).all():
        raise BadInput("its latents_std and scaling_factor must be positive and finite numbers.")
    return mean.expand(channels).clone(), std.expand(channels).clone()


def decode(network: Any, z: Tensor) -> Tensor:
    """What the network makes of raw latents z (B, C, t, h, w); the same pixels each time."""
    # LTX-Video from 0.9.1 on can take a last denoising step itself; at time 0 it takes latents as they are.
    conditioned = network.config.get("timestep_conditioning")
    time = [torch.zeros(len(z), device=z.device, dtype=z.dtype)] if conditioned else []
    with fixed_noise(network, z.device):
        return network.decode(z, *time).sample


@contextmanager
def fixed_noise(network: Any, device: torch.device) -> Iterator[None]:
    """Some decoders of LTX-Video add noise of their own: in here it is always that of seed 0."""
    if not any(network.config.get("decoder_inject_noise") or ()):
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def set_tiles(network: Any, tile: int | None, overlap: int | None, is_encoding: bool) -> None:
    """Let the network work on `tile` pixels at a time in height and in width; null means on whole pictures.

    Neighbours share `overlap` pixels, by default a quarter of a tile, in which one fades into the other. Raises
    BadInput if they do not fit the latents.
    """
    if tile is None:
        network.disable_tiling()
        return
    spatial = config_of(network).spatial
    overlap = tile // 4 // spatial * spatial if overlap is None else overlap
    if tile % spatial or overlap % spatial or not 0 < overlap <= tile // 2:
        raise BadInput(
            f"VAE: tiles of {tile} pixels that share {overlap} do not fit. Give multiples of {spatial}, and share "
            f"from {spatial} pixels to half a tile."
        )
    sizes: dict[str, float] = {"tile_sample_min_height": tile, "tile_sample_min_width": tile}
    if NAMES[type(network).__name__] == "cogvideox":
        share = overlap / tile
        # It multiplies sides by the share and by the rest, and rounds both down: pixels would be lost.
        for side, shared in ((tile, overlap), (tile // spatial, overlap // spatial)):
            if (int(side * share), int(side * (1 - share))) != (shared, side - shared):
                raise BadInput(
                    f"VAE: CogVideoX cannot let tiles of {tile} pixels share {overlap}. Let them share a quarter."
                )
        sizes |= {"tile_overlap_factor_height": share, "tile_overlap_factor_width": share}
    else:
        stride = tile - overlap
        sizes |= {"tile_sample_stride_height": stride, "tile_sample_stride_width": stride}
        if is_encoding and NAMES[type(network).__name__] == "wan":
            # Wan 2.2 cuts tiles after it has made channels of 2 x 2 pixels.
            sizes = {name: pixels // (network.config.patch_size or 1) for name, pixels in sizes.items()}
    network.enable_tiling(**sizes)
