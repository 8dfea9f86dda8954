"""What `reelmill encode` refuses before it begins, with the remedy; and what settings come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_square
from small_shards import Film, film, write_shards
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.stage import Resources
from pipelines.encode import EncodeConfig, about_latents, encode, models
from pipelines.encode_frames import FrameConfig
from pipelines.encode_plan import CLIP_BYTES, fingerprint, plan
from pipelines.encode_stages import DecodeClips, EncodeClips
from pipelines.engine import RayConfig, check_room
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)


@pytest.fixture
def config(tmp_path: Path) -> EncodeConfig:
    films = [film(tmp_path, f"{n:012x}", moving_square(n, seed=n), 8) for n in (9, 3)]
    dataset = write_shards(tmp_path / "dataset", [films])
    return EncodeConfig(dataset.uri, text=str(tiny_folder()), frames=FRAMES, engine="local")


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ({"fps": 0.0}, r"frames.fps 0.0 must be a rate above 0"),
        ({"fps": -8.0}, r"frames.fps -8.0 must be"),
        ({"fps": float("nan")}, r"frames.fps nan must be"),
        ({"max_frames": 0}, r"frames.max_frames 0 must be at least 1"),
        ({"max_frames": -3}, r"frames.max_frames -3 must be at least 1"),
        ({"side": 0}, r"frames.side 0 and"),
        ({"side": -16}, r"frames.side -16 and"),
        ({"pixels": 255}, r"frames.pixels 255 at least the square of frames.side"),
        ({"keyframes": -1}, "must not be negative"),
    ],
)
def test_frames_that_make_no_sense(config: EncodeConfig, frames: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        encode(replace(config, frames=replace(FRAMES, **frames)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"encoders": 0}, "encoders 0 must be at least 1"),
        ({"gpus": -1.0}, r"gpus -1.0 must be 0, a fraction"),
        ({"gpus": 1.5}, r"gpus 1.5 must be 0, a fraction"),
        ({"batch_mb": 0}, "batch_mb 0 must be from 1 to 1024"),
        ({"batch_mb": 2000}, "batch_mb 2000 must be from 1 to 1024"),
    ],
)
def test_encoders_that_make_no_sense(config: EncodeConfig, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        encode(replace(config, **settings))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(config: EncodeConfig) -> None:
    with pytest.raises(BadInput, match="PyTorch finds no GPU on this machine"):
        encode(replace(config, gpus=1.0))
    with pytest.raises(BadInput, match="PyTorch finds no GPU where the encoder runs"):
        EncodeClips(config.dataset, *models(config), Resources(gpus=0.5)).setup()


@pytest.mark.parametrize(
    ("worker", "there", "told"),
    [
        (Resources(actors=2), {"CPU": 2}, r"\(2 x EncodeClips\) take 2 of the 2 cores that Ray knows of, and 1"),
        (Resources(actors=1), {"CPU": 1}, r"--ray.num_cpus\), or run in this process \(--engine=local\)"),
        (Resources(cpus=0, gpus=1, actors=1), {"CPU": 2}, "need 1 GPUs, and Ray knows of 0"),
        (Resources(cpus=0, gpus=0.4, actors=3), {"CPU": 2, "GPU": 1}, "need 2 GPUs, and Ray knows of 1"),
        (Resources(cpus=0, gpus=2, actors=3), {"CPU": 2, "GPU": 5}, "need 6 GPUs"),
        (Resources(actors=1), {"CPU": 2}, None),
        (Resources(cpus=0, gpus=1, actors=8), {"CPU": 1, "GPU": 8}, None),
        (Resources(cpus=0, gpus=0.5, actors=3), {"CPU": 1, "GPU": 2}, None),
    ],
)  # fmt: skip
def test_workers_leave_room(worker: Resources, there: dict[str, float], told: str | None) -> None:
    stages = [DecodeClips("none"), EncodeClips("none", "vae", "text", worker)]
    if told is None:
        check_room(stages, there)
        return
    with pytest.raises(BadInput, match=told):
        check_room(stages, there)


@pytest.mark.slow
def test_on_ray_it_is_told_and_not_waited_for(config: EncodeConfig, ray_cluster: None) -> None:
    config = replace(config, engine="ray", ray=RayConfig())
    with pytest.raises(BadInput, match="take 2 of the 2 cores"):
        encode(replace(config, encoders=2))
    with pytest.raises(BadInput, match="need 1 GPUs, and Ray knows of 0"):
        encode(replace(config, gpus=1.0))


def test_a_worker_that_finds_other_models_is_told(config: EncodeConfig) -> None:
    about = about_latents(config)
    right = about["vae_id"], about["text_id"]
    for ids in (("tiny-4x8x8-00000000", right[1]), (right[0], "another")):
        worker = EncodeClips(config.dataset, *models(config), Resources(), ids=ids)
        with pytest.raises(BadInput, match="Put the same files on all machines"):
            worker.setup()
    EncodeClips(config.dataset, *models(config), Resources(), ids=right).setup()


def test_every_byte_of_a_text_encoder_counts(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(9 << 20))
    before = fingerprint(str(tmp_path))
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"1")
    assert fingerprint(str(tmp_path)) != before


def test_a_clip_too_large_to_send_is_told(tmp_path: Path) -> None:
    mp4 = film(tmp_path, "a" * 12, moving_square(3), 8).mp4
    long = Film("a" * 12, mp4, width=1280, height=720, n_frames=401, fps=24.0)
    dataset = write_shards(tmp_path / "dataset", [[long]])
    about = about_latents(EncodeConfig(dataset.uri, text=str(tiny_folder())))
    frames = FrameConfig(pixels=1280 * 720, fps=24.0, max_frames=401)
    told = r"1.03 GiB .*\(401 of 1280 x 720\).* may have 1 GiB. Lower --frames.max_frames or --frames.pixels"
    with pytest.raises(BadInput, match=told):
        plan(dataset, frames, about)
    (part,) = plan(dataset, replace(frames, max_frames=387), about)[0].parts
    assert part["clips"][0]["frames"] == 385
    assert CLIP_BYTES >= 385 * 1280 * 720 * 3


def test_parts_grow_with_batches(tmp_path: Path) -> None:
    mp4 = film(tmp_path, "a" * 12, moving_square(3), 8).mp4
    films = [Film(f"{n:012x}", mp4, width=640, height=360, n_frames=121, fps=24.0) for n in range(4)]
    dataset = write_shards(tmp_path / "dataset", [films])
    about = about_latents(EncodeConfig(dataset.uri, text=str(tiny_folder())))
    frames = FrameConfig(pixels=640 * 360, fps=24.0, max_frames=121)  # 80 MiB a clip
    for batch_mb, clips in ((8, [1, 1, 1, 1]), (200, [2, 2]), (400, [4])):
        parts = plan(dataset, frames, about | {"batch_mb": batch_mb})[0].parts
        assert [len(part["clips"]) for part in parts] == clips


def test_clips_that_became_pictures_are_told(
    config: EncodeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(config)
    assert (
        "\n1 clips are too short for a step of the VAE (5 pictures at 8 per second" in capsys.readouterr().out
    )


def test_latents_that_are_still_made_are_no_choice(config: EncodeConfig) -> None:
    encode(config)
    dataset = Dataset(config.dataset)
    dataset.write_bytes(b"", "latents", "wan-4x8x8-00000000", "a.tar")
    assert len(LatentDataset(dataset.uri).clips) == 2
