"""What a person sees of a training: rows, curves, videos, validation, and how busy the device was."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import train_on
from small_latents import random_clips, with_sentences, write_with_vae
from small_runs import small_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import train.loop as loop
from model.config import DiTConfig, SizeConfig
from model.dit import DiT, load_dit
from model.errors import BadInput
from model.pack import Clip, make_pack
from model.pretrained_vae import load_pretrained
from train import validate
from train.batch import make_batch, token_errors
from train.board import flat, gif, has_wandb, run_id
from train.checkpoint import checkpoints
from train.config import OptimConfig, ParallelConfig, ValidationConfig
from train.data import DamagedClip, LatentDataset
from train.flops import peak_flops, train_flops
from train.loop import train
from train.optim import learning_rate
from train.parallel import Shares
from train.ranks import Ranks
from train.resume import n_held
from train.tally import count_step
from train.validate import EPOCH, Validation

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = with_sentences(random_clips(60, ((3, 4, 4), (1, 4, 4))))
    return write_with_vae(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("vae"), clips)


config_for = partial(
    small_run,
    steps=6,
    save_every=3,
    log_every=2,
    optim=OptimConfig(lr=1e-2, warmup=0),
    validation=ValidationConfig(every=3, clips=3, samples=1),
)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config_for(dataset, out), lambda row: None)
    return out


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events_of(run: Path) -> EventAccumulator:
    found = EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    return found.Reload()


def test_rows_tell_how_a_run_goes(run: Path) -> None:
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    for row in rows:
        assert row["mfu"] is None  # no data sheet of this processor
        assert row["packed_tokens_per_s"] >= row["tokens_per_s"] > 0
        assert row["tokens_per_s"] == pytest.approx(row["packed_tokens_per_s"] * (1 - row["padding_share"]))
        assert row["memory_gib"] > 0.01
        assert set(row["loss_by_level"]) <= {f"0.{i}" for i in range(10)}
        assert row["damaged"] == row["skipped"] == row["spikes"] == 0


def test_tensorboard_has_the_numbers_of_the_rows(run: Path) -> None:
    events = events_of(run)
    rows = rows_of(run)
    names = ("loss", "grad_norm", "lr", "tokens_per_s", "padding_share", "data_wait_share", "memory_gib")
    for name in names:
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    level = [(event.step, event.value) for event in events.Scalars("validation/0.5")]
    expected = [(row["step"], row["validation"]["0.5"]) for row in rows if "validation" in row]
    assert level == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    assert len(level) == 2


def test_tensorboard_shows_sample_videos(run: Path, tmp_path: Path) -> None:
    pictures = events_of(run).Images("samples/0")
    assert [picture.step for picture in pictures] == [3, 6]
    place = tmp_path / "sample.gif"
    place.write_bytes(pictures[-1].encoded_image_string)
    with Image.open(place) as picture:
        assert (picture.n_frames, picture.size) == (9, (32, 32))  # 3 latent frames of 4x4
    assert pictures[0].encoded_image_string != pictures[1].encoded_image_string


def test_without_its_vae_a_run_has_no_videos_and_says_so(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(dataset, tmp_path, steps=3)
    train(replace(config, validation=replace(config.validation, vae="nowhere")), lambda row: None)
    assert "no samples are drawn" in caplog.text
    assert caplog.text.count("no samples are drawn") == 1
    assert "validation" in rows_of(tmp_path)[-1]


def test_a_resumed_run_hides_the_curves_that_it_draws_again(dataset: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def log(row: dict) -> None:
        if row["step"] == 5:
            raise Killed

    config = config_for(dataset, tmp_path, log_every=1)
    with pytest.raises(Killed):
        train(config, log)
    train(config, lambda row: None)
    steps = [event.step for event in events_of(tmp_path).Scalars("loss")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_validation_is_the_same_each_time_and_by_hand(dataset: Path, run: Path) -> None:
    config = config_for(dataset, run)
    data = LatentDataset(str(dataset))
    _, held = data.held_back(n_held(config, data))
    assert len(held.clips) == 3
    torch.manual_seed(0)
    dit = DiT(config.model.config(channels=16, text_width=8))
    torch.nn.init.normal_(dit.head.out.weight, std=0.1)
    validation = Validation(held, config, dit.config, Shares(0, 1), ALONE)
    (first, damaged), (again, _) = validation.losses(dit), validation.losses(dit)
    assert damaged == 0
    assert first == again
    assert len({round(loss, 6) for loss in first.values()}) == 5
    whole = replace(config, captions=replace(config.captions, drop_share=0.0, cut_share=0.0))
    whole = replace(
        whole, condition=replace(whole.condition, first_frame=0, prefix=0, suffix=0, both_ends=0, random=0)
    )
    errors = tokens = 0.0
    for number in range(3):  # whatever else is in the pack
        batch = make_batch(held, [number], EPOCH, whole, dit.config, level=0.7)
        assert batch.pack.levels.tolist() == [0.0, pytest.approx(0.7)]
        errors += token_errors(dit(batch.pack), batch).sum().item()
        tokens += batch.is_generated.sum().item()
    assert first["0.7"] == pytest.approx(errors / tokens, rel=1e-5)


def test_clips_held_back_are_never_shown(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, shown = loop.count_step, set[str]()

    def watched(batches, *args, **more):  # type: ignore[no-untyped-def]
        shown.update(clip for batch in batches for clip in batch.clip_ids)
        return real(batches, *args, **more)

    monkeypatch.setattr(loop, "count_step", watched)
    train(config_for(dataset, tmp_path, steps=40, save_every=40), lambda row: None)
    data = LatentDataset(str(dataset))
    held = {clip.clip_id for clip in data.held_back(3)[1].clips}
    assert shown == {clip.clip_id for clip in data.clips} - held


def test_validation_holds_back_a_twentieth_at_most(dataset: Path, tmp_path: Path) -> None:
    data = LatentDataset(str(dataset))
    for clips, every, expected in ((64, 1000, 3), (2, 1000, 2), (64, 0, 0), (0, 5, 0)):
        config = config_for(dataset, tmp_path, validation=ValidationConfig(every=every, clips=clips))
        assert n_held(config, data) == expected


@pytest.mark.parametrize("shape", [
    DiTConfig(width=64, depth=3, heads=2, ffn=160, text_width=8, places=False),
    DiTConfig(width=128, depth=2, heads=2, ffn=512, text_width=8, places=False),
])  # fmt: skip
def test_the_formula_of_operations_is_what_torch_counts(shape: DiTConfig) -> None:
    """Of a clip with a text of one token: all else than the text's own work, the levels' and the norms'."""
    clip = Clip(torch.randn(16, 5, 16, 16), 16.0, torch.randn(1, 8), 0.5)
    pack = make_pack([clip], shape)
    dit = DiT(shape)
    dit.backend = "loop"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        dit(pack).sum().backward()
    n, h, d = len(pack.tokens), shape.width, shape.depth
    # One text token and two levels: keys and values of the text, its MLP, cross-attention to it, the level's MLP.
    text = d * 2 * h * h + 8 * h + h * h
    levels = 2 * (256 * h + h * h + 6 * h * h)
    other = 6 * (text + levels) + 12 * h * d * n * 1
    first = 2 * n * shape.token_width * h  # the pack itself needs no gradient
    other -= first + 2 * 2 * 256 * h + 2 * 8 * h
    assert counter.get_total_flops() == pytest.approx(train_flops(np.array([n]), shape)[0] + other, rel=2e-3)


