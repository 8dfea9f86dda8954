"""What a batch is made of: latents and texts as written, draws by clip and epoch, targets, tokens that count."""

import copy
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_latents import (
    CHANNELS,
    TEXT_WIDTH,
    VAE_ID,
    random_clips,
    random_given,
    with_sentences,
    write_latents,
)

from model.config import DiTConfig
from model.errors import BadInput
from model.patches import patchify
from train.batch import make_batch, token_errors
from train.blend import Choice
from train.config import CaptionBlend, ConditionMix, FeedConfig, PackingConfig, TrainConfig
from train.data import DamagedClip, LatentDataset
from train.draws import Draw, draw_clip
from train.feed import Feed, Step
from train.packing import Cursor, PackPlan

SHAPE = DiTConfig(text_width=TEXT_WIDTH)
CONFIG = TrainConfig(dataset="", out="")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("data"), random_clips(7), fps=24.0)


def test_reads_what_was_written(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    assert data.about["vae_id"] == VAE_ID
    assert [clip.clip_id for clip in data.clips] == [
        f"{n:016x}" for n in range(7)
    ]  # the failed row is left out
    for number, (_, latent, texts) in enumerate(random_clips(7)):
        found, features = data.read(number)
        assert torch.equal(found, latent.bfloat16().float())
        assert features.keys() == texts.keys()
        assert all(torch.equal(features[kind], texts[kind].bfloat16().float()) for kind in texts)
    assert data.typical() == ((5, 8, 8), 24.0)


def test_what_is_typical_is_decided_by_tokens_and_pictures_are_not_unless_alone(tmp_path: Path) -> None:
    sizes = (
        [(1, 8, 8)] * 20 + [(3, 4, 4)] * 5 + [(7, 4, 4)] * 2 + [(2, 4, 8)] * 3
    )  # 240, 224 and 192 of clips
    clips = [random_clips(1, (size,))[0] for size in sizes]
    clips = [(f"{number:016x}", latent, texts) for number, (_, latent, texts) in enumerate(clips)]
    assert LatentDataset(str(write_latents(tmp_path / "all", clips))).typical() == ((3, 4, 4), 16.0)
    pictures = write_latents(tmp_path / "pictures", clips[:20], fps=0.0)
    assert LatentDataset(str(pictures)).typical() == ((1, 8, 8), 0.0)


def test_missing_or_damaged_latents_say_what_to_do(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no latents. Run `reelmill encode"):
        LatentDataset(str(tmp_path))
    with pytest.raises(BadInput, match=f"there are: {VAE_ID}"):
        LatentDataset(str(dataset), "other")
    (tmp_path / "latents" / "a").mkdir(parents=True)
    with pytest.raises(BadInput, match="is not finished"):
        LatentDataset(str(tmp_path))
    (tmp_path / "latents" / "b").mkdir()
    with pytest.raises(BadInput, match="choose one of a, b"):
        LatentDataset(str(tmp_path))
    data = LatentDataset(str(dataset))
    data.clips[0] = replace(data.clips[0], latent=(7, 100))
    with pytest.raises(BadInput, match="cannot be read"):
        data.read(0)


def test_a_draw_is_a_function_of_seed_clip_and_epoch() -> None:
    def draw(clip_id: str = "aa", epoch: int = 3, seed: int = 1) -> tuple:
        config = replace(CONFIG, seed=seed)
        drawn = draw_clip(clip_id, epoch, (16, 5, 4, 4), {"short": 1, "dense": 1}, 20, config)
        return drawn.t, drawn.noise

    assert draw()[0] == draw()[0]
    assert torch.equal(draw()[1], draw()[1])
    for other in (draw("ab"), draw(epoch=4), draw(seed=2)):
        assert other[0] != draw()[0]
        assert not torch.equal(other[1], draw()[1])


def test_the_draw_of_noise_and_that_of_captions_do_not_touch() -> None:
    def draw(**changes: float) -> Draw:
        config = replace(CONFIG, captions=CaptionBlend(**changes))
        return draw_clip("aa", 3, (16, 5, 4, 4), {"short": 1, "dense": 4}, 20, config)

    assert draw(drop_share=1).caption == Choice(None, is_dropped=True)
    assert draw(drop_share=0, dense=0).caption == Choice("short", 1)
    assert draw(drop_share=1).t == draw(drop_share=0, dense=0).t
    assert torch.equal(draw(drop_share=1).noise, draw(drop_share=0, dense=0).noise)


def test_a_batch_shows_what_was_drawn(tmp_path: Path) -> None:
    clips = with_sentences(random_clips(7))
    data = LatentDataset(str(write_latents(tmp_path, clips)))
    assert data.clips[0].kinds == ("dense", "original", "short", "structured")
    blend = CaptionBlend(original=0, short=0, dense=1, structured=0, drop_share=0, cut_share=1)
    batch = make_batch(data, [0], 0, replace(CONFIG, captions=blend), SHAPE)
    (choice,) = batch.captions
    assert (choice.kind, choice.is_cut) == ("dense", True)
    texts = {name: x.bfloat16().float() for name, x in clips[0][2].items()}
    end = (4, 9, 15)[choice.n_sentences - 1]
    expected = torch.cat([texts["dense"][:end], texts["dense.stops"][choice.n_sentences - 1 :][:1]])
    assert torch.equal(batch.pack.text, expected)
    assert data.read(0)[1]["dense.ends"].dtype == torch.int32

    whole = make_batch(data, [1], 0, replace(CONFIG, captions=blend), SHAPE)  # no ends: shown whole
    assert whole.captions == (Choice("dense", 1),)
    assert torch.equal(whole.pack.text, clips[1][2]["dense"].bfloat16().float())

    blend = CaptionBlend(original=0, short=0, dense=0, structured=1, drop_share=0)
    batch = make_batch(data, [6, 1], 0, replace(CONFIG, captions=blend), SHAPE)
    fields, none = batch.captions
    assert none == Choice(None)  # it has no caption of the only kind with a weight
    assert "subject" in fields.fields
    expected = torch.cat([clips[6][2][f"structured/{name}"] for name in fields.fields]).bfloat16().float()
    assert torch.equal(batch.pack.text[: batch.pack.text_lengths[0]], expected)
    assert batch.pack.text_is_null.tolist() == [False] * len(expected) + [True]


def test_given_frames_stay_clean_and_have_no_loss(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    config = replace(CONFIG, condition=ConditionMix(0, 1, 0, 0, 0, 0, noise=0))
    batch = make_batch(data, [0, 1, 2], 0, config, SHAPE)
    start = 0
    for number, (_, latent, _) in enumerate(random_clips(3)):
        count, per_frame = batch.pack.lengths[number], batch.pack.lengths[number] // latent.shape[1]
        tokens = patchify(latent.bfloat16().float(), SHAPE.patch)
        given = per_frame if number < 2 else 0  # clip 2 is a picture
        span = slice(start, start + given)
        assert torch.equal(batch.pack.tokens[span], tokens[:given])
        assert not batch.is_generated[span].any()
        assert batch.is_generated[start + given : start + count].all()
        assert (batch.pack.levels[batch.pack.level_index[span]] == 0).all()
        assert (batch.pack.level_index[start + given : start + count] == number + 1).all()
        start += count
    assert sum(batch.generated) == 64 + 60 + 16
    assert [condition.mode for condition in batch.conditions] == ["first_frame", "first_frame", "text"]
    assert batch.generated == (16, 64 + 60, 0, 0, 0, 0)
    # Changing what the model says of given tokens changes no loss; elsewhere it does.
    v = torch.zeros_like(batch.target)
    base = token_errors(v, batch)
    assert (base > 0).equal(batch.is_generated)
    v[:16] = 100.0
    assert torch.equal(token_errors(v, batch), base)
    v[16] = 100.0
    assert token_errors(v, batch)[16] > base[16]


def test_target_is_the_way_from_clip_to_noise(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    config = replace(CONFIG, condition=ConditionMix(1, 0, 0, 0, 0, 0))
    batch = make_batch(data, [3], 2, config, SHAPE)
    entry, (latent, _) = data.clips[3], data.read(3)
    draw = draw_clip(entry.clip_id, 2, (CHANNELS, *entry.size), dict.fromkeys(entry.kinds, 1), 80, config)
    torch.testing.assert_close(batch.target, patchify(draw.noise - latent, SHAPE.patch))
    noised = (1 - draw.t) * latent + draw.t * draw.noise
    torch.testing.assert_close(batch.pack.tokens, patchify(noised, SHAPE.patch))
    expected = ((draw.noise - latent) ** 2).sum() / SHAPE.token_width
    torch.testing.assert_close(token_errors(torch.zeros_like(batch.target), batch).sum(), expected)


def test_each_clip_has_a_noise_level_of_its_own(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    batch = make_batch(data, [0, 1, 2, 4], 3, CONFIG, SHAPE)
    draws = [
        draw_clip(entry.clip_id, 3, (CHANNELS, *entry.size), dict.fromkeys(entry.kinds, 1), n, CONFIG)
        for entry, n in zip((data.clips[i] for i in (0, 1, 2, 4)), (80, 75, 16, 75), strict=True)
    ]
    assert len({draw.t for draw in draws}) == 4
    torch.testing.assert_close(batch.pack.levels, torch.tensor([0.0, *(draw.t for draw in draws)]))


@pytest.mark.parametrize("part", ["latent", "dense", "keyframes", "suffix"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_of_its_clip(tmp_path: Path, part: str, value: float) -> None:
    clips = random_clips(4)
    given = random_given(clips)
    clip_id, latent, texts = clips[1]
    {"latent": latent, **texts, **given[clip_id]}[part].view(-1)[5] = value
    data = LatentDataset(str(write_latents(tmp_path, clips, given=given)))
    message = rf"clip {clip_id} in .*__00001.tar has numbers that are not finite in {part}. Encode"
    with pytest.raises(BadInput, match=message):
        data.read_given(1)
    for number in (0, 2, 3):
        data.read_given(number)


def test_a_picture_has_no_frame_rate(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    data.clips[2] = replace(data.clips[2], fps=0.0)  # as the index tells of a picture
    assert make_batch(data, [2], 0, CONFIG, SHAPE).pack.lengths == (16,)


def test_an_idle_rank_gets_a_clip_without_loss(dataset: Path) -> None:
    batch = make_batch(LatentDataset(str(dataset)), [], 0, CONFIG, SHAPE)
    assert (sum(batch.generated), batch.captions, batch.conditions, batch.n_tokens) == (0, (), (), 0)
    assert not token_errors(torch.ones_like(batch.target), batch).any()


def first_step(
    data: LatentDataset, plan: PackPlan, cursor: Cursor, config: TrainConfig, **ranks: int
) -> Step:
    with Feed(data, plan, cursor, config, SHAPE, **ranks) as feed:
        return next(feed)


def test_a_feed_passes_errors_on_and_ends_its_threads(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    tokens = [np.array([80] * 7), np.array([90] * 7)]  # by epoch
    plan = PackPlan(lambda epoch: tokens[epoch], PackingConfig(budget=80), seed=0, flops=np.square)
    before = threading.active_count()
    with pytest.raises(BadInput, match="a clip has 90 tokens"):
        first_step(data, plan, Cursor(1), CONFIG)
    assert threading.active_count() == before


def test_a_damaged_clip_is_left_out_and_named(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    data = LatentDataset(str(tmp_path / "data"))
    entry = data.clips[1]
    start, size = entry.latent
    with open(Path(data.root, entry.shard), "r+b") as file:
        file.seek(start)
        file.write(b"\xff" * size)
    batch = make_batch(data, [0, 1, 2], 0, CONFIG, SHAPE)
    assert batch.clip_ids == (data.clips[0].clip_id, data.clips[2].clip_id)
    assert len(batch.pack.lengths) == 2
    ((clip_id, why),) = batch.damaged
    assert clip_id == entry.clip_id
    assert "cannot be read" in why
    nothing = make_batch(data, [1], 0, CONFIG, SHAPE)
    assert (nothing.n_tokens, len(nothing.damaged), nothing.clip_ids) == (0, 1, ())
    assert not token_errors(torch.ones_like(nothing.target), nothing).any()


def test_a_store_that_fails_for_a_moment_is_asked_again(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, real, asked = LatentDataset(str(dataset)), LatentDataset._bytes, []

    def failing(self: LatentDataset, *args: Any) -> bytes:
        asked.append(args)
        if len(asked) <= 2:
            raise OSError("connection reset")
        return real(self, *args)

    monkeypatch.setattr(LatentDataset, "_bytes", failing)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert not make_batch(data, [0], 0, CONFIG, SHAPE).damaged
    asked.clear()
    twice = replace(CONFIG, feed=FeedConfig(tries=2))
    assert "connection reset" in make_batch(data, [0], 0, twice, SHAPE).damaged[0][1]


def test_pictures_or_clips_alone(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    pictures, clips = data.only("pictures"), data.only("clips")
    assert {clip.size[0] for clip in pictures.clips} == {1}
    assert len(pictures.clips) + len(clips.clips) == len(data.only(None).clips) == 7
    assert clips.read(0)[0].shape[1] == clips.clips[0].size[0] > 1
    with pytest.raises(BadInput, match="holds no clips: leave --only out"):
        pictures.only("clips")


def test_clips_held_back_are_decided_by_their_ids(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    rest, held = data.held_back(3)
    assert len(held.clips) == 3
    assert sorted(clip.clip_id for clip in rest.clips + held.clips) == [clip.clip_id for clip in data.clips]
    fewer = copy.copy(data)
    fewer.clips = [clip for clip in data.clips if clip not in rest.clips[:2]]
    assert {clip.clip_id for clip in fewer.held_back(3)[1].clips} == {clip.clip_id for clip in held.clips}


def test_the_feed_follows_the_plan(dataset: Path) -> None:
    data = LatentDataset(str(dataset))
    tokens = [80, 75, 16, 80, 75, 16, 80]
    plan = PackPlan(lambda epoch: np.array(tokens), PackingConfig(budget=160), seed=0, flops=np.square)
    with Feed(data, plan, Cursor(), CONFIG, SHAPE) as feed:
        steps = [next(feed) for _ in range(6)]
    expected, cursor = [], Cursor()
    for _ in range(6):
        packs, cursor = plan.step(cursor, 1)
        expected.append(tuple(sorted(tokens[clip] for clip in packs[0])))
    assert [step.batches[0].pack.lengths for step in steps] == expected
    assert steps[-1].after == cursor
    resumed = first_step(data, plan, steps[2].after, CONFIG)
    assert torch.equal(resumed.batches[0].pack.tokens, steps[3].batches[0].pack.tokens)
    for rank in range(2):
        half = first_step(data, plan, Cursor(group=1), CONFIG, rank=rank, ranks=2)
        assert torch.equal(half.batches[0].pack.tokens, steps[rank].batches[0].pack.tokens)
    # With more packs per rank they are dealt in a snake.
    tight = PackPlan(lambda epoch: np.array(tokens), PackingConfig(budget=80), seed=0, flops=np.square)
    packs, _ = tight.step(Cursor(), 4)
    for rank, mine in enumerate(((0, 3), (1, 2))):
        two = replace(CONFIG, accumulate=2)
        half = first_step(data, tight, Cursor(), two, rank=rank, ranks=2)
        for i, batch in zip(mine, half.batches, strict=True):
            assert torch.equal(batch.pack.tokens, make_batch(data, packs[i], 0, two, SHAPE).pack.tokens)


def test_the_clips_of_one_pack_are_read_by_many_threads(dataset: Path) -> None:
    """Where a store takes long to answer, as many clips are asked for at once as there are threads."""
    together = threading.Barrier(6, timeout=30)

    class Slow(LatentDataset):
        def read_given(self, number: int) -> Any:
            together.wait()  # BrokenBarrierError, unless six read at the same time
            return super().read_given(number)

    data = Slow(str(dataset))
    data.clips = data.clips[:6]
    plan = PackPlan(lambda epoch: np.full(6, 80), PackingConfig(budget=480), seed=0, flops=np.square)
    config = replace(CONFIG, feed=FeedConfig(workers=6, ahead=1))
    assert len(first_step(data, plan, Cursor(), config).batches[0].clip_ids) == 6


@pytest.mark.parametrize(
    "spoil",
    [
        {"dense.ends": torch.tensor([4, 9, 10_000], dtype=torch.int32)},
        {"dense.ends": torch.tensor([4, 9, -1], dtype=torch.int32)},
        {"dense.stops": torch.zeros(2, TEXT_WIDTH)},
    ],
)
def test_sentences_that_do_not_fit_their_caption_damage_the_clip(
    tmp_path: Path, spoil: dict[str, Any]
) -> None:
    clips = with_sentences(random_clips(4, ((3, 4, 4),)))
    clips[0] = (clips[0][0], clips[0][1], clips[0][2] | spoil)
    data = LatentDataset(str(write_latents(tmp_path, clips)))
    with pytest.raises(DamagedClip, match=r"dense.ends that do not fit its caption"):
        data.read_given(0)
    data.read_given(2)
