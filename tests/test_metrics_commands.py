"""Prometheus reads from Ray what the tables and files of a dataset say, for all four commands over one dataset."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video
from ray_metrics import Exported, exported, of
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from curate.decide import reason_name
from pipelines.curate import main as curate
from pipelines.encode import main as encode
from pipelines.recaption import main as recaption
from pipelines.shard import main as shard

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    """A dataset on which all commands have run.

    Attributes:
        dataset: the dataset.
        sizes: bytes of its films by name.
        found: what Prometheus read at the end.
        decided: the same just after `curate`: a gauge is there for a while only.
        lines: the last line that each stage told.
    """

    dataset: Dataset
    sizes: dict[str, int]
    found: Exported
    decided: Exported
    lines: list[str]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films that move, a copy, one that stands still and one that is none: 5 clips, 3 kept."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(3):
        write_video(folder / f"{i}.mp4", moving_square(40, seed=i, width=320, height=192))
    write_video(folder / "still.mp4", np.repeat(moving_square(1, seed=9, width=320, height=192), 40, 0))
    (folder / "copy.mp4").write_bytes((folder / "1.mp4").read_bytes())
    (folder / "bad.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def run(films: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    """The commands one after another; the third film goes away after the first of them.

    Ray exports every ten seconds, and when the process that counts has ended.
    """
    uri = str(tmp_path_factory.mktemp("run") / "dataset")
    sizes = {path.name: path.stat().st_size for path in films.iterdir()}
    with redirect_stderr(io.StringIO()) as told:
        assert curate(["--input", str(films), "--dataset", uri, "--clip.model=off"]) == 0
        decided = exported(uri, "curate/decide")
        (films / "2.mp4").unlink()
        assert recaption(["--dataset", uri, "--captioner.coca.model", str(tiny_folder())]) == 0
        assert shard(["--dataset", uri, "--cut.preset=ultrafast"]) == 0
        frames = ("pixels=1024", "side=16", "fps=8", "max_frames=9")
        flags = [f"--frames.{flag}" for flag in frames]
        assert encode(["--dataset", uri, "--text", str(tiny_folder()), *flags]) == 0
    last = ("curate/decide", "recaption/commit", "shard/pack", "encode/pack")
    lines = [line.split(", done in")[0] for line in told.getvalue().splitlines() if ", done in" in line]
    return Run(Dataset(uri), sizes, exported(uri, *last), decided, lines)


def told(run: Run, metric: str, stage: str) -> dict[str, float]:
    return of(run.found, f"ray_reelmill_{metric}", stage)


def kept(run: Run) -> int:
    """Bytes of the two films of which clips are kept and that are still there."""
    return run.sizes["0.mp4"] + run.sizes["1.mp4"]


def size_of(run: Run, suffix: str, folder: str) -> int:
    return sum(path.stat().st_size for path in Path(run.dataset.uri, folder).rglob(f"*{suffix}"))


def test_curate(run: Run) -> None:
    assert told(run, "files_total", "curate/analyse") == {"ok": 5, "failed/permanent": 1}
    assert told(run, "files_total", "curate/commit") == {"ok": 5, "failed": 1}
    assert told(run, "clips_total", "curate/commit") == {"found": 5}  # the exact copy is in no table
    assert told(run, "clips_total", "curate/text") == {"read": 4, "rejected/static_ratio": 1}
    assert told(run, "bytes_total", "curate/analyse") == {"read": sum(run.sizes.values())}
    # Two keyframes of each clip.
    assert told(run, "bytes_total", "curate/text") == {"decoded": 4 * 2 * 374 * 224 * 3}
    for stage in ("curate/analyse", "curate/clip", "curate/text", "curate/commit"):
        assert told(run, "stage_seconds_count", stage)[""] == 6
        assert told(run, "stage_seconds_bucket", stage)["+Inf"] == 6
        assert 0 < told(run, "busy_seconds_total", stage)[""] < 60

    assert Counter(run.dataset.read("sources", ["status"])["status"].to_pylist()) == {"ok": 5, "failed": 1}
    decisions = run.dataset.read("decisions", ["keep", "reason"]).to_pylist()
    outcomes = Counter(
        "kept" if row["keep"] else f"rejected/{reason_name(row['reason'])}" for row in decisions
    )
    assert outcomes == {"kept": 3, "rejected/static_ratio": 1}
    assert told(run, "clips_total", "curate/decide") == outcomes
    assert of(run.decided, "ray_reelmill_decided", "curate/decide") == outcomes
    assert run.lines[:5] == [
        "curate/analyse: 6/6 files, ok 5, failed 1, clips 5",
        "curate/clip: 6/6 files, clips 5",
        "curate/text: 6/6 files, clips read 4, clips rejected 1",
        "curate/commit: 6/6 files, ok 5, failed 1, clips 5",
        "curate/decide: 4 clips, kept 3, rejected 1",
    ]


def test_recaption(run: Run) -> None:
    captions = Counter(run.dataset.read("captions", ["status"])["status"].to_pylist())
    assert captions == {"ok": 4, "error": 2}
    for stage in ("recaption/caption", "recaption/commit"):
        assert told(run, "captions_total", stage) == captions
        assert 0 < told(run, "busy_seconds_total", stage)[""] < 60
    assert told(run, "clips_total", "recaption/frames") == {"read": 2, "failed": 1}
    pictures = 4 * 144 * 240 * 3
    assert told(run, "bytes_total", "recaption/frames") == {"read": kept(run), "decoded": 2 * pictures}
    assert told(run, "stage_seconds_count", "recaption/frames")[""] == 3  # one source each
    assert "recaption/commit: 6/6 captions, ok 4, error 2" in run.lines


def test_shard(run: Run) -> None:
    shards = run.dataset.read("shards", ["error", "mp4_size"]).to_pylist()
    assert [row["error"] is None for row in shards].count(True) == 2
    assert told(run, "clips_total", "shard/cut") == {"cut": 2, "failed": 1}
    assert told(run, "clips_total", "shard/pack") == {"packed": 2}
    cut = sum(row["mp4_size"] or 0 for row in shards)
    assert told(run, "bytes_total", "shard/cut") == {"read": kept(run), "written": cut}
    assert told(run, "bytes_total", "shard/pack") == {"read": cut, "written": size_of(run, ".tar", "shards")}
    assert told(run, "stage_seconds_count", "shard/cut")[""] == 3
    assert told(run, "stage_seconds_count", "shard/pack")[""] == 1
    assert "shard/cut: 3/3 files, clips cut 2, clips failed 1" in run.lines
    assert "shard/pack: 1/1 shards, clips packed 2" in run.lines


def test_encode(run: Run) -> None:
    latents = run.dataset.read("latents", ["error", "h", "w"]).to_pylist()
    made = [(row["h"], row["w"]) for row in latents if row["error"] is None]
    assert made == [(2, 4)] * 2  # of 16 x 32 pictures; the third clip is in no shard
    for stage, outcome in (("decode", "decoded"), ("encode", "encoded"), ("pack", "packed")):
        assert told(run, "clips_total", f"encode/{stage}") == {outcome: 2}
        assert 0 < told(run, "busy_seconds_total", f"encode/{stage}")[""] < 60
    shards = run.dataset.read("shards", ["mp4_size", "json_size"]).to_pylist()
    members = sum((row["mp4_size"] or 0) + (row["json_size"] or 0) for row in shards)
    pictures = 9 * 16 * 32 * 3
    assert told(run, "bytes_total", "encode/decode") == {"read": members, "decoded": 2 * pictures}
    tars = size_of(run, ".tar", "latents")
    assert told(run, "bytes_total", "encode/pack") == {"written": tars}
    assert told(run, "bytes_total", "encode/encode")["written"] > 2 * 8000  # of text features alone
    assert "encode/pack: 1/1 shards, clips packed 2" in run.lines


def test_nothing_waits_at_the_end(run: Run) -> None:
    queues = {key[2]: value for key, value in run.found.items() if key[0] == "ray_reelmill_queue"}
    assert queues["encode/pack"] == 0
    assert set(queues.values()) == {0}
