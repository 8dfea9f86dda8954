"""The encoder at work: long and large clips piece by piece, decoders ahead of it, and how long it waited."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import moving_square
from small_shards import film, write_shards
from tiny_coca import tiny_folder

from curate.stage import Resources, Stage, run_in_process
from model.errors import BadInput as ModelBadInput
from model.vae import VideoVAE, load_vae
from pipelines.demo.weights import embedded
from pipelines.encode import EncodeConfig, Times, about_latents, encode, encoding
from pipelines.encode_frames import FrameConfig
from pipelines.encode_latents import latents_of
from pipelines.encode_plan import plan
from pipelines.encode_stages import DecodeClips
from pipelines.engine import RayConfig, run_stages

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)


@pytest.fixture
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


def what_goes_in(vae: VideoVAE) -> list[tuple[int, ...]]:
    """A list to which the shape (B, T, H, W) of all that the network is given will be added."""
    shapes: list[tuple[int, ...]] = []
    vae.encoder.register_forward_pre_hook(lambda _, x: shapes.append((len(x[0]), *x[0].shape[2:])))
    return shapes


def test_a_long_clip_goes_through_in_chunks_with_the_same_latents(vae: VideoVAE) -> None:
    videos = [moving_square(41, width=64, height=48, seed=1), moving_square(9, width=64, height=48, seed=2)]
    whole = latents_of(vae, videos, FRAMES)
    shapes = what_goes_in(vae)
    parts = latents_of(vae, videos, FRAMES, batch_bytes=10 * 3 * 64 * 48)  # ten pictures
    assert [t for b, t, *_ in shapes if b == 1 and t != 1] == [8] * 5 + [9]
    assert max(b * t for b, t, *_ in shapes) <= 10
    for before, after in zip(whole, parts, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=0.01, atol=1e-3)


def test_pictures_of_many_clips_go_through_together(vae: VideoVAE) -> None:
    videos = [moving_square(9, width=64, height=48, seed=seed) for seed in range(6)]
    shapes = what_goes_in(vae)
    latents_of(vae, [*videos, moving_square(1, width=64, height=48)], FRAMES)
    assert sorted(shapes) == [(6, 5, 48, 64), (6, 9, 48, 64), (13, 1, 48, 64)]


def test_a_large_picture_goes_through_in_tiles(vae: VideoVAE) -> None:
    video = moving_square(5, width=192, height=160)
    whole = latents_of(vae, [video], FRAMES)[0]["latent"].float()
    shapes = what_goes_in(vae)
    tiles = latents_of(vae, [video], FRAMES, tile=96)[0]["latent"].float()
    assert {(h, w) for *_, h, w in shapes} == {(96, 96)}
    assert (tiles - whole).abs().mean() < 0.02 * whole.abs().mean()
    config = EncodeConfig("none", text=str(tiny_folder()), tile=20)
    with pytest.raises(ModelBadInput, match="a tile of 20 pixels does not fit"):
        about_latents(config)
    assert about_latents(replace(config, tile=96))["tile"] == 96


# Ahead -------------------------------------------------------------------------------------------------------


class Counts:
    """A stage that tells when it has begun with each row."""

    output = pa.schema([("number", pa.int64())])

    def __init__(self, ahead: int) -> None:
        self.resources = Resources(ahead=ahead)
        self.begun = [threading.Event() for _ in range(20)]

    def setup(self) -> None:
        pass

    def __call__(self, rows: list[dict]) -> list[dict]:
        self.begun[rows[0]["number"]].set()
        return rows


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_rows_are_made_while_the_one_before_is_used_and_not_too_many(ahead: int) -> None:
    stage = Counts(ahead)
    for place, row in enumerate(run_in_process([{"number": number} for number in range(20)], [stage])):
        assert row["number"] == place
        # They are begun though nobody asks for them before this row is done with.
        assert all(event.wait(20) for event in stage.begun[place : place + 1 + ahead])
        assert not any(event.is_set() for event in stage.begun[place + 1 + ahead :])


def test_without_it_a_row_is_made_when_it_is_asked_for() -> None:
    stage = Counts(0)
    rows = run_in_process([{"number": number} for number in range(20)], [stage])
    next(rows)
    assert [event.is_set() for event in stage.begun] == [True] + [False] * 19
    assert DecodeClips("none").resources.ahead >= 2


def process_stage(name: str, resources: Resources) -> Stage:
    """A stage that tells the process it runs in; its class is local, since Ray's workers cannot import tests."""

    class Process:
        output = pa.schema([(column, pa.int64()) for column in ("number", "first", "second")])

        def __init__(self) -> None:
            self.resources = resources

        def setup(self) -> None:
            pass

        def __call__(self, rows: list[dict]) -> list[dict]:
            return [{**row, name: os.getpid()} for row in rows]

    return Process()


@pytest.mark.slow
def test_on_ray_it_runs_beside_the_next_stage_and_not_in_its_workers(ray_cluster: None) -> None:
    stages = [
        process_stage("first", Resources(ahead=2)),
        process_stage("second", Resources(actors=1)),
    ]
    items = [{"number": number} for number in range(4)]
    rows = list(run_stages("ray", items, pa.schema([("number", pa.int64())]), stages, RayConfig()))
    assert sorted(row["number"] for row in rows) == [0, 1, 2, 3]
    assert len({row["second"] for row in rows}) == 1
    assert not {row["first"] for row in rows} & {row["second"] for row in rows}


def test_the_time_without_work_is_measured_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = np.stack([moving_square(9, width=64, height=48, seed=seed) for seed in range(3)])
    shards = [[film(tmp_path, f"{i:x}" * 12, one, 8)] for i, one in enumerate(pictures)]
    dataset = write_shards(tmp_path / "dataset", shards)
    config = EncodeConfig(dataset.uri, text=str(tiny_folder()), frames=FRAMES, engine="local")
    parts = [part for unit in plan(dataset, FRAMES, about_latents(config)) for part in unit.parts]
    decode, worker = encoding(config, about_latents(config))
    decode.setup()
    worker.setup()
    time.sleep(0.5)  # it is ready, and there is nothing to do
    rows = worker(decode(parts[:2]))
    time.sleep(0.5)
    rows += worker(decode(parts[2:]))
    assert rows[0]["waited_s"] >= 0.5
    assert rows[1]["waited_s"] >= 0
    assert rows[2]["waited_s"] >= 0.5
    assert all(row["busy_s"] > 0 for row in rows)
    assert len({row["worker"] for row in rows}) == 1

    times = Times()
    for busy_s, waited_s in ((3.0, 0.0), (3.0, 1.0), (1.0, 0.0)):
        times.add({"worker": "a", "busy_s": busy_s, "waited_s": waited_s})
    times.end()  # the only one waits for none
    assert times.told() == "the encoder waited 12 % of its time for pictures (7.0 s at work, 1.0 s waiting)"
    times.add({"worker": "a", "busy_s": 0.0, "waited_s": 0.0})
    time.sleep(0.5)
    times.add({"worker": "b", "busy_s": 0.0, "waited_s": 0.0})
    times.end()  # b was at work for half a second in which a had nothing left
    assert times.waited_s >= 1.5
    encode(config)
    assert "pictures" not in capsys.readouterr().out  # all parts were there
    dataset.remove("_state")
    encode(config)
    assert re.search(
        r" of its time for pictures \(.*\)\nlatents 3 clips in 3 shards", capsys.readouterr().out
    )
