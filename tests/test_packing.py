"""The packing plan: every clip once an epoch, equal counts per rank, the same from any cursor."""

from collections import Counter

import numpy as np
import pytest

from model.errors import BadInput
from train.config import PackingConfig
from train.packing import Cursor, PackPlan, split_into

BUDGET = PackingConfig(budget=1000)


def lengths(count: int = 997) -> list[int]:
    rng = np.random.default_rng(0)
    return np.clip(np.exp(rng.normal(4.5, 0.9, count)).astype(int), 4, 1000).tolist()


def run(plan: PackPlan, cursor: Cursor, count: int, epochs: int) -> tuple[list[list[list[int]]], Cursor]:
    steps = []
    while cursor.epoch < epochs:
        packs, cursor = plan.step(cursor, count)
        steps.append(packs)
    return steps, cursor


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_every_clip_once_an_epoch_and_equal_counts_per_rank(count: int) -> None:
    plan = PackPlan(lengths(), BUDGET, seed=5)
    for epoch in range(2):
        steps, cursor = run(plan, Cursor(epoch), count, epoch + 1)
        assert cursor == Cursor(epoch + 1, 0)
        assert all(len(packs) == count for packs in steps)
        packs = [pack for step in steps for pack in step]
        assert Counter(clip for pack in packs for clip in pack) == dict.fromkeys(range(997), 1)
        assert all(pack for pack in packs)
        assert max(sum(plan.n_tokens[clip] for clip in pack) for pack in packs) <= 1000


def test_padding_is_small() -> None:
    plan = PackPlan(lengths(5000), PackingConfig(budget=4000), seed=0)
    used = [sum(plan.n_tokens[clip] for clip in pack) for pack in plan.epoch(0)[:-2]]  # the last are remains
    assert 1 - sum(used) / (4000 * len(used)) < 0.01


def test_the_oldest_clip_never_waits_longer_than_its_pool() -> None:
    order_free = PackPlan([600, 300] * 500, PackingConfig(budget=1000, pool=8), seed=0)
    packs = order_free.epoch(0)
    place = {clip: number for number, pack in enumerate(packs) for clip in pack}
    order = np.random.default_rng([0, 0]).permutation(1000).tolist()
    last = len(packs) - 1  # which is the longest pack, moved there
    assert all(place[clip] <= age or place[clip] == last for age, clip in enumerate(order))


def test_the_plan_resumes_from_any_cursor() -> None:
    plan = PackPlan(lengths(), BUDGET, seed=5)
    cursor, cursors, steps = Cursor(), [], []
    while cursor.epoch < 2:
        cursors.append(cursor)
        packs, cursor = plan.step(cursor, 2)
        steps.append(packs)
    for number in (0, 1, len(steps) // 2 - 1, len(steps) // 2, len(steps) - 1):
        again, _ = run(PackPlan(lengths(), BUDGET, seed=5), cursors[number], 2, 2)
        assert again == steps[number:]


def test_ranks_may_change_between_cursor_and_resume() -> None:
    plan = PackPlan(lengths(), BUDGET, seed=5)
    cursor, seen = Cursor(), []
    for count in (1, 2, 3):
        for _ in range(4):
            packs, cursor = plan.step(cursor, count)
            seen += [clip for pack in packs for clip in pack]
    rest, _ = run(plan, cursor, 5, 1)
    seen += [clip for step in rest for pack in step for clip in pack]
    assert sorted(seen) == list(range(997))


def test_seed_and_epoch_change_the_order() -> None:
    first = PackPlan(lengths(), BUDGET, seed=5).epoch(0)
    assert PackPlan(lengths(), BUDGET, seed=5).epoch(0) == first
    assert PackPlan(lengths(), BUDGET, seed=6).epoch(0) != first
    assert PackPlan(lengths(), BUDGET, seed=5).epoch(1) != first


def test_fewer_clips_than_ranks_leave_some_empty_handed() -> None:
    assert split_into([[1, 2, 3]], 2) == [[1, 3], [2]]
    assert split_into([[1], [2]], 4) == [[1], [2], [], []]
    packs, cursor = PackPlan([500, 600], BUDGET, seed=0).step(Cursor(), 3)
    assert sorted(packs) == [[], [0], [1]]
    assert cursor == Cursor(1, 0)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="1001 tokens"):
        PackPlan([10, 1001], BUDGET, seed=0)
    with pytest.raises(BadInput, match="no clip"):
        PackPlan([], BUDGET, seed=0)
