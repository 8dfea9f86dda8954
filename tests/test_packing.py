"""The packing plan: every clip once an epoch, equal counts per rank, the same from any cursor."""

from collections import Counter

import numpy as np
import pytest

from model.config import PRESETS, DiTConfig
from model.errors import BadInput
from train.config import PackingConfig
from train.flops import train_flops, weights_per_token
from train.packing import Cursor, PackPlan, balanced, dealt, pack_greedily, shared, shuffled, split_into

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


def test_the_pool_is_256_clips() -> None:
    assert PackingConfig() == PackingConfig(budget=8192, pool=256, window=None)


def test_padding_is_small() -> None:
    n_tokens = lengths(5000)
    packs = pack_greedily(range(5000), n_tokens, PackingConfig(budget=4000))
    used = [sum(n_tokens[clip] for clip in pack) for pack in packs[:-2]]  # the last are remains
    assert 1 - sum(used) / (4000 * len(used)) < 0.01


def test_the_oldest_clip_never_waits_longer_than_its_pool() -> None:
    packs = pack_greedily(range(1000), [600, 300] * 500, PackingConfig(budget=1000, pool=8))
    place = {clip: number for number, pack in enumerate(packs) for clip in pack}
    assert all(place[clip] <= age for age, clip in enumerate(range(1000)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_plan_resumes_from_any_cursor(count: int) -> None:
    """From every cursor of two epochs a new plan gives what was left, to the end."""
    plan, cursor, cursors, steps = plan_of(lengths()), Cursor(), [], []
    while cursor.epoch < 2:
        cursors.append(cursor)
        packs, cursor = plan.step(cursor, count)
        steps.append(packs)
    assert {c.epoch for c in cursors} == {0, 1}
    for number, begin in enumerate(cursors):
        again, end = run(plan_of(lengths()), begin, count, 2)
        assert again == steps[number:]
        assert end == cursor


def test_ranks_may_change_between_cursor_and_resume() -> None:
    plan = plan_of(lengths())
    cursor, seen = Cursor(), []
    for count in (1, 2, 3):
        for _ in range(4):
            packs, cursor = plan.step(cursor, count)
            seen += [clip for pack in packs for clip in pack]
    assert cursor == Cursor(0, 24, 1)
    rest, after = run(plan, cursor, 5, 1)
    seen += [clip for step in rest for pack in step for clip in pack]
    assert sorted(seen) == list(range(997))
    # To its end an epoch keeps the order of the ranks that began it; the next one is that of the new ranks.
    began = plan_of(lengths()).epoch(0, 1)
    assert [clip for pack in began[24:28] for clip in pack] == [clip for pack in rest[0][:4] for clip in pack]
    assert plan.step(after, 5)[0] == plan_of(lengths()).epoch(1, 5)[:5]


def test_seed_and_epoch_change_the_order() -> None:
    first = plan_of(lengths()).epoch(0, 4)
    assert plan_of(lengths()).epoch(0, 4) == first
    assert plan_of(lengths(), seed=6).epoch(0, 4) != first
    assert plan_of(lengths()).epoch(1, 4) != first


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
    plan = plan_of(lengths())
    packs = len(plan.epoch(0, 2))
    for behind in (packs, packs + 30, -1):
        with pytest.raises(
            BadInput, match=rf"pack {behind} of epoch 0 was to come next, but that has {packs} packs"
        ):
            plan.step(Cursor(0, behind, 2), 2)
    for count in (0, -1):
        with pytest.raises(BadInput, match=f"a step of {count} packs"):
            plan.step(Cursor(), count)


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


def test_the_default_window_is_24_steps() -> None:
    for group in (2, 5):
        default = plan_of(lengths()).epoch(0, group)
        assert default == plan_of(lengths(), PackingConfig(budget=1000, window=24 * group)).epoch(0, group)
        assert default != plan_of(lengths(), PackingConfig(budget=1000, window=23 * group)).epoch(0, group)


def test_one_rank_takes_packs_as_they_were_packed() -> None:
    packed = plan_of(lengths()).epoch(0, 1)
    order = np.random.default_rng([5, 0]).permutation(997).tolist()
    assert packed == pack_greedily(order, lengths(), BUDGET)
    assert packed == plan_of(lengths(), PackingConfig(budget=1000, window=1)).epoch(0, 1)


@pytest.mark.parametrize("group", [2, 8])
def test_steps_do_not_go_from_cheap_to_dear(group: int) -> None:
    n_tokens = many()
    flops = train_flops(np.array(n_tokens), S)
    packs = plan_of(n_tokens, PackingConfig(budget=32_768)).epoch(0, group)
    work = [
        sum(flops[pack].sum() for pack in packs[i : i + group]) for i in range(0, len(packs) - group, group)
    ]
    assert len(work) > 200
    # Of steps in a random order neighbours have nothing in common; in sorted windows they have 0.9 and more.
    assert abs(np.corrcoef(work[:-1], work[1:])[0, 1]) < 0.2


def test_groups_are_shuffled_whole_and_within_their_window() -> None:
    packs = [[number] for number in range(26)]
    found = shuffled(packs, 2, 6, np.random.default_rng(0))
    assert found[24:] == [[24], [25]]  # the third window has one group
    groups = [(found[i][0], found[i + 1][0]) for i in range(0, 26, 2)]
    assert all(b == a + 1 and a % 2 == 0 for a, b in groups)
    assert sorted(groups[:6]) == [(a, a + 1) for a in range(0, 12, 2)] != groups[:6]
    assert sorted(groups[6:12]) == [(a, a + 1) for a in range(12, 24, 2)] != groups[6:12]
    assert shuffled(packs[:5], 2, 6, np.random.default_rng(0))[4:] == [[4]]  # half a group


def test_packs_are_dealt_in_a_snake() -> None:
    packs = [[number] for number in range(9)]
    assert dealt(packs, 0, 3) == [[0], [5], [6]]
    assert dealt(packs, 1, 3) == [[1], [4], [7]]
    assert dealt(packs, 2, 3) == [[2], [3], [8]]
    assert dealt(packs, 0, 1) == packs


def test_what_is_left_is_shared_by_its_work() -> None:
    n_tokens = np.array([8, 7, 6, 5, 4])
    # 8; 7; 6; then 5 with the 6 and 4 with the 7.
    found = shared([[0, 1], [2, 3, 4]], 3, n_tokens, n_tokens.astype(float), 15)
    assert found == [[0], [4, 1], [3, 2]]
    assert shared([[0]], 3, n_tokens, n_tokens.astype(float), 15) == [[], [], [0]]
    # Packs that were full cannot be shared so: the 5 would fit neither beside the 8 nor the 7.
    full = [[0, 4], [1, 3]]
    assert shared(full, 2, n_tokens, np.array([5.0, 4, 3, 2, 9]), 12) == full


def many(count: int = 20_000) -> list[int]:
    rng = np.random.default_rng(3)
    return np.exp(rng.uniform(np.log(200), np.log(30_000), count)).astype(int).tolist()


def straggler(n_tokens: list[int], ranks: int, accumulate: int = 1, window: int | None = None) -> float:
    """Time of the slowest rank over that of an even share, over all steps of an epoch."""
    flops = train_flops(np.array(n_tokens), S)
    plan = plan_of(n_tokens, PackingConfig(budget=32_768, window=window))
    steps, _ = run(plan, Cursor(), ranks * accumulate, 1)
    work = np.array(
        [[sum(flops[pack].sum() for pack in dealt(packs, r, ranks)) for r in range(ranks)] for packs in steps]
    )
    return work.max(axis=1).sum() / work.mean(axis=1).sum()


@pytest.mark.parametrize("ranks", [2, 3, 8, 16, 32, 64])
def test_ranks_have_like_amounts_of_work(ranks: int) -> None:
    assert straggler(many(), ranks) <= 1.06
    assert straggler(many(), ranks, window=1) > 1.15


def test_few_clips_are_dealt_as_evenly_as_may_be() -> None:
    """11 steps an epoch, the last of which lacks packs, then 3; with packs sorted and no more it was 1.14."""
    assert straggler(many(500), 8) <= 1.07
    assert straggler(many(500), 2, accumulate=4) <= 1.01
    assert straggler(many(500), 8, accumulate=4) <= 1.04


def test_the_sizes_of_clips_may_change_from_epoch_to_epoch() -> None:
    def n_tokens(epoch: int) -> np.ndarray:
        return np.array([400 if (clip >> epoch) % 2 else 600 for clip in range(100)])

    plan = PackPlan(n_tokens, BUDGET, seed=0, flops=np.square)
    for epoch in range(2):
        packs = plan.epoch(epoch, 1)
        assert [sum(n_tokens(epoch)[pack]) for pack in packs] == [1000] * 50
    cursor = Cursor(1, 20)
    assert PackPlan(n_tokens, BUDGET, seed=0, flops=np.square).step(cursor, 3) == plan.step(cursor, 3)
