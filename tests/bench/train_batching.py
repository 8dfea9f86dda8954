"""Ways to put clips of many lengths into batches: packed, as the trainer does, and padded to the longest clip.

found = ways(tokens, budget)                         # {"packed": [[clip, ...], ...], "padded": ..., "bucketed": ...}
longer, is_real = padded(make_pack(clips, shape))    # a padded batch, and which of its tokens are of clips
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.pack import Pack
from tests.bench.train_sizes import SEED
from train.config import PackingConfig
from train.packing import pack_greedily


def ways(tokens: Sequence[int], budget: int) -> dict[str, list[list[int]]]:
    """Batches of clip numbers by way; `tokens` are those of each clip. Order is random but for `bucketed`."""
    order: list[int] = np.random.default_rng(SEED).permutation(len(tokens)).tolist()
    return {
        "packed": pack_greedily(order, tokens, PackingConfig(budget=budget)),
        "padded": filled(order, tokens, budget),
        "bucketed": filled(sorted(order, key=lambda clip: tokens[clip]), tokens, budget),
    }


def filled(order: Sequence[int], tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of clips in `order`, as many as stay within `budget` when all are as long as the longest."""
    found: list[list[int]] = []
    longest = budget + 1
    for clip in order:
        longest = max(longest, tokens[clip])
        if not found or (len(found[-1]) + 1) * longest > budget:
            found.append([])
            longest = tokens[clip]
        found[-1].append(clip)
    return found


def padded(pack: Pack) -> tuple[Pack, Tensor]:
    """The clips of `pack` all as long as the longest, by repeating their last token; and which tokens are real."""
    longest = max(pack.lengths)
    lengths = torch.tensor(pack.lengths)[:, None]
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(longest)[None]  # (1, longest)
    rows = (starts + torch.minimum(place, lengths - 1)).flatten()
    names = ("tokens", "positions", "places", "cells", "level_index")
    same = (longest,) * len(pack.lengths)
    longer = replace(
        pack, lengths=same, own_lengths=same, **{name: getattr(pack, name)[rows] for name in names}
    )
    return longer, (place < lengths).flatten()
