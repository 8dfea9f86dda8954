"""Finite scalar quantisation: each latent channel rounded to one of a few levels, in place of a codebook.

    fsq = FSQ((8, 8, 8, 5, 5, 5))            # 64000 codes
    codes = fsq(z)                           # (B, 6, t, h, w), any values -> codes in [-1, 1], gradient passes
    numbers = fsq.indices(codes)             # (B, t, h, w) int64 in [0, 64000)
    assert torch.equal(fsq.codes(numbers), codes)

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv:2309.15505. There is nothing to learn here
and no term in the loss; `utilisation` tells how much of the codebook a set of clips uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import BadInput

# The outermost levels are reached at a finite value: the bound lies this share beyond halfway to the last one.
_SLACK = 1e-3


@dataclass(frozen=True)
class Utilisation:
    """How much of a codebook a set of indices uses.

    Attributes:
        used: share of all codes that occur at least once.
        perplexity: exp of the entropy of the codes in nats: as many codes used evenly would tell as much.
        per_channel: for each channel, the share of its levels that occur.
    """

    used: float
    perplexity: float
    per_channel: tuple[float, ...]


class FSQ(nn.Module):
    """Rounds channel i to `levels[i]` values, evenly spread over [-1, 1] (an even number of them ends before 1)."""

    level_counts: Tensor
    place_values: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2 or math.prod(levels) >= 1 << 62:
            raise BadInput(
                f"FSQ: levels {levels} make no codebook. Give 2 or more for each latent channel and fewer than "
                "2^62 codes in all, for example (8, 8, 8, 5, 5, 5)."
            )
        self.levels = tuple(levels)
        # Not saved: the config tells them.
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("level_counts", torch.tensor(levels), persistent=False)
        self.register_buffer("place_values", torch.tensor(places), persistent=False)

    @property
    def size(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, C, ...) of any values -> the nearest codes; gradients pass as if nothing were rounded."""
        bounded = self._bound(z)
        return (bounded + (bounded.round() - bounded).detach()) / self._half(z)

    def nearest(self, codes: Tensor) -> Tensor:
        """The codes nearest to (B, C, ...) that are almost codes, as after storing them in 16 bits or sampling."""
        return self._codes(self._digits(codes), codes)

    def indices(self, codes: Tensor) -> Tensor:
        """Codes (B, C, ...) -> their numbers (B, ...) in [0, size), int64; the first channel counts ones."""
        return (self._digits(codes) * self._broadcast(self.place_values, codes)).sum(dim=1)

    def codes(self, indices: Tensor) -> Tensor:
        """Numbers (B, ...) in [0, size) -> codes (B, C, ...), float32. Raises BadInput for others."""
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < self.size:
            raise BadInput(
                f"FSQ: indices must be from 0 to {self.size - 1}, got {int(indices.min())} to {int(indices.max())}. "
                "They belong to a VAE with other levels."
            )
        spread = indices.unsqueeze(1)
        digits = (
            spread // self._broadcast(self.place_values, spread) % self._broadcast(self.level_counts, spread)
        )
        return self._codes(digits, torch.empty(0, dtype=torch.float32, device=indices.device))

    def utilisation(self, indices: Tensor) -> Utilisation:
        """Which share of the codebook the `indices` (of any shape, at least one) use."""
        found, counts = torch.unique(indices, return_counts=True)
        share = counts.double() / counts.sum()
        digits = self._digits(self.codes(found))  # (codes found, C)
        per_channel = tuple(len(torch.unique(digits[:, i])) / count for i, count in enumerate(self.levels))
        return Utilisation(
            used=len(found) / self.size,
            perplexity=math.exp(-(share * share.log()).sum().item()),
            per_channel=per_channel,
        )

    def _bound(self, z: Tensor) -> Tensor:
        """Into a range that rounds to exactly `levels` integers; an even number of them is shifted by a half."""
        counts = self._broadcast(self.level_counts, z)
        half = (counts - 1) * (1.0 - _SLACK) / 2.0
        offset = (counts % 2 == 0) * 0.5
        return torch.tanh(z + torch.tan(offset / half)) * half - offset

    def _digits(self, codes: Tensor) -> Tensor:
        """Codes (B, C, ...) -> 0 to levels - 1 of each channel, int64."""
        half, counts = self._half(codes), self._broadcast(self.level_counts, codes)
        digits = (codes * half).round().long() + half
        return torch.minimum(digits.clamp_min(0), counts - 1)

    def _codes(self, digits: Tensor, like: Tensor) -> Tensor:
        half = self._half(digits)
        return (digits - half).to(like) / half

    def _half(self, like: Tensor) -> Tensor:
        return self._broadcast(self.level_counts // 2, like)

    def _broadcast(self, values: Tensor, like: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (like.ndim - 2))
