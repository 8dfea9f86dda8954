"""Which clips go into which pack at which step: a pure function of (seed, epoch), resumable from any cursor.

    plan = PackPlan(n_tokens, PackingConfig(budget=2048), seed=0)
    packs, after = plan.step(Cursor(), count=world_size * accumulate)    # lists of clip numbers, next cursor

Greedy packing of unlike sequences (NaViT's Patch n' Pack, arXiv:2307.06304): of the `pool` oldest clips in the
epoch's shuffled order, the oldest opens a pack, then always the largest that still fits is added. Every clip is
in exactly one pack of an epoch, and every step gives each rank as many packs as the others.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import BadInput
from train.config import PackingConfig

Pack = list[int]


@dataclass(frozen=True)
class Cursor:
    """Where the data stands: `pack` packs of `epoch` have been used. It does not depend on the ranks."""

    epoch: int = 0
    pack: int = 0


class PackPlan:
    """The packs of every epoch over clips of `n_tokens` tokens each."""

    def __init__(self, n_tokens: Sequence[int], config: PackingConfig, seed: int) -> None:
        """Raises BadInput if there is no clip, or one that is larger than the budget."""
        if not n_tokens:
            raise BadInput("there is no clip to train on: the latents table is empty or all its rows failed.")
        if max(n_tokens) > config.budget:
            raise BadInput(
                f"a clip has {max(n_tokens)} tokens, more than fit a pack: raise --packing.budget from "
                f"{config.budget}, or encode shorter or smaller clips."
            )
        self.n_tokens, self.config, self.seed = list(n_tokens), config, seed
        self._epoch: tuple[int, list[Pack]] | None = None

    def epoch(self, epoch: int) -> list[Pack]:
        """The packs of an epoch, each a list of clip numbers sorted by size."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.n_tokens)).tolist()
            packs = pack_greedily(order, self.n_tokens, self.config)
            # The pack of most clips comes last: it can be shared by many ranks if the last step lacks packs.
            longest = max(range(len(packs)), key=lambda i: len(packs[i]))
            packs.append(packs.pop(longest))
            self._epoch = epoch, packs
        return self._epoch[1]

    def step(self, cursor: Cursor, count: int) -> tuple[list[Pack], Cursor]:
        """The next `count` packs and the cursor behind them.

        At the end of an epoch the packs that are left are split so that there are `count` of them; only if they
        hold fewer than `count` clips are some packs empty.
        """
        packs = self.epoch(cursor.epoch)[cursor.pack :]
        if len(packs) > count:
            return packs[:count], Cursor(cursor.epoch, cursor.pack + count)
        return split_into(packs, count), Cursor(cursor.epoch + 1, 0)


def pack_greedily(order: Sequence[int], n_tokens: Sequence[int], config: PackingConfig) -> list[Pack]:
    """Packs of at most `config.budget` tokens holding every clip of `order` once."""
    waiting = iter(order)
    # The pool twice: by age, and sorted by (tokens, age) to find the largest that fits.
    by_age: dict[int, int] = {}  # age -> clip, oldest first
    by_size: list[tuple[int, int]] = []
    packs: list[Pack] = []
    age = 0
    while True:
        while len(by_age) < config.pool and (clip := next(waiting, None)) is not None:
            by_age[age] = clip
            insort(by_size, (n_tokens[clip], age))
            age += 1
        if not by_age:
            return packs
        oldest = next(iter(by_age))
        room = config.budget
        chosen = (n_tokens[by_age[oldest]], oldest)
        pack: Pack = []
        place = by_size.index(chosen)
        while place >= 0:
            size, taken = by_size.pop(place)
            pack.append(by_age.pop(taken))
            room -= size
            place = bisect_right(by_size, (room, age)) - 1
        # Clips of one length lie together: attention takes them as one batch without copying.
        packs.append(sorted(pack, key=lambda clip: (n_tokens[clip], clip)))


def split_into(packs: list[Pack], count: int) -> list[Pack]:
    """`packs`, the longest halved again and again until there are `count`; empty ones when nothing is left to halve."""
    packs = list(packs)
    while len(packs) < count:
        longest = max(range(len(packs)), key=lambda i: len(packs[i]))
        pack = packs[longest]
        if len(pack) < 2:
            packs.append([])
            continue
        packs[longest] = pack[::2]
        packs.append(pack[1::2])
    return packs