def test_peaks_are_known_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(torch.device("cpu")) is None
    for name, peak in (
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(torch.device("cuda")) == peak
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card of tomorrow")
    assert peak_flops(torch.device("cuda")) is None


def test_weights_and_biases_get_the_same(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An offline run, which leaves its records beside the metrics."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(config_for(dataset, tmp_path), lambda row: None)
    names, until = (b"tokens_per_s", b"validation", b"loss_by_level"), time.monotonic() + 60
    record = b""
    while not all(name in record for name in names):  # a process of its own writes it
        record = b"".join(path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
        assert time.monotonic() < until
        time.sleep(0.05)
    shown = list(tmp_path.glob("wandb/offline-run-*/files/media/videos/samples/*.gif"))
    assert len(shown) == 2
    assert all(Image.open(path).n_frames > 1 for path in shown)
    assert "no more curves" not in caplog.text


def test_weights_and_biases_are_asked_where_somebody_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_wandb()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert has_wandb()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_wandb()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert has_wandb()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not has_wandb()


def test_no_two_runs_are_one_for_weights_and_biases() -> None:
    places = [Path("/shared/runs/XL"), Path("/home/u/runs/XL"), Path("/home/u/runs/first try")]
    ids = [run_id(place) for place in places]
    assert len(set(ids)) == 3
    assert ids[0].startswith("XL-")
    assert ids[2].startswith("first-try-")


def test_cool_down() -> None:
    config = OptimConfig(lr=1.0, warmup=2, cooldown=10)
    rates = [learning_rate(step, 100, config) for step in (0, 2, 89, 90, 95, 99)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.5, 0.1])
    cosine = replace(config, schedule="cosine")
    assert learning_rate(95, 100, cosine) == pytest.approx(
        0.5 * learning_rate(95, 100, replace(cosine, cooldown=0))
    )


def test_nested_rows_become_paths() -> None:
    row = {"step": 3, "a": {"b": 1, "c": {"d": 0.5}}, "e": None, "f": "text", "g": True}
    assert flat(row) == {"step": 3.0, "a/b": 1.0, "a/c/d": 0.5}


def test_a_gif_keeps_frames_and_speed(tmp_path: Path) -> None:
    frames = np.zeros((4, 8, 12, 3), np.uint8)
    frames[2:] = 255
    (tmp_path / "x.gif").write_bytes(gif(frames, fps=10))
    with Image.open(tmp_path / "x.gif") as picture:
        picture.seek(1)
        assert picture.size == (12, 8)
        assert picture.info["duration"] in (100, 200)  # like frames may be joined


def test_the_newest_checkpoint_samples(run: Path) -> None:
    assert [path.name for path in checkpoints(run)] == ["step-00000003", "step-00000006"]


def test_a_validation_that_is_not_finite_is_null_and_ends_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "token_errors", lambda v, batch: token_errors(v, batch) * float("inf"))
    train(
        config_for(dataset, tmp_path, validation=ValidationConfig(every=3, clips=3, samples=0)),
        lambda row: None,
    )
    told = [row["validation"] for row in rows_of(tmp_path) if "validation" in row]
    assert len(told) == 2
    assert all(loss is None for levels in told for loss in levels.values())


def test_sigterm_in_a_validation_leaves_out_the_rest_of_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def asked(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_batch(*args, **more)

    monkeypatch.setattr(validate, "make_batch", asked)
    monkeypatch.setattr(
        validate, "sample", lambda *args: pytest.fail("videos are drawn though the run is to end")
    )
    place = train(config_for(dataset, tmp_path, steps=100_000), lambda row: None)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows if "validation" in row] == [3]
    assert list(rows[-2]["validation"]) == ["0.1", "0.3"]
    assert place.endswith("step-00000004")


def test_damaged_clips_of_a_validation_are_counted(dataset: Path, tmp_path: Path) -> None:
    class Damaged(LatentDataset):
        def read_given(self, number: int) -> Any:
            if self.clips[number].clip_id == spoiled:
                raise DamagedClip("it is damaged")
            return super().read_given(number)

    data = Damaged(str(dataset))
    spoiled = data.held_back(3)[1].clips[0].clip_id
    train(config_for(dataset, tmp_path), lambda row: None, data)
    assert [row["validation_damaged"] for row in rows_of(tmp_path) if "validation" in row] == [1, 1]


def test_the_mfu_of_a_row_is_that_of_its_clips(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations over time and peak, of which each rank adds its own; here time is had from tokens per second."""
    seen: list[int] = []

    def watched(batches: Any, *args: Any) -> Any:
        seen.extend(n for batch in batches for n in batch.pack.lengths)
        return count_step(batches, *args)

    monkeypatch.setattr(loop, "count_step", watched)
    monkeypatch.setattr(loop, "peak_flops", lambda device: 1e9)
    config = config_for(
        dataset, tmp_path / "one", steps=1, log_every=1, model=SizeConfig(width=16, depth=1, heads=2)
    )
    train(config, lambda row: None)
    (row,) = rows_of(tmp_path / "one")
    shape = load_dit(checkpoints(tmp_path / "one")[-1])[0].config
    flops = 1e6 * round(train_flops(np.array(seen), shape).sum() / 1e6)  # they are counted in millions
    assert row["mfu"] == pytest.approx(flops / (sum(seen) / row["tokens_per_s"]) / 1e9, rel=1e-3)
    two = replace(config, out=str(tmp_path / "two"), parallel=ParallelConfig(ulysses=2))
    train_on(two, 2, "loop.peak_flops = lambda device: 1e9\n")
    (other,) = rows_of(tmp_path / "two")
    assert other["mfu"] / other["tokens_per_s"] == pytest.approx(row["mfu"] / row["tokens_per_s"] / 2)


def test_a_vae_of_diffusers_where_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadInput, match="needs diffusers, which is not installed here"):
        load_pretrained(tmp_path)
