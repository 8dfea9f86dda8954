"""The packing plan: every clip once an epoch, equal counts per rank, the same from any cursor."""

from collections import Counter

import numpy as np
import pytest

from model.config import PRESETS, DiTConfig
from model.errors import BadInput
from train.config import PackingConfig
from train.flops import train_flops, weights_per_token
from train.packing import Cursor, PackPlan, balanced, pack_greedily, split_into

BUDGET = PackingConfig(budget=1000)
S = PRESETS["S"]


def lengths(count: int = 997) -> list[int]:
    rng = np.random.default_rng(0)
    return np.clip(np.exp(rng.normal(4.5, 0.9, count)).astype(int), 4, 1000).tolist()


def plan_of(n_tokens: list[int], config: PackingConfig = BUDGET, seed: int = 5) -> PackPlan:
    """A plan over clips whose draws do not change their size."""
    return PackPlan(lambda epoch: np.array(n_tokens, np.int64), config, seed, lambda n: train_flops(n, S))


def run(plan: PackPlan, cursor: Cursor, count: int, epochs: int) -> tuple[list[list[list[int]]], Cursor]:
    steps = []
    while cursor.epoch < epochs:
        packs, cursor = plan.step(cursor, count)
        steps.append(packs)
    return steps, cursor


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_every_clip_once_an_epoch_and_equal_counts_per_rank(count: int) -> None:
    plan = plan_of(lengths())
    for epoch in range(2):
        steps, cursor = run(plan, Cursor(epoch), count, epoch + 1)
        assert cursor == Cursor(epoch + 1, 0)
        assert all(len(packs) == count for packs in steps)
        packs = [pack for step in steps for pack in step]
        assert Counter(clip for pack in packs for clip in pack) == dict.fromkeys(range(997), 1)
        assert all(pack for pack in packs)
        assert max(sum(lengths()[clip] for clip in pack) for pack in packs) <= 1000


def test_padding_is_small() -> None:
    n_tokens = lengths(5000)
    packs = pack_greedily(range(5000), n_tokens, PackingConfig(budget=4000))
    used = [sum(n_tokens[clip] for clip in pack) for pack in packs[:-2]]  # the last are remains
    assert 1 - sum(used) / (4000 * len(used)) < 0.01


def test_the_oldest_clip_never_waits_longer_than_its_pool() -> None:
    packs = pack_greedily(range(1000), [600, 300] * 500, PackingConfig(budget=1000, pool=8))
    place = {clip: number for number, pack in enumerate(packs) for clip in pack}
    assert all(place[clip] <= age for age, clip in enumerate(range(1000)))


def test_the_plan_resumes_from_any_cursor() -> None:
    plan = plan_of(lengths())
    cursor, cursors, steps = Cursor(), [], []
    while cursor.epoch < 2:
        cursors.append(cursor)
        packs, cursor = plan.step(cursor, 2)
        steps.append(packs)
    for number in (0, 1, len(steps) // 2 - 1, len(steps) // 2, len(steps) - 1):
        again, _ = run(plan_of(lengths()), cursors[number], 2, 2)
        assert again == steps[number:]


def test_ranks_may_change_between_cursor_and_resume() -> None:
    plan = plan_of(lengths())
    cursor, seen = Cursor(), []
    for count in (1, 2, 3):
        for _ in range(4):
            packs, cursor = plan.step(cursor, count)
            seen += [clip for pack in packs for clip in pack]
    rest, _ = run(plan, cursor, 5, 1)
    seen += [clip for step in rest for pack in step for clip in pack]
    assert sorted(seen) == list(range(997))


def test_seed_and_epoch_change_the_order() -> None:
    first = plan_of(lengths()).epoch(0)
    assert plan_of(lengths()).epoch(0) == first
    assert plan_of(lengths(), seed=6).epoch(0) != first
    assert plan_of(lengths()).epoch(1) != first


def test_fewer_clips_than_ranks_leave_some_empty_handed() -> None:
    assert split_into([[1, 2, 3]], 2) == [[1, 3], [2]]
    assert split_into([[1], [2]], 4) == [[1], [2], [], []]
    packs, cursor = plan_of([500, 600], seed=0).step(Cursor(), 3)
    assert sorted(packs) == [[], [0], [1]]
    assert cursor == Cursor(1, 0)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="1001 tokens"):
        plan_of([10, 1001])
    with pytest.raises(BadInput, match="no clip"):
        plan_of([])
    with pytest.raises(BadInput, match=r"packing.window is 0"):
        PackingConfig(window=0)


def test_flops_by_hand() -> None:
    """A block of width 6: 6 matrices 6 x 6 that tokens pass, 2 of 6 x 8; two ends of 6 x 4."""
    shape = DiTConfig(channels=1, width=6, heads=1, depth=1, ffn=8)
    weights = 6 * 36 + 2 * 48 + 2 * 24
    assert weights_per_token(shape) == weights
    assert train_flops(np.array([1, 10]), shape).tolist() == [6 * weights + 72, 60 * weights + 7200]
    two = DiTConfig(channels=1, width=6, heads=1, depth=2, ffn=8, windows=(1, 2, 2))
    ends = 2 * 6 * 4
    assert train_flops(np.array([10]), two).tolist() == [60 * (2 * weights - ends) + 10 * 4 * 144]


def test_packs_are_ordered_by_their_flops_within_windows() -> None:
    packs = [[0], [1], [2], [3], [4], [5], [6]]
    flops = np.array([3.0, 1.0, 2.0, 5.0, 9.0, 7.0, 4.0])
    assert balanced(packs, flops, 3) == [[1], [2], [0], [4], [5], [3], [6]]  # up, down, up
    assert balanced(packs, flops, 1) == packs
    assert balanced([[0, 1], [2]], flops, 2) == [[2], [0, 1]]  # by their sums
    assert balanced(packs, np.ones(7), 3) == packs


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_ranks_have_like_amounts_of_work(count: int) -> None:
    """Straggler factor: time of the slowest rank over that of an even share, over the steps of an epoch."""
    rng = np.random.default_rng(3)
    n_tokens = np.exp(rng.uniform(np.log(200), np.log(30_000), 20_000)).astype(int).tolist()
    flops = train_flops(np.array(n_tokens), S)

    def straggler(window: int) -> float:
        plan = plan_of(n_tokens, PackingConfig(budget=32_768, window=window))
        steps, _ = run(plan, Cursor(), count, 1)
        work = np.array(
            [[flops[pack].sum() for pack in packs] for packs in steps[:-1]]
        )  # the last are remains
        return work.max(axis=1).sum() / work.mean(axis=1).sum()

    assert straggler(256) <= 1.06
    assert straggler(1) > 1.15


def test_the_sizes_of_clips_may_change_from_epoch_to_epoch() -> None:
    def n_tokens(epoch: int) -> np.ndarray:
        return np.array([400 if (clip >> epoch) % 2 else 600 for clip in range(100)])

    plan = PackPlan(n_tokens, BUDGET, seed=0, flops=np.square)
    for epoch in range(2):
        packs = plan.epoch(epoch)
        assert [sum(n_tokens(epoch)[pack]) for pack in packs] == [1000] * 50
    cursor = Cursor(1, 20)
    assert PackPlan(n_tokens, BUDGET, seed=0, flops=np.square).step(cursor, 3) == plan.step(cursor, 3)
