"""Synthetic clips with their texts, and batches of them as the trainer makes them, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import DiTConfig
from model.pack import Clip, make_pack
from model.patches import Size
from tests.bench.packing import library
from tests.bench.train_batching import padded
from tests.bench.train_sizes import SEED, Scale
from train.batch import Batch, n_tokens


class Maker:
    """Makes clips and batches; everything is drawn from one seed."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self._scale, self._device = scale, device
        self._numbers = np.random.default_rng(SEED)
        self._generator = torch.Generator().manual_seed(SEED)

    def clips(self, sizes: Sequence[Size], shape: DiTConfig) -> list[Clip]:
        """Noise of these sizes, each with a text and at a level of its own."""
        few, most = self._scale.texts
        return [
            Clip(
                latent=self._normal(shape.channels, *size),
                fps=16.0 if size[0] > 1 else None,
                text=self._normal(int(self._numbers.integers(few, most, endpoint=True)), shape.text_width),
                t=float(self._numbers.random()),
            )
            for size in sizes
        ]

    def many_lengths(self, shape: DiTConfig) -> list[Clip]:
        """Clips of the sizes that the benchmark of packing draws, smaller where the scale says so."""
        shrink = self._scale.shrink
        found = library(self._scale.library, self._scale.budget * shrink**2)
        sizes = [
            (t, 2 * max(1, h // 2 // shrink), 2 * max(1, w // 2 // shrink))
            for t, h, w in (c.size for c in found)
        ]
        return self.clips(sizes, shape)

    def batch(self, clips: list[Clip], shape: DiTConfig, *, is_padded: bool = False) -> Batch:
        """A batch as the trainer's, on the device."""
        pack = make_pack(clips, shape)
        is_real = torch.ones(len(pack.tokens), dtype=torch.bool)
        if is_padded:
            pack, is_real = padded(pack)
        batch = Batch(
            pack=pack,
            target=self._normal(len(pack.tokens), shape.token_width),
            is_generated=is_real,
            mode=torch.zeros(len(is_real), dtype=torch.long),
            level=pack.levels[pack.level_index],
            generated=(int(is_real.sum()),),
            captions=(),
            conditions=(),
            clip_ids=(),
            damaged=(),
        )
        return batch.to(self._device)

    def equal(self, size: Size, tokens: int, shape: DiTConfig) -> Batch:
        """As many clips of `size` as fit `tokens`, one at least."""
        return self.batch(self.clips([size] * max(1, tokens // n_tokens(size, shape)), shape), shape)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)
