"""The whole road on a small scale: rendered films, and a folder of one's own with bad files in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video
from sorted_tables import assert_sorted

from curate.dataset import Dataset
from curate.frames import Video
from pipelines.demo.__main__ import main as demo
from pipelines.demo.summary import mean_of_last, sparkline


@pytest.mark.slow
def test_demo_on_rendered_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    flags = ["--out", str(out), "--films=6", "--steps=12", "--engine=local"]
    assert demo([*flags, '--prompts=["a small red disc moves left"]']) == 0
    said = capsys.readouterr().out
    assert "[8/8] report" in said
    assert "files  6 in = 6 ok + 0 partial + 0 exact copies + 0 failed" in said

    dataset = Dataset(str(out / "dataset"))
    assert_sorted(dataset, "sources", "clips", "decisions", "captions", "shards", "latents")
    decisions = dataset.read("decisions").to_pylist()
    kept = {row["clip_id"] for row in decisions if row["keep"]}
    assert kept
    assert f"clips  {len(decisions)} in = {len(kept)} kept + {len(decisions) - len(kept)} rejected" in said
    captions = dataset.read("captions").to_pylist()
    assert {(c["clip_id"], c["kind"]) for c in captions if c["captioner"] == "coca"} == {
        (clip, kind) for clip in kept for kind in ("short", "dense")
    }
    assert all("world_captioner" in c["flags"] for c in captions if c["captioner"] == "coca")
    assert {row["clip_id"] for row in dataset.read("shards").to_pylist() if row["shard"]} == kept
    (video,) = (out / "samples").glob("*.mp4")
    with Video(str(video)) as played:
        assert len(list(played.frames())) >= 9
    assert (out / "report.html").stat().st_size > 50_000
    losses = [json.loads(line)["loss"] for line in (out / "runs/dit/metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()

    assert (
        demo([*flags, '--prompts=["a small red disc moves left"]']) == 0
    )  # goes on where it stopped: at the end
    again = capsys.readouterr().out
    assert "6 of 6 files are done already" in again
    assert "was already finished" in again


@pytest.mark.slow
def test_demo_on_own_footage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = tmp_path / "my films"
    films.mkdir()
    write_video(films / "good one.mp4", moving_square(60, width=320, height=192))
    write_video(films / "one frame.mp4", moving_square(1))
    (films / "bad.mp4").write_text("no video")
    flags = ["--footage", str(films), "--out", str(tmp_path / "run"), "--steps=4", "--engine=local"]
    assert demo([*flags, '--prompts=["a square"]']) == 0
    said = capsys.readouterr().out
    assert "know only the procedural world" in said
    assert "--clip ARCH/TAG" in said
    assert "--captioner URL#MODEL" in said
    assert "3 in = 2 ok + 0 partial + 0 exact copies + 1 failed" in said
    assert "bad.mp4: not a readable video" in said


def test_demo_ends_well_when_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_video(films / "black.mp4", np.zeros((50, 96, 160, 3), np.uint8))
    flags = ["--footage", str(films), "--out", str(tmp_path / "run"), "--clip=off", "--engine=local"]
    assert demo(flags) == 0
    said = capsys.readouterr().out
    assert "No clip was kept" in said
    assert "1 in = 0 kept + 1 rejected: black_ratio 1" in said
    assert (tmp_path / "run" / "report.html").exists()


def test_sparkline() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], width=8) == "█▇▆▅▄▃▂▁"
    assert sparkline([1.0, 1.0], width=8) == "▁▁"
    assert mean_of_last([9.0] * 90 + [1.0] * 10) == 1.0
