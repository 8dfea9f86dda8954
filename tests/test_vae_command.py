"""`reelmill train-vae`: its batches, and a run of a few steps from the command line to a usable VAE."""

import json
from collections import Counter
from pathlib import Path

import cv2
import pytest
import torch

from model.vae import load_vae
from pipelines.encode_frames import FrameConfig, fit
from pipelines.train_vae import SHAPES, TrainVaeConfig, main, validation_set, world_batch

CONFIG = TrainVaeConfig(out="unused", batch=2, crop=32, frames=5, whole_share=0.5, image_share=0.3)


def test_batches_are_the_same_each_time_and_of_all_kinds() -> None:
    batches = [world_batch(step, CONFIG) for step in range(40)]
    assert torch.equal(batches[7], world_batch(7, CONFIG))
    assert not torch.equal(batches[7], batches[8])
    kinds = Counter((batch.shape[1], tuple(batch.shape[2:4]) == (32, 32)) for batch in batches)
    assert set(kinds) == {(1, True), (1, False), (5, True), (5, False)}
    assert {batch.dtype for batch in batches} == {torch.uint8}
    for batch in batches:
        count, frames, height, width, _ = batch.shape
        assert count == max(1, 2 * 32 * 32 // (height * width)) * (4 if frames == 1 else 1)


def test_the_shapes_trained_on_are_those_that_encode_makes() -> None:
    made = {
        fit(width, height, FrameConfig()) for width, height in [(256, 144), (144, 256), (192, 192), (4, 3)]
    }
    assert made - {(16, 16)} <= set(SHAPES)
    assert sum(SHAPES.values()) == pytest.approx(1.0)


def test_validation_clips_are_others_than_those_trained_on() -> None:
    clips = validation_set(6, 5)
    assert [tuple(batch.shape) for batch in clips] == [(4, 5, 64, 64, 3), (2, 5, 48, 80, 3)]
    assert torch.equal(clips[1], validation_set(6, 5)[1])


def test_a_short_run_from_the_command_line(tmp_path: Path, capsys) -> None:
    asked = ["--training.steps=4", "--training.validate_every=2", "--training.checkpoint_every=2",
             "--validation_clips=4", "--frames=5", "--threads=1"]  # fmt: skip
    assert main([f"--out={tmp_path}", *asked]) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "val_psnr" in row] == [2, 4]
    assert rows[-1]["val_psnr"] > 20.0  # principal components alone give this much
    vae = load_vae(tmp_path / "vae")
    assert (vae.config.temporal, vae.config.spatial, vae.config.channels) == (4, 8, 16)
    assert (tmp_path / "vae/model.safetensors").stat().st_size < 6e6
    strip = cv2.imread(str(tmp_path / "samples/strip.png"))
    assert strip is not None
    assert strip.shape[1] == 2 * 2 * 64  # frames 0 and 4 of a 64 wide clip, twice as large
    assert f"in {tmp_path}/vae" in capsys.readouterr().out

    assert main([f"--out={tmp_path}", *asked, "--training.lr=1"]) == 2
    assert "was begun with other values of lr" in capsys.readouterr().err
