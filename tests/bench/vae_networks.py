"""The networks that the VAE benchmark compares: ours, and diffusers' Wan VAE of equal width.

    coder = build(Setup(PRESETS["base"], is_wan=True))      # Wan 2.1 itself, with random weights
    z = coder.encode(x)                                     # x (B, 3, T, H, W) in [-1, 1] -> (B, 16, t, h, w)
    y = coder.decode(z)                                     # and back, in [-1, 1]

Equal width means: the residual blocks have the same numbers of channels, from pixels to latents, and each level
has as many of them. Wan has one level more, which repeats our last width, a middle with attention, and kernels of
3 × 3 × 3. Its first level works on pixels, ours on patches of them: that is a choice of ours, not of width, and
`flops_per_frame` says what it saves. Wan of base's width is Wan 2.1 (base_dim 96, multiples 1, 2, 4, 4, two blocks
a level); Wan of tiny's (48, 96, 128) has base_dim 16, multiples 3, 6, 8, 8 and one block a level. The decoders
have one block a level more. Where ours has fewer blocks there than that, Wan has fewer in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.errors import BadInput
from model.vae import VideoVAE, load_vae
from model.vae_blocks import ResidualBlock
from model.vae_config import VAEConfig

WAN_LEVELS = 4  # three halvings in space
Direction = Literal["encode", "decode"]
DIRECTIONS: tuple[Direction, ...] = ("encode", "decode")


@dataclass(frozen=True)
class Setup:
    """One network in one manner of working.

    Attributes:
        config: shape of ours; Wan's is derived from it.
        folder: weights of ours; null for random ones, which Wan's always are.
        is_wan: diffusers' Wan of equal width in the place of ours.
        chunk: latent frames at a time, for ours; null for all. Wan always takes one.
        tile: pixels at a time in height and in width, for ours; null for all.
        device: cpu or cuda.
        precision: fp32 or bf16.
    """

    config: VAEConfig
    folder: str | None = None
    is_wan: bool = False
    chunk: int | None = None
    tile: int | None = None
    device: str = "cpu"
    precision: str = "fp32"


class Ours:
    """Our VAE. In bf16 it runs under autocast, since part of it has to stay exact."""

    def __init__(self, setup: Setup, network: VideoVAE) -> None:
        self.setup, self.network = setup, network

    def encode(self, x: Tensor) -> Tensor:
        with self.precision():
            return self.network.encode(x, self.setup.chunk, self.setup.tile).mean

    def decode(self, z: Tensor) -> Tensor:
        with self.precision():  # Wan clamps as well
            return self.network.decode(z, self.setup.chunk, self.setup.tile).clamp(-1.0, 1.0)

    def precision(self) -> torch.autocast:
        return torch.autocast(self.setup.device, torch.bfloat16, enabled=self.setup.precision == "bf16")


class Wan:
    """Wan's VAE in its own chunks of four frames. In bf16 its weights are converted, which is its fastest way."""

    def __init__(self, setup: Setup, network: Any) -> None:
        self.dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
        self.network = network.bfloat16() if setup.precision == "bf16" else network

    def encode(self, x: Tensor) -> Tensor:
        return self.network.encode(x.to(self.dtype)).latent_dist.mean

    def decode(self, z: Tensor) -> Tensor:
        return self.network.decode(z.to(self.dtype)).sample


def build(setup: Setup) -> Ours | Wan:
    """The network on its device, in evaluation mode. Raises BadInput if there is no Wan of that shape."""
    torch.manual_seed(0)
    if setup.folder is not None and not setup.is_wan:
        return Ours(setup, load_vae(setup.folder).to(setup.device))
    network = _untrained(setup)
    for parameter in network.parameters():
        if not parameter.any():  # what starts at 0 would hide what comes through it
            nn.init.normal_(parameter, std=0.02)
    network = network.to(setup.device)
    return Wan(setup, network) if setup.is_wan else Ours(setup, network)


def wan_config(config: VAEConfig) -> dict[str, Any]:
    """Arguments of AutoencoderKLWan for the width of `config`. Raises BadInput if Wan has no such shape."""
    widths = (*config.widths, *[config.widths[-1]] * (WAN_LEVELS - len(config.widths)))
    if (config.temporal, config.spatial) != (4, 8) or len(widths) != WAN_LEVELS:
        raise BadInput(
            f"Wan compresses 4×8×8 in {WAN_LEVELS} levels, and {config.name} 1/{config.temporal} in time and "
            f"1/{config.spatial} in space in {len(config.widths)}. Give a VAE of 4×8×8 with at most "
            f"{WAN_LEVELS} widths."
        )
    base = math.gcd(*widths)
    return {
        "base_dim": base,
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": max(1, min(config.encoder_depth, config.decoder_depth - 1)),
        "temperal_downsample": [False, True, True],
        "z_dim": config.channels,
        "latents_mean": [0.0] * config.channels,
        "latents_std": [1.0] * config.channels,
    }


def facts(setup: Setup, frames: int, height: int, width: int) -> dict[str, Any]:
    """Widths, parameters, and arithmetic per frame of a clip of that size; its pictures are never computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    setup = replace(setup, folder=None, device="cpu", chunk=None, tile=None, precision="fp32")
    network = _untrained(setup)
    coder = Wan(setup, network) if setup.is_wan else Ours(setup, network)
    t = (frames - 1) // setup.config.temporal + 1
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = torch.empty(1, 3, frames, height, width)
        z = torch.empty(1, setup.config.channels, t, height // 8, width // 8)
        return {
            "widths": _widths(network),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "encode_gflop_per_frame": _flops(lambda: coder.encode(x)) / frames / 1e9,
            "decode_gflop_per_frame": _flops(lambda: coder.decode(z)) / frames / 1e9,
        }


def _flops(run: Callable[[], Tensor]) -> int:
    """Operations of convolutions and matrix products; a product and its sum are two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _untrained(setup: Setup) -> Any:
    if not setup.is_wan:
        return VideoVAE(setup.config).eval().requires_grad_(False)
    from diffusers import AutoencoderKLWan

    network: nn.Module = AutoencoderKLWan(**wan_config(setup.config))  # type: ignore[assignment]
    return network.eval().requires_grad_(False)


def _widths(network: Any) -> list[int]:
    """Channels of the encoder's residual blocks, from pixels to latents, each once."""
    found = [
        block.space.out_channels if isinstance(block, ResidualBlock) else block.conv2.out_channels
        for block in network.encoder.modules()
        if isinstance(block, ResidualBlock) or type(block).__name__ == "WanResidualBlock"
    ]
    return list(dict.fromkeys(found))
