"""What training gives a model beside the text: by share, exactly as planned, unchanged, without loss."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_latents import CHANNELS, TEXT_WIDTH, random_clips, random_given, write_latents

from model.config import DiTConfig, SizeConfig
from model.errors import BadInput
from model.flow import draw_time, mix, shift_for
from model.patches import patchify
from train.batch import Batch, make_batch, token_errors
from train.conditions import MODES, ClipTable, Condition, draw_conditions, hashed, splitmix
from train.config import ConditionMix, OptimConfig, PackingConfig, TrainConfig, ValidationConfig
from train.data import ClipEntry, LatentDataset
from train.draws import draw_clip
from train.feed import Feed
from train.loop import train
from train.packing import Cursor, PackPlan

SHAPE = DiTConfig(text_width=TEXT_WIDTH)
CONFIG = TrainConfig(dataset="", out="")
SIZES = ((5, 8, 8), (3, 6, 10), (1, 8, 8), (2, 4, 4))


def only(mode: str, noise: float = 0.0, **changes: object) -> TrainConfig:
    """A configuration in which every clip is asked for in one way."""
    weights = {name: float(name == mode) for name in MODES}
    return replace(CONFIG, condition=ConditionMix(**weights, noise=noise), **changes)


def entries(
    count: int, frames: int = 5, keyframe_at: tuple[int, ...] = (2, 4), suffix: int = 2
) -> list[ClipEntry]:
    return [
        ClipEntry(f"{n:024x}", "", (0, 0), None, (frames, 8, 8), 16.0, (), keyframe_at, suffix)
        for n in range(count)
    ]


def drawn(clips: list[ClipEntry], config: TrainConfig, epoch: int = 0) -> list[Condition]:
    found = draw_conditions(ClipTable.of(clips, SHAPE), epoch, config)
    return [found.clip(number) for number in range(len(clips))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LatentDataset:
    clips = random_clips(40, SIZES)
    return LatentDataset(
        str(write_latents(tmp_path_factory.mktemp("data"), clips, given=random_given(clips)))
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("text", {Condition("text")}),
        ("first_frame", {Condition("first_frame", 1)}),
        ("prefix", {Condition("prefix", n) for n in (1, 2, 3, 4)}),
        ("suffix", {Condition("suffix", suffix=True)}),
        ("both_ends", {Condition("both_ends", 1, (1,))}),
    ],
)
def test_what_each_mode_gives(mode: str, expected: set[Condition]) -> None:
    assert set(drawn(entries(100), only(mode))) == expected


def test_random_gives_every_set_of_what_there_is_and_nothing_twice() -> None:
    found = set(drawn(entries(3000), only("random")))
    expected = {Condition("text")}
    for begin in range(5):
        for keyframes in ((), (0,), (1,), (0, 1)):
            for suffix in (False, True):
                # Keyframes stand at 2 and 4, the ending at 3 and 4.
                twice = (
                    (0 in keyframes and begin > 2) or (1 in keyframes and suffix) or (suffix and begin > 3)
                )
                if not twice and (begin or keyframes or suffix):
                    expected.add(Condition("random", begin, keyframes, suffix))
    assert found == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("first_frame", {Condition("first_frame", 0, (0,))}),
        ("prefix", {Condition("text")}),  # nothing else has a weight
        ("suffix", {Condition("suffix", suffix=True)}),
        ("both_ends", {Condition("both_ends", 0, (0, 2))}),
    ],
)
def test_no_frames_of_its_own_are_given_of_a_clip_with_its_first_picture(
    mode: str, expected: set[Condition]
) -> None:
    assert set(drawn(entries(100, keyframe_at=(0, 2, 4)), only(mode))) == expected


def test_shares_of_a_clip_with_its_first_picture() -> None:
    clips = entries(20_000, keyframe_at=(0, 2, 4))
    found = Counter(condition.mode for condition in drawn(clips, CONFIG))
    assert found["prefix"] == 0
    for name in ("first_frame", "suffix", "both_ends"):
        assert abs(found[name] / 20_000 - getattr(CONFIG.condition, name) / 0.9) < 0.01, name
    expected = {
        Condition("random" if keyframes or suffix else "text", 0, keyframes, suffix)
        for keyframes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
        for suffix in (False, True)
        if not (2 in keyframes and suffix)  # the last picture is part of the ending
    }
    assert set(drawn(clips[:3000], only("random"))) == expected
    # Another clip beside it gives of its own frames as ever.
    beside = [
        *clips[:50],
        *[replace(clip, clip_id=f"{n}", keyframe_at=(2, 4)) for n, clip in enumerate(clips[:50])],
    ]
    assert {c.begin for c in drawn(beside, only("first_frame"))[50:]} == {1}
    # 80 tokens, 16 in a picture: both ends need 112.
    for budget, mode, condition in (
        (112, "both_ends", Condition("both_ends", 0, (0, 2))),
        (111, "both_ends", Condition("first_frame", 0, (0,))),
        (95, "both_ends", Condition("text")),
        (96, "first_frame", Condition("first_frame", 0, (0,))),
        (95, "first_frame", Condition("text")),
    ):
        config = only(mode, packing=PackingConfig(budget=budget))
        assert set(drawn(clips[:50], config)) == {condition}
        table = ClipTable.of(clips[:50], SHAPE)
        assert (
            draw_conditions(table, 0, config).n_tokens.tolist() == [80 + 16 * len(condition.keyframes)] * 50
        )


def test_modes_come_as_often_as_their_weights() -> None:
    found = Counter(condition.mode for condition in drawn(entries(20_000), CONFIG))
    weights = vars(ConditionMix()) | {"noise": 0}
    assert sum(weights.values()) == pytest.approx(1.0)
    weights["random"] *= (
        15 / 16
    )  # in one of 16 outcomes it gives nothing: no beginning, no ending, no keyframe
    weights["text"] += 0.05 / 16
    for name in MODES:
        assert abs(found[name] / 20_000 - weights[name]) < 0.01, name
    equal = Counter(condition.mode for condition in drawn(entries(9000), replace(CONFIG, condition=EQUAL)))
    assert all(abs(equal[name] - 1500) < 200 for name in MODES[1:5])


EQUAL = ConditionMix(1, 1, 1, 1, 1, 1)


def test_shares_of_what_a_clip_lacks_go_to_the_others() -> None:
    bare = entries(20_000, keyframe_at=(), suffix=0)
    found = Counter(condition.mode for condition in drawn(bare, CONFIG))
    assert found["suffix"] == found["both_ends"] == 0
    assert abs(found["first_frame"] / 20_000 - 0.2 / 0.85) < 0.01
    assert all(not c.keyframes and not c.suffix for c in drawn(bare, only("random")))
    assert set(drawn(bare, only("suffix"))) == {Condition("text")}  # nothing else has a weight
    assert set(drawn(entries(100, keyframe_at=(2,)), only("both_ends"))) == {
        Condition("text")
    }  # not the last
    pictures = entries(100, frames=1, keyframe_at=(), suffix=0)
    assert set(drawn(pictures, replace(CONFIG, condition=EQUAL))) == {Condition("text")}
    assert set(drawn(entries(100, frames=2, keyframe_at=(1,), suffix=1), only("prefix"))) == {
        Condition("prefix", 1)
    }


def test_a_draw_depends_on_seed_epoch_and_the_clip_alone() -> None:
    clips = entries(200)
    others = [replace(clip, clip_id=f"another, longer id {n}", suffix=0) for n, clip in enumerate(clips)]
    config = replace(CONFIG, condition=EQUAL)
    base = drawn(clips, config, epoch=3)
    assert drawn(clips + others, config, epoch=3)[:200] == base
    assert drawn([clips[7]], config, epoch=3) == [base[7]]
    assert drawn(clips[::-1], config, epoch=3)[::-1] == base
    assert drawn(clips, config, epoch=4) != base
    assert drawn(clips, replace(config, seed=1), epoch=3) != base
    # Chances of one epoch tell nothing of another's.
    table = ClipTable.of(entries(20_000), SHAPE)
    columns = [table.chances(0, 0, 0), table.chances(0, 0, 1), table.chances(0, 1, 0), table.chances(1, 0, 0)]
    assert all(x.min() >= 0 and x.max() < 1 and abs(x.mean() - 0.5) < 0.01 for x in columns)
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 0.03


def test_hashes() -> None:
    # The first numbers of SplitMix64 with seed 0, as its authors give them.
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden, 2 * golden % 2**64], np.uint64)
    assert [hex(x) for x in splitmix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]
    assert hashed(["abc", "abcdefghijk"])[0] == hashed(["abc"])[0]
    assert len(set(hashed([f"{n:024x}" for n in range(10_000)]).tolist())) == 10_000


@pytest.mark.parametrize(
    ("patch", "left_out"), [((1, 2, 2), 0.0), ((2, 2, 2), 0.0), ((1, 2, 2), 0.37), ((2, 2, 2), 0.37)]
)
def test_clips_become_as_large_as_planned(
    data: LatentDataset, patch: tuple[int, int, int], left_out: float
) -> None:
    shape = replace(SHAPE, patch=patch)
    config = replace(CONFIG, condition=EQUAL, left_out=left_out)
    numbers, seen = list(range(len(data.clips))), set()
    for epoch in range(4):
        planned = draw_conditions(ClipTable.of(data.clips, shape), epoch, config)
        batch = make_batch(data, numbers, epoch, config, shape)
        assert batch.pack.lengths == tuple(planned.n_tokens)
        assert batch.conditions == tuple(planned.clip(number) for number in numbers)
        assert len(batch.target) == len(batch.is_generated) == len(batch.mode) == sum(batch.pack.lengths)
        seen |= {condition.mode for condition in batch.conditions}
    assert seen == set(MODES)
    assert batch.pack.lengths != batch.pack.own_lengths


def test_tokens_left_out_are_noisy_ones_and_the_rest_is_as_it_would_be(data: LatentDataset) -> None:
    config = replace(CONFIG, condition=EQUAL)
    whole = make_batch(data, [0, 1, 4], 0, config, SHAPE)
    some = make_batch(data, [0, 1, 4], 0, replace(config, left_out=0.5), SHAPE)
    assert sum(some.generated) < 0.6 * sum(whole.generated)
    given = [(batch.pack.level_index == 0).sum() for batch in (whole, some)]
    assert given[0] == given[1] > 0
    rows = {tuple(row.tolist()): number for number, row in enumerate(whole.pack.tokens)}
    kept = [rows[tuple(row.tolist())] for row in some.pack.tokens]
    assert torch.equal(some.target, whole.target[kept])
    assert torch.equal(some.is_generated, whole.is_generated[kept])
    assert torch.equal(some.mode, whole.mode[kept])
    with pytest.raises(BadInput, match=r"left_out is 1\.0: give a share from 0 to below 1"):
        replace(config, left_out=1.0)


def test_packs_are_as_full_as_planned(data: LatentDataset) -> None:
    config = replace(CONFIG, condition=EQUAL, packing=PackingConfig(budget=200))
    table = ClipTable.of(data.clips, SHAPE)
    plan = PackPlan(
        lambda epoch: draw_conditions(table, epoch, config).n_tokens, config.packing, 0, np.square
    )
    cursor = Cursor()
    with Feed(data, plan, cursor, config, SHAPE) as feed:
        steps = [next(feed) for _ in range(12)]
    for step in steps:
        packs, cursor = plan.step(cursor, 1)
        expected = draw_conditions(table, step.epoch, config).n_tokens[packs[0]]
        assert step.batches[0].pack.lengths == tuple(expected)
        assert expected.sum() <= 200


def span_rows(batch: Batch, number: int) -> slice:
    start = sum(batch.pack.lengths[:number])
    return slice(start + batch.pack.own_lengths[number], start + batch.pack.lengths[number])


@pytest.mark.parametrize(("mode", "begin"), [("both_ends", 1), ("suffix", 0)])
def test_spans_are_the_latents_encoded_by_themselves(data: LatentDataset, mode: str, begin: int) -> None:
    batch = make_batch(data, [0, 1, 2], 0, only(mode), SHAPE)  # 5 frames, 3 frames, a picture
    assert [condition.mode for condition in batch.conditions] == [mode, mode, "text"]
    for number in (0, 1):
        latent, _, given = data.read_given(number)
        rows, frames = span_rows(batch, number), latent.shape[1]
        own, per_frame = batch.pack.own_lengths[number], batch.pack.own_lengths[number] // frames
        expected = given.suffix if mode == "suffix" else given.keyframes[:, -1:]
        assert torch.equal(batch.pack.tokens[rows], patchify(expected, SHAPE.patch))
        # At the times of the last latent frames, told to be clean, without loss.
        times = torch.arange(frames - expected.shape[1], frames).float().repeat_interleave(per_frame)
        assert torch.equal(batch.pack.positions[rows, 0], times)
        assert not batch.pack.level_index[rows].any()
        assert not batch.is_generated[rows].any()
        assert not batch.target[rows].any()
        # The clip's own frames of these times are generated like all others.
        mine = slice(rows.start - own + begin * per_frame, rows.start)
        assert batch.is_generated[mine].all()
        assert (batch.pack.level_index[mine] == number + 1).all()
    v = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(0))
    base = token_errors(v, batch).sum()
    v[span_rows(batch, 0)] += 100
    assert token_errors(v, batch).sum() == base
    v[span_rows(batch, 0).start - 1] += 100
    assert token_errors(v, batch).sum() > base


def test_the_loss_is_divided_by_generated_tokens_only(data: LatentDataset) -> None:
    batch = make_batch(data, [0, 1, 2, 3], 0, only("both_ends"), SHAPE)
    assert batch.pack.own_lengths == (80, 45, 16, 8)
    assert batch.pack.lengths == (80 + 16, 45 + 15, 16, 8 + 4)
    assert sum(batch.generated) == (80 - 16) + (45 - 15) + 16 + (8 - 4) == int(batch.is_generated.sum())
    # Errors of 1 everywhere give 1, whatever is given.
    v = batch.target + 1
    assert token_errors(v, batch).sum() / sum(batch.generated) == pytest.approx(1.0)


def test_what_is_given_has_a_little_noise_that_the_model_is_not_told(data: LatentDataset) -> None:
    clean, noisy = (make_batch(data, [0], 0, only("both_ends", noise), SHAPE) for noise in (0.0, 0.5))
    entry, (latent, _, given) = data.clips[0], data.read_given(0)
    size = (CHANNELS, *entry.size)
    kinds = dict.fromkeys(entry.kinds, 1)
    draw = draw_clip(entry.clip_id, 0, size, kinds, 80, only("both_ends", 0.5), beside=1)
    assert 0 < draw.given_t < 0.5
    level = torch.tensor(draw.given_t)
    first = patchify(mix(latent, draw.noise, level)[:, :1], SHAPE.patch)
    last = patchify(mix(given.keyframes[:, 1:], draw.given_noise, level), SHAPE.patch)
    assert torch.equal(noisy.pack.tokens[:16], first)
    assert torch.equal(noisy.pack.tokens[80:], last)
    assert torch.equal(clean.pack.tokens[:16], patchify(latent[:, :1], SHAPE.patch))
    for batch in (clean, noisy):
        assert (batch.pack.levels[batch.pack.level_index[[*range(16), *range(80, 96)]]] == 0).all()
    # All else is as without it.
    assert torch.equal(clean.pack.tokens[16:80], noisy.pack.tokens[16:80])
    assert torch.equal(clean.target, noisy.target)
    assert clean.pack.levels.equal(noisy.pack.levels)


def test_noise_levels_are_shifted_by_the_clips_own_tokens(data: LatentDataset) -> None:
    flow = replace(CONFIG.flow, base_tokens=40)
    assert shift_for(80, flow) != shift_for(96, flow)
    levels = {}
    for mode in ("text", "both_ends"):
        batch = make_batch(data, [0], 5, replace(only(mode), flow=flow), SHAPE)
        levels[mode] = batch.pack.levels.tolist()
    assert levels["text"] == levels["both_ends"]
    assert draw_time(flow, 80, torch.Generator()) != draw_time(flow, 96, torch.Generator())


def test_a_clip_that_its_spans_make_too_large_is_given_none(data: LatentDataset) -> None:
    tight, wide = PackingConfig(budget=95), PackingConfig(budget=96)
    clips = entries(50)  # of 80 tokens, 16 a frame
    assert set(drawn(clips, only("both_ends", packing=tight))) == {Condition("first_frame", 1)}
    assert set(drawn(clips, only("both_ends", packing=wide))) == {Condition("both_ends", 1, (1,))}
    assert set(drawn(clips, only("suffix", packing=wide))) == {Condition("text")}
    for config in (only("random", packing=tight), only("random", packing=wide)):
        found = draw_conditions(ClipTable.of(clips, SHAPE), 0, config)
        assert found.n_tokens.max() <= config.packing.budget
    assert set(found.n_tokens.tolist()) == {80, 96}


def test_an_index_that_tells_other_spans_than_there_are_is_refused(data: LatentDataset) -> None:
    entry = data.clips[0]
    for changed in (replace(entry, keyframe_at=(1, 4)), replace(entry, suffix=1)):
        data.clips[0] = changed
        with pytest.raises(BadInput, match=r"its index says .* Encode the dataset again"):
            data.read_given(0)
    data.clips[0] = entry


def test_the_mix_is_that_of_the_design() -> None:
    assert ConditionMix() == ConditionMix(
        text=0.5, first_frame=0.2, prefix=0.1, suffix=0.05, both_ends=0.1, random=0.05, noise=0.02
    )


def test_bad_weights() -> None:
    with pytest.raises(BadInput, match=r"condition.prefix is -1, must be 0 or more"):
        ConditionMix(prefix=-1)
    with pytest.raises(BadInput, match=r"condition.noise is 1.5, must be from 0 to 1"):
        ConditionMix(noise=1.5)
    with pytest.raises(BadInput, match="all weights of condition are 0"):
        ConditionMix(0, 0, 0, 0, 0, 0)


def test_metrics_tell_shares_and_losses_by_condition(data: LatentDataset, tmp_path: Path) -> None:
    """A new model says 0, so its loss is the mean square of the targets of the tokens to generate."""
    config = TrainConfig(
        dataset=data.root.rsplit("/latents/", 1)[0], out=str(tmp_path), steps=1, log_every=1, device="cpu",
        condition=EQUAL, packing=PackingConfig(budget=4000), optim=OptimConfig(warmup=0),
        model=SizeConfig(width=16, depth=1, heads=1), validation=ValidationConfig(every=0),
    )  # fmt: skip
    train(config, log=lambda row: None)
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    shape = config.model.config(channels=CHANNELS, text_width=TEXT_WIDTH)
    batch = make_batch(data, list(range(40)), 0, config, shape)  # all clips fit the first pack
    squares = batch.target.square().mean(dim=1)
    modes = Counter(condition.mode for condition in batch.conditions)
    assert row["conditions"].keys() == modes.keys()
    for name, told in row["conditions"].items():
        mine = batch.is_generated & (batch.mode == MODES.index(name))
        assert told["share"] == modes[name] / 40
        assert told["loss"] == pytest.approx(squares[mine].mean().item(), rel=1e-5)
    assert row["loss"] == pytest.approx(squares[batch.is_generated].mean().item(), rel=1e-5)
