"""The parts of the diffusion transformer, in the order of Wan 2.1's: over packed tokens (S, D).

Every block: self-attention within clips, cross-attention to the text, feed-forward. Self-attention and
feed-forward are shifted, scaled and gated by the noise level of each token (adaLN-Zero, DiT, arXiv:2212.09748):
one time network for all blocks, one learned table per block (PixArt-alpha, arXiv:2310.00426).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attention
from model.layout import Layout
from model.rope import Rotation, rotate
from model.sequence import Sequence

EPS = 1e-6


def level_features(levels: Tensor, width: int = 256) -> Tensor:
    """Noise levels (K,) in [0, 1] -> (K, width): cosines, then sines, of 1000·t at geometric frequencies."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=levels.device) / half)
    angles = 1000 * levels.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class RMSNorm(nn.RMSNorm):
    """In full precision, whatever the precision of what comes in or of the weights (train/parallel.py)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps)


class LayerNorm(nn.LayerNorm):
    """Likewise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


class LevelEmbedding(nn.Module):
    """Noise levels (K,) -> one embedding (K, D), and the modulation (K, 6, D) that all blocks share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, levels: Tensor, pooled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`pooled` (K - 1, D) is added to all but the first level, which is that of what is given."""
        # In full precision even under autocast: few rows, and what they say scales every token of every block.
        with torch.autocast(levels.device.type, enabled=False):
            embedding = self.mlp(level_features(levels))  # (K, D)
            if pooled is not None:
                embedding = embedding + F.pad(pooled.float(), (0, 0, 1, 0))
            return embedding, self.modulation(F.silu(embedding)).unflatten(1, (6, -1))


class SelfAttention(nn.Module):
    """Attention within clips or windows, RMS norm on queries and keys over all heads together, rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = RMSNorm(width, EPS), RMSNorm(width, EPS)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, rotation: Rotation, layout: Layout, sequence: Sequence | None = None
    ) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (S, D) each
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))  # (S, H, d)
        attend = attention if sequence is None else sequence.attend
        y = attend(rotate(q, rotation), rotate(k, rotation), v, layout)
        return self.out(y.flatten(-2))  # (S, D)


class CrossAttention(nn.Module):
    """Attention of a clip's tokens to its own text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.norm_q, self.norm_k = RMSNorm(width, EPS), RMSNorm(width, EPS)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, layout: Layout, sequence: Sequence | None = None) -> Tensor:
        k, v = self.kv(text).chunk(2, dim=-1)  # (L, D) each
        q, k = self.norm_q(self.q(x)).to(v.dtype), self.norm_k(k).to(v.dtype)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
        attend = attention if sequence is None else sequence.attend_to
        return self.out(attend(q, k, v, layout).flatten(-2))  # (S, D)


class Block(nn.Module):
    """One layer of the transformer."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.self_attention = SelfAttention(width, heads)
        self.norm_cross = LayerNorm(width, EPS)
        self.cross_attention = CrossAttention(width, heads)
        self.norm_ffn = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, width))
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(
        self,
        x: Tensor,  # (S, D)
        modulation: Tensor,  # (K, 6, D)
        level_index: Tensor,  # (S,)
        rotation: Rotation,
        layout: Layout,
        text: Tensor,  # (L, D)
        text_layout: Layout,
        sequence: Sequence | None = None,
    ) -> Tensor:
        """With a `sequence`, x, level_index and rotation are of this process' stretch of the S tokens."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
            F.embedding(level_index, m) for m in (modulation + self.table).unbind(1)
        )  # (S, D) each
        y = self.norm_self(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.self_attention(y, rotation, layout, sequence)
        x = x + self.cross_attention(self.norm_cross(x), text, text_layout, sequence)
        y = self.norm_ffn(x) * (1 + scale_f) + shift_f
        return x + gate_f * self.ffn(y)


class Head(nn.Module):
    """The last layer: norm, shifted and scaled by the noise level, then back to latent values."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.table = nn.Parameter(torch.zeros(2, width))
        self.out = nn.Linear(width, token_width)

    def forward(self, x: Tensor, embedding: Tensor, level_index: Tensor) -> Tensor:
        shift, scale = (F.embedding(level_index, m) for m in (embedding[:, None] + self.table).unbind(1))
        return self.out(self.norm(x) * (1 + scale) + shift)  # (S, token_width)
