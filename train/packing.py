"""Which clips go into which pack at which step: a pure function of (seed, epoch), resumable from any cursor.

    plan = PackPlan(n_tokens, PackingConfig(budget=2048), seed=0, flops=flops)   # n_tokens(epoch), flops(n_tokens)
    packs, after = plan.step(Cursor(), count=world_size * accumulate)    # lists of clip numbers, next cursor
    mine = dealt(packs, rank, world_size)

Greedy packing of unlike sequences (NaViT's Patch n' Pack, arXiv:2307.06304): of the `pool` oldest clips in the
epoch's shuffled order, the oldest opens a pack, then always the largest that still fits is added. Every clip is
in exactly one pack of an epoch, and every step gives each rank as many packs as the others.

Packs are equally full, yet not equally much work, since attention grows with the square of a clip's length. So the
packs of a window are put in order of their FLOPs and cut into groups of neighbours, one for each step; the groups are
then shuffled, so that a run does not go from cheap to dear packs. How many packs a group has is fixed by the ranks that
begin an epoch, and goes with the cursor: a run that is resumed on other ranks keeps the packs and their order to the
end of that epoch, though a step may then take more than one group, or half of one.
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

#: Steps in a window: so many times as many packs as a step takes are put in order together.
WINDOW = 24


@dataclass(frozen=True)
class Cursor:
    """Where the data stands.

    Attributes:
        epoch: number of the epoch.
        pack: how many of its packs have been used.
        group: packs per step for which the epoch was put in order; null before its first step.
    """

    epoch: int = 0
    pack: int = 0
    group: int | None = None


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
        self._epoch: tuple[tuple[int, int], list[Pack]] | None = None
        self._tokens(0)

    def epoch(self, epoch: int, group: int) -> list[Pack]:
        """The packs of an epoch in the order of their steps of `group`, each a list of clip numbers sorted by size."""
        if self._epoch is None or self._epoch[0] != (epoch, group):
            n_tokens = self._tokens(epoch)
            rng = np.random.default_rng([self.seed, epoch])
            packs = pack_greedily(rng.permutation(len(n_tokens)).tolist(), n_tokens.tolist(), self.config)
            # Where the last step lacks packs, those of most clips are left for it: they can be shared by all ranks.
            by_clips = sorted(range(len(packs)), key=lambda i: len(packs[i]))
            over = by_clips[len(packs) - len(packs) % group :]
            last = [packs[i] for i in over]
            packs = [packs[i] for i in sorted(by_clips[: len(packs) - len(over)])]
            window = self.config.window or WINDOW * group
            if min(group, window) > 1:
                packs = balanced(packs, self.flops(n_tokens), window)
                packs = shuffled(packs, group, max(1, window // group), rng)
            self._epoch = (epoch, group), packs + last
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

        At the end of an epoch the clips that are left are shared out so that there are `count` packs; only if they
        are fewer than `count` are some packs empty. Raises BadInput for a cursor behind the end of its epoch.
        """
        if count < 1:
            raise BadInput(f"a step of {count} packs was asked for: ranks x accumulate must be 1 or more.")
        group = cursor.group or count
        packs, end = self.epoch(cursor.epoch, group), cursor.pack + count
        if not 0 <= cursor.pack < len(packs):
            raise BadInput(
                f"pack {cursor.pack} of epoch {cursor.epoch} was to come next, but that has {len(packs)} packs: the "
                "clips, or how they are packed, are others than when the run stood there. Begin a new run (--out)."
            )
        if end < len(packs):
            return packs[cursor.pack : end], Cursor(cursor.epoch, end, group)
        n_tokens = self._tokens(cursor.epoch)
        rest = shared(packs[cursor.pack :], count, n_tokens, self.flops(n_tokens), self.config.budget)
        return rest, Cursor(cursor.epoch + 1, 0)


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


def shuffled(packs: list[Pack], group: int, groups: int, rng: np.random.Generator) -> list[Pack]:
    """`packs` with groups of `group` neighbours in a random order, `groups` at a time; those over stay last."""
    whole = len(packs) // group
    starts = [group * i for first in range(0, whole, groups) for i in _order(first, groups, whole, rng)]
    return [pack for start in starts for pack in packs[start : start + group]] + packs[group * whole :]


def _order(first: int, count: int, end: int, rng: np.random.Generator) -> list[int]:
    return (first + rng.permutation(min(count, end - first))).tolist()


def dealt(packs: list[Pack], rank: int, ranks: int) -> list[Pack]:
    """The packs of a step that `rank` takes: one of each row of `ranks`, every other row being dealt backwards.

    So whoever has the cheapest of one row has the dearest of the next.
    """
    rows = [packs[start : start + ranks] for start in range(0, len(packs), ranks)]
    return [row[-1 - rank if number % 2 else rank] for number, row in enumerate(rows)]


def shared(
    packs: list[Pack], count: int, n_tokens: NDArray[np.int64], flops: NDArray[np.float64], budget: int
) -> list[Pack]:
    """The clips of `packs` in `count` packs of like work, `count` being no less; empty ones where there is no clip.

    Each clip, the dearest first, goes to the pack with least work so far. Where one then fits nowhere, which is
    possible in packs that were nearly full, the longest are halved instead.
    """
    clips = sorted((clip for pack in packs for clip in pack), key=lambda clip: (-flops[clip], clip))
    found: list[Pack] = [[] for _ in range(count)]
    work, room = [0.0] * count, [budget] * count
    for clip in clips:
        fitting = [i for i in range(count) if n_tokens[clip] <= room[i]]
        if not fitting:
            return split_into(packs, count)
        least = min(fitting, key=lambda i: work[i])
        found[least].append(clip)
        work[least] += float(flops[clip])
        room[least] -= int(n_tokens[clip])
    # In order of their work, as the packs of other steps.
    return [
        sorted(found[i], key=lambda clip: (n_tokens[clip], clip))
        for i in sorted(range(count), key=lambda i: work[i])
    ]


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
