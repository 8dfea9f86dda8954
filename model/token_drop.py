"""Token dropping for cheaper training: a share of the noisy tokens never enters the transformer.

    pack, kept = drop_tokens(pack, 0.5, generators)      # before pack.to(device)
    loss = error(dit(pack), target[kept])                # the loss is that of the kept tokens

As in MaskDiT (arXiv:2306.09305), without its decoder: the tokens are left out of all blocks, and nothing is asked about
them. What is left keeps its positions, so the same model takes whole clips; a last part of the training without
dropping removes the difference, as it does there. Given tokens (noise level 0) are the condition and always stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.errors import BadInput
from model.pack import Pack


def drop_tokens(pack: Pack, share: float, generators: Sequence[torch.Generator]) -> tuple[Pack, Tensor]:
    """The pack without `share` of each clip's noisy tokens, and the index (S',) of the tokens that are left.

    One generator per clip, so that its draw depends on no other clip; `pack` on the CPU. At least one noisy token of
    a clip stays. Share 0 gives `pack` itself. Raises BadInput for a share that is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of dropped tokens is {share}: give a number from 0 to below 1.")
    if share == 0:
        return pack, torch.arange(len(pack.tokens))
    kept, lengths, own_lengths, start = [], [], [], 0
    for length, own, generator in zip(pack.lengths, pack.own_lengths, generators, strict=True):
        stays = _stays(pack.level_index[start : start + length] != 0, share, generator)
        kept.append(start + stays.nonzero().flatten())
        lengths.append(int(stays.sum()))
        own_lengths.append(int(stays[:own].sum()))
        start += length
    index = torch.cat(kept)
    dropped = replace(
        pack,
        tokens=pack.tokens[index],
        positions=pack.positions[index],
        places=pack.places[index],
        cells=pack.cells[index],
        level_index=pack.level_index[index],
        lengths=tuple(lengths),
        own_lengths=tuple(own_lengths),
    )
    return dropped, index


def _stays(is_noisy: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(n,) bool, false at the tokens to drop."""
    noisy = is_noisy.nonzero().flatten()
    shuffled = noisy[torch.randperm(len(noisy), generator=generator)]
    # `share` below 1 leaves at least one.
    stays = torch.ones(len(is_noisy), dtype=torch.bool)
    stays[shuffled[: int(share * len(noisy))]] = False
    return stays
