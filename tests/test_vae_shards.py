"""`reelmill train-vae --dataset`: random spacetime crops of the clips in WebDataset shards, decoded on the fly."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import write_video

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.shards import TarWriter
from curate.tables import TABLES
from pipelines.train_vae import main
from pipelines.vae_shards import ShardCrops, read_window
from pipelines.vae_windows import CropConfig, Span, Window, draw_window, frames_at, middle_window

CONFIG = CropConfig(crop=16, frames=5, image_share=0.3, fps=(6.0, 12.0), largest=48, held_out=0.3)
FPS = 12


def key(number: int) -> str:
    return f"{number:032x}"


def film(number: int, frames: int = 24) -> np.ndarray:
    """(T, 48, 64, 3) uint8: red tells the clip, green the time, blue the place across."""
    clip = np.zeros((frames, 48, 64, 3), np.uint8)
    clip[..., 0] = 20 * number
    clip[..., 1] = (np.arange(frames) * 8)[:, None, None]
    clip[..., 2] = np.arange(64) * 3
    return clip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Ten clips of five sources in two tars; clip 3 is a picture, clip 4 is not decodable."""
    folder = tmp_path_factory.mktemp("shards")
    found = Dataset(folder / "dataset")
    rows, clips = [], []
    for tar_number in range(2):
        shard = f"wide/{tar_number:05d}.tar"
        with found.atomic_writer("shards", *shard.split("/")) as file:
            tar = TarWriter(file)
            for number in range(5 * tar_number, 5 * tar_number + 5):
                frames = 1 if number == 3 else 24
                path = write_video(folder / "clip.mp4", film(number, frames), fps=FPS, options={"crf": "4"})
                data = b"not a video" if number == 4 else path.read_bytes()
                mp4 = tar.add(key(number), "mp4", data)
                record = tar.add(key(number), "json", json.dumps({"clip_id": key(number)}).encode())
                row = {"clip_id": key(number), "shard": shard, "bucket": "wide", "width": 64, "height": 48}
                row |= {"fps": float(FPS), "n_frames": frames, "duration_s": frames / FPS}
                row |= {"mp4_offset": mp4[0], "mp4_size": mp4[1]}
                rows.append(row | {"json_offset": record[0], "json_size": record[1]})
                clips.append({"clip_id": key(number), "source_id": key(number // 2)})
            tar.close()
    rows.append({"clip_id": key(99), "error": "0 frames were cut"})
    found.write("shards", pa.Table.from_pylist(rows, schema=TABLES["shards"]))
    found.write("clips", pa.Table.from_pylist(clips, schema=TABLES["clips"]))
    return found


def test_a_step_is_the_same_each_time_and_shows_crops_of_clips_or_pictures(dataset) -> None:
    crops = ShardCrops(dataset.uri, CONFIG, batch=3, seed=0)
    batches = [crops(step) for step in range(30)]
    assert torch.equal(batches[5].frames, ShardCrops(dataset.uri, CONFIG, batch=3, seed=0)(5).frames)
    assert Counter(tuple(batch.frames.shape) for batch in batches).keys() == {
        (3, 5, 16, 16, 3),
        (12, 1, 16, 16, 3),
    }
    numbers = {int(name.split()[0], 16) for batch in batches for name in batch.names}
    learnt = {int(span.clip_id, 16) for span in crops.learnt}
    assert numbers <= learnt - {4}
    for batch in batches:
        for frames, name in zip(batch.frames.numpy().astype(int), batch.names, strict=True):
            number, start_s = int(name.split()[0], 16), float(name.split()[2])
            assert abs(frames[..., 0] - 20 * number).max() <= 14  # the pixels are of the clip that is named
            times = frames[..., 1].mean(axis=(1, 2)) / 8 / FPS
            assert times[0] == pytest.approx(start_s, abs=0.1)
            if len(times) > 1:
                steps = np.diff(times)
                assert 1 / 12 - 0.05 < steps.mean() < 1 / 6 + 0.05
    starts = {round(float(name.split()[2]), 1) for batch in batches for name in batch.names}
    assert len(starts) > 6


def test_a_source_is_held_out_whole(dataset) -> None:
    crops = ShardCrops(dataset.uri, CONFIG, batch=1, seed=0)
    source_of = {row["clip_id"]: row["source_id"] for row in dataset.read("clips").to_pylist()}
    sides = [{source_of[span.clip_id] for span in side} for side in (crops.learnt, crops.kept_back)]
    assert sides[1]
    assert not sides[0] & sides[1]
    clips = crops.validation(3)
    assert 1 <= len(clips) <= 3
    assert {tuple(clip.shape[2:4]) for clip in clips} == {(24, 32)}  # half of the largest side
    assert len(list(crops.typical(2))) == 2


def test_a_clip_that_cannot_be_decoded_is_told_once_and_passed_over(dataset, caplog) -> None:
    crops = ShardCrops(dataset.uri, replace(CONFIG, held_out=0.0), batch=8, seed=0)
    for step in range(8):
        crops(step)
    assert list(crops.failed) == [key(4)]
    assert "not a readable video" in crops.failed[key(4)]
    assert sum(key(4) in message for message in caplog.messages) == 1

    crops.learnt = [span for span in crops.learnt if span.clip_id == key(4)]
    crops._videos = crops.learnt
    with pytest.raises(
        BadInput, match=r"batch 3: 16 clips in a row could not be decoded, the last one 0+4 in wide/00000"
    ):
        crops(3)


def test_where_there_is_too_little_it_is_said(dataset, tmp_path) -> None:
    with pytest.raises(
        BadInput, match=r"10 clips in its shards, \d of them to learn from and 0 with 99 frames"
    ):
        ShardCrops(dataset.uri, replace(CONFIG, frames=97 + 2), batch=1, seed=0)
    with pytest.raises(BadInput, match=r"has no shards table\. Run `reelmill shard"):
        ShardCrops(str(tmp_path / "empty"), CONFIG, batch=1, seed=0)


def test_windows_lie_in_the_clip_and_vary() -> None:
    span = Span("c", "s", 0, 0, width=640, height=360, fps=24.0, n_frames=49)  # 2 s
    config = CropConfig(crop=128, frames=17, fps=(8.0, 30.0), largest=512)
    windows = [draw_window(span, config, np.random.default_rng(i), 17) for i in range(300)]
    assert all(8.0 <= w.fps <= 24.0 and w.start_s >= 0.0 for w in windows)
    assert all(w.start_s + 16 / w.fps <= 48 / 24 + 1e-6 for w in windows)
    assert all(0 <= w.x <= w.width - 128 and 0 <= w.y <= w.height - 128 for w in windows)
    assert all(128 <= w.height <= 360 and abs(w.width / w.height - 16 / 9) < 0.02 for w in windows)
    assert min(w.height for w in windows) < 150
    assert max(w.height for w in windows) > 330
    small = draw_window(span._replace(width=64, height=48), config, np.random.default_rng(0), 17)
    assert (small.width, small.height, small.crop) == (171, 128, (128, 128))  # enlarged to fill the crop
    short = draw_window(span._replace(n_frames=18), config, np.random.default_rng(0), 17)
    assert short.fps >= 16 / (17 / 24)
    picture = draw_window(span._replace(n_frames=1), config, np.random.default_rng(0), 1)
    assert picture.start_s == 0.0
    assert frames_at(span, 8.0) == 17
    assert frames_at(span, 99.0) == 49
    middle = middle_window(span, config, 17)
    assert (middle.width, middle.height, middle.fps) == (455, 256, 24.0)
    assert middle.start_s == pytest.approx((2.0 - 16 / 24) / 2)


def test_a_window_is_what_it_says(tmp_path) -> None:
    data = write_video(tmp_path / "a.mp4", film(2), fps=FPS, options={"crf": "4"}).read_bytes()
    found = read_window(data, Window(0.5, 6.0, 4, 64, 48, 20, 8, (16, 24))).astype(int)
    assert found.shape == (4, 24, 16, 3)
    assert abs(found[..., 1].mean(axis=(1, 2)) - np.array([48, 64, 80, 96])).max() < 4  # frames 6, 8, 10, 12
    assert abs(found[..., 2].mean(axis=(0, 1)) - 3 * np.arange(20, 36)).max() < 6
    with pytest.raises(ValueError, match="4 of 5 frames were found: the video ends too early"):
        read_window(data, Window(1.5, 6.0, 5, 64, 48, 0, 0, (16, 16)))


def test_a_short_run_from_the_command_line(dataset, tmp_path: Path, capsys) -> None:
    asked = [f"--dataset={dataset.uri}", "--training.steps=2", "--typical_clips=3", "--validation_clips=2",
             "--crops.crop=16", "--crops.frames=5", "--crops.fps=[6,12]", "--crops.largest=48",
             "--crops.held_out=0.3", "--vae.widths=[8,8,8]", "--vae.channels=4"]  # fmt: skip
    assert main([f"--out={tmp_path}", *asked]) == 0
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 2
    assert row["val_psnr"] > 10
    assert (tmp_path / "vae/model.safetensors").is_file()
    assert (tmp_path / "samples/step-00000002.png").is_file()
    assert "val_ssim" in capsys.readouterr().out
    assert main([f"--out={tmp_path}/b", *asked, "--crops.frames=6"]) == 2
    assert "crops of 16 pixels and 6 frames do not fit this VAE" in capsys.readouterr().err
