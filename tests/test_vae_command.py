"""`reelmill train-vae` on the procedural world: its crops, and a run of a few steps to a usable VAE."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.errors import BadInput
from model.vae import load_vae
from model.vae_config import VAESizeConfig
from pipelines.demo.film_plan import FRAME_RATES, FRAME_SIZES
from pipelines.encode_frames import FrameConfig, fit
from pipelines.train_vae import TrainVaeConfig, main, vae_data
from pipelines.vae_world import ENCODED, FILM, WorldConfig, WorldCrops, pick

CONFIG = WorldConfig(crop=32, frames=5, image_share=0.3)


def test_batches_are_the_same_each_time_and_of_both_kinds() -> None:
    world = WorldCrops(CONFIG, batch=3, seed=0)
    batches = [world(step) for step in range(20)]
    assert torch.equal(batches[7].frames, world(7).frames)
    assert not torch.equal(batches[7].frames, batches[8].frames)
    kinds = Counter(tuple(batch.frames.shape) for batch in batches)
    assert set(kinds) == {(12, 1, 32, 32, 3), (3, 5, 32, 32, 3)}
    assert {batch.frames.dtype for batch in batches} == {torch.uint8}
    assert all(len(batch.names) == len(batch.frames) for batch in batches)
    assert batches[7].names[2] == "clip 1 of the world at step 7"


def test_clips_look_as_films_and_as_encode_makes_them() -> None:
    made = {
        fit(width, height, FrameConfig()) for width, height in [(256, 144), (144, 256), (192, 192), (4, 3)]
    }
    assert made - {(16, 16)} <= set(ENCODED.sizes)
    assert sorted(FILM.sizes) == sorted(FRAME_SIZES)
    assert set(FILM.rates) == set(FRAME_RATES)


def test_the_crop_that_changes_most_is_among_those_picked() -> None:
    clip = np.zeros((5, 64, 64, 3), np.uint8)
    clip[4:, 40:48, 40:48] = 200  # something appears here alone
    found = [pick(clip, 16, 8, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(crops) == 2 and crops[0].shape == (5, 16, 16, 3) for crops in found)
    assert sum(int(crops[0].max() > 0) for crops in found) > sum(int(crops[1].max() > 0) for crops in found)
    small = pick(clip[:, :8, :12], 16, 2, np.random.default_rng(0))
    assert small[0].shape == (5, 16, 16, 3)  # filled up by its edges


def test_validation_clips_are_others_than_those_trained_on() -> None:
    world = WorldCrops(CONFIG, batch=1, seed=0)
    clips = world.validation(4)
    assert {tuple(clip.shape[2:4]) for clip in clips} <= {(h, w) for w, h in FRAME_SIZES}
    assert torch.equal(clips[1], WorldCrops(CONFIG, batch=9, seed=5).validation(2)[1])
    assert [tuple(clip.shape[:2]) for clip in world.typical(3)] == [(1, 5)] * 3


def test_settings_that_do_not_fit_are_told() -> None:
    config = TrainVaeConfig(out="unused", world=CONFIG, validation_clips=0)
    assert vae_data(config, 4, 8).validation == []
    for temporal, spatial in ((8, 8), (4, 64)):
        with pytest.raises(BadInput, match="crops of 32 pixels and 5 frames do not fit this VAE"):
            vae_data(config, temporal, spatial)
    with pytest.raises(BadInput, match=r"world\.candidates 1: give at least 2"):
        WorldCrops(WorldConfig(candidates=1), batch=1, seed=0)


def test_shapes_differ_from_a_preset_where_asked() -> None:
    shape = VAESizeConfig("base", spatial=16, widths=(8, 8, 16, 16), bottleneck="fsq", levels=(8, 5)).config()
    assert (shape.name, shape.spatial, shape.channels, shape.levels, shape.patch) == (
        "base",
        16,
        2,
        (8, 5),
        2,
    )
    with pytest.raises(BadInput, match="allow 2 halvings, but 3 are needed"):
        VAESizeConfig("tiny", temporal=8).config()


def test_a_short_run_from_the_command_line(tmp_path: Path, capsys) -> None:
    asked = ["--training.steps=4", "--training.validate_every=2", "--training.checkpoint_every=2",
             "--validation_clips=3", "--typical_clips=8", "--world.frames=5", "--world.crop=32",
             "--threads=1"]  # fmt: skip
    assert main([f"--out={tmp_path}", *asked]) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "val_psnr" in row] == [2, 4]
    assert rows[-1]["val_psnr"] > 20.0  # principal components alone give this much
    assert 0.0 <= rows[-1]["waited"] < 1.0
    vae = load_vae(tmp_path / "vae")
    assert (vae.config.temporal, vae.config.spatial, vae.config.channels) == (4, 8, 16)
    assert (tmp_path / "vae/model.safetensors").stat().st_size < 6e6
    strip = cv2.imread(str(tmp_path / "samples/step-00000004.png"))
    assert strip is not None
    assert strip.shape[1] >= 2 * 144  # frames 0 and 4 of films
    assert f"in {tmp_path}/vae" in capsys.readouterr().out

    config = (tmp_path / "config.yaml").read_bytes()
    assert main([f"--out={tmp_path}", *asked, "--training.seed=1"]) == 2
    assert "was begun with other values of" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_bytes() == config
    for wrong, said in (
        ("--batch=0", "batch and typical_clips must be 1 or more"),
        ("--training.prepare_threads=0", "training.prepare_threads is 0: give 1 or more"),
        ("--crops.fps=[0,30]", "fps must be two rates above 0"),
        ("--training.loss.adversarial=1", "no discriminator would be trained"),
        ("--out=s3://bucket/run", "must be a folder of this machine"),
        ("--device=gpu", "device"),
    ):
        assert main([f"--out={tmp_path}", *asked, wrong]) == 2
        assert said in capsys.readouterr().err
    discriminator = ["--training.loss.adversarial=1", "--training.loss.adversarial_from=1", "--world.crop=16"]
    assert main([f"--out={tmp_path}", *asked, *discriminator]) == 2
    assert "too small for the discriminator: give 24" in capsys.readouterr().err
