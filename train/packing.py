"""Which clips go into which pack at which step: a pure function of (seed, epoch), resumable from any cursor.

    plan = PackPlan(n_tokens, PackingConfig(budget=2048), seed=0, flops=flops)   # n_tokens(epoch), flops(n_tokens)
    packs, after = plan.step(Cursor(), count=world_size * accumulate)    # lists of clip numbers, next cursor

Greedy packing of unlike sequences (NaViT's Patch n' Pack, arXiv:2307.06304): of the `pool` oldest clips in the
epoch's shuffled order, the oldest opens a pack, then always the largest that still fits is added. Every clip is
in exactly one pack of an epoch, and every step gives each rank as many packs as the others.

Packs are equally full, yet not equally much work, since attention grows with the square of a clip's length. So the
packs of a window are put in order of their FLOPs, rising in one window and falling in the next: whatever the number
of ranks, and wherever a step begins, its packs are neighbours in that order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from train.config import PackingConfig

Pack = list[int]


@dataclass(frozen=True)
class Cursor:
    """Where the data stands: `pack` packs of `epoch` have been used. It does not depend on the ranks."""

    epoch: int = 0
    pack: int = 0


class PackPlan:
    """The packs of every epoch."""

    def __init__(
        self,
        n_tokens: Callable[[int], NDArray[np.int64]],
        config: PackingConfig,
        seed: int,
        flops: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    ) -> None:
        """`n_tokens` tells the tokens of each clip in an epoch, `flops` the work that clips of so many tokens are.

        Raises BadInput if there is no clip, or one that is larger than the budget.
        """
        self.n_tokens, self.config, self.seed, self.flops = n_tokens, config, seed, flops
        self._epoch: tuple[int, list[Pack]] | None = None
        self._tokens(0)

    def epoch(self, epoch: int) -> list[Pack]:
        """The packs of an epoch in the order of their steps, each a list of clip numbers sorted by size."""
        if self._epoch is None or self._epoch[0] != epoch:
            n_tokens = self._tokens(epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(n_tokens)).tolist()
            packs = pack_greedily(order, n_tokens.tolist(), self.config)
            packs = balanced(packs, self.flops(n_tokens), self.config.window)
            # The pack of most clips comes last: it can be shared by many ranks if the last step lacks packs.
            longest = max(range(len(packs)), key=lambda i: len(packs[i]))
            packs.append(packs.pop(longest))
            self._epoch = epoch, packs
        return self._epoch[1]

    def _tokens(self, epoch: int) -> NDArray[np.int64]:
        n_tokens = self.n_tokens(epoch)
        if not len(n_tokens):
            raise BadInput("there is no clip to train on: the latents table is empty or all its rows failed.")
        if (most := int(n_tokens.max())) > self.config.budget:
            raise BadInput(
                f"a clip has {most} tokens, more than fit a pack: raise --packing.budget from "
                f"{self.config.budget}, or encode shorter or smaller clips."
            )
        return n_tokens

    def step(self, cursor: Cursor, count: int) -> tuple[list[Pack], Cursor]:
        """The next `count` packs and the cursor behind them.

        At the end of an epoch the packs that are left are split so that there are `count` of them; only if they
        hold fewer than `count` clips are some packs empty.
        """
        packs, end = self.epoch(cursor.epoch), cursor.pack + count
        if end < len(packs):
            return packs[cursor.pack : end], Cursor(cursor.epoch, end)
        return split_into(packs[cursor.pack :], count), Cursor(cursor.epoch + 1, 0)


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
        place = bisect_left(by_size, chosen)
        while place >= 0:
            size, taken = by_size.pop(place)
            pack.append(by_age.pop(taken))
            room -= size
            place = bisect_right(by_size, (room, age)) - 1
        # Clips of one length lie together: attention takes them as one batch without copying.
        packs.append(sorted(pack, key=lambda clip: (n_tokens[clip], clip)))


def balanced(packs: list[Pack], flops: NDArray[np.float64], window: int) -> list[Pack]:
    """`packs` in windows, each sorted by the sum of its clips' `flops`: up, down, up, ..."""
    sums = np.array([flops[pack].sum() for pack in packs])
    ordered: list[Pack] = []
    for number, start in enumerate(range(0, len(packs), window)):
        sign = -1 if number % 2 else 1
        ranking = np.argsort(sign * sums[start : start + window], kind="stable")
        ordered += [packs[start + place] for place in ranking.tolist()]
    return ordered


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
