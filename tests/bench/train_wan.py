"""diffusers' Wan transformer, which ours is measured beside: the same geometry, batches and loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from model.config import DiTConfig
from model.pack import Clip


@dataclass(frozen=True)
class WanBatch:
    """Equal clips as Wan takes them.

    Attributes:
        latents: (B, C, t, h, w).
        levels: (B,) noise levels, 0 to 1.
        texts: (B, L, text_width), filled up with zeros.
        target: like the latents.
    """

    latents: Tensor
    levels: Tensor
    texts: Tensor
    target: Tensor


def wan_of(shape: DiTConfig) -> nn.Module:
    """diffusers' transformer of the same geometry. Raises ImportError where diffusers is not installed."""
    from diffusers import WanTransformer3DModel

    return cast(
        nn.Module,
        WanTransformer3DModel(
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_width,
            in_channels=shape.channels,
            out_channels=shape.channels,
            text_dim=shape.text_width,
            ffn_dim=shape.ffn,
            num_layers=shape.depth,
        ),
    )


def wan_batch(clips: list[Clip], text_tokens: int, device: torch.device) -> WanBatch:
    """`clips`, which are of one size, with texts filled up to `text_tokens`."""
    texts = [clip.text for clip in clips if clip.text is not None]
    filled = torch.zeros(len(clips), text_tokens, texts[0].shape[1])
    for row, text in zip(filled, texts, strict=True):
        row[: len(text)] = text
    latents = torch.stack([clip.latent for clip in clips])
    levels = torch.tensor([clip.t for clip in clips])
    parts = (latents, levels, filled, torch.randn_like(latents))
    return WanBatch(*(part.to(device) for part in parts))


def wan_loss(model: nn.Module, batch: WanBatch) -> Callable[[], Tensor]:
    """The trainer's loss, of diffusers' model."""

    def loss() -> Tensor:
        with torch.autocast(batch.latents.device.type, torch.bfloat16):
            (v,) = model(
                batch.latents, 1000 * batch.levels, batch.texts, return_dict=False
            )  # (B, C, t, h, w)
        return (v.float() - batch.target).square().mean()

    return loss
