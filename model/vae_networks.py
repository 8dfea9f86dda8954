"""Encoder and decoder of the video VAE, the distribution between them, and how far each of them sees.

    moments = Encoder(config)(x)         # x (B, 3, T, H, W) in [-1, 1]  ->  (B, 2·channels, t, h, w)
    y = Decoder(config)(z)               # z (B, channels, t, h, w)      ->  (B, 3, T, H, W)

`reach` tells how much of the surroundings a value depends on; tiles that overlap by it are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.vae_blocks import CausalConv3d, ChannelNorm, Past, ResidualBlock, Upsample, patch, unpatch
from model.vae_config import VAEConfig


@dataclass
class Posterior:
    """A diagonal normal distribution over latents: `mean` and `logvar`, each (B, C, t, h, w).

    The codes of a quantised bottleneck are certain: their `logvar` is None, a sample is the codes themselves.
    """

    mean: Tensor
    logvar: Tensor | None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        if self.logvar is None:
            return self.mean
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Mean over all latent values of the KL divergence from a standard normal, in nats; 0 for codes."""
        if self.logvar is None:
            return self.mean.new_zeros(())
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar).mean()


class Encoder(nn.Module):
    """(B, 3, T, H, W) -> mean and log variance (B, 2·channels, t, h, w); with codes to come, the mean alone."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.patch = config.patch
        self.spatial = config.spatial
        step = (config.temporal, 1, 1)
        self.linear = CausalConv3d(3 * config.spatial**2, config.channels, step, step)
        self.first = CausalConv3d(3 * config.patch**2, widths[0], (1, 3, 3))
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.extend(ResidualBlock(width, width) for _ in range(config.encoder_depth))
            if i < len(widths) - 1:
                time, space = config.strides()[i]
                kernel = (2 * time - 1, 2 * space - 1, 2 * space - 1)  # 3 where it strides, else 1
                self.blocks.append(CausalConv3d(width, widths[i + 1], kernel, (time, space, space)))
        self.norm = ChannelNorm(widths[-1])
        outputs = 2 * config.channels if config.bottleneck == "kl" else config.channels
        self.last = CausalConv3d(widths[-1], outputs, (1, 3, 3))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # it carries most of the picture
            linear = self.linear(
                patch(x.to(self.linear.weight.dtype), self.spatial), past
            )  # (B, channels, t, h, w)
        x = self.first(patch(x, self.patch))  # (B, widths[0], T, H/patch, W/patch)
        for block in self.blocks:
            x = block(x, past)
        x = self.last(F.silu(self.norm(x)))  # (B, channels or 2·channels, t, h, w)
        mean, logvar = x[:, : linear.shape[1]], x[:, linear.shape[1] :]
        return torch.cat([mean + linear, logvar], dim=1)

    def reach(self) -> tuple[int, int]:
        """Pixels before and after its own spatial × spatial block that a latent depends on, in height and width."""
        before = after = 0  # in positions of the level at hand, from the latents back to the pixels
        for layer in reversed([self.first, *self.blocks, self.last]):
            conv = layer.space if isinstance(layer, ResidualBlock) else layer
            kernel, stride = conv.kernel_size[1], conv.stride[1]
            before = before * stride + kernel // 2
            after = after * stride + kernel // 2 - (stride - 1)
        return before * self.patch, after * self.patch


class Decoder(nn.Module):
    """(B, channels, t, h, w) -> (B, 3, T, H, W): the encoder's levels in reverse."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.patch = config.patch
        self.linear = Upsample(config.channels, 3, config.temporal, config.spatial)
        self.first = CausalConv3d(config.channels, widths[-1], (1, 3, 3))
        self.blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            self.blocks.extend(ResidualBlock(widths[i], widths[i]) for _ in range(config.decoder_depth))
            if i > 0:
                self.blocks.append(Upsample(widths[i], widths[i - 1], *config.strides()[i - 1]))
        self.norm = ChannelNorm(widths[0])
        self.last = CausalConv3d(widths[0], 3 * config.patch**2, (1, 3, 3))

    def forward(self, z: Tensor, past: Past | None = None) -> Tensor:
        x = self.first(z)  # (B, widths[-1], t, h, w)
        for block in self.blocks:
            x = block(x, past)
        with torch.autocast(z.device.type, enabled=False):
            linear = self.linear(z.to(self.linear.expand.weight.dtype), past)  # (B, 3, T, H, W)
        return linear + unpatch(self.last(F.silu(self.norm(x))), 1, self.patch)

    def reach(self) -> int:
        """Latents to each side of its own that a pixel depends on, in height and in width."""
        away = 0  # in positions of the level at hand, from the pixels back to the latents
        for layer in reversed([self.first, *self.blocks, self.last]):
            if isinstance(layer, Upsample):
                away = -(-away // layer.space)
            else:
                conv = layer.space if isinstance(layer, ResidualBlock) else layer
                away += conv.kernel_size[1] // 2
        return away
