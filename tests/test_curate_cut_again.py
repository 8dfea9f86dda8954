"""Cuts are done once: failures are tried again, finished clips never, whatever was killed on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from numbered_films import film, shown_in, spans_of

from curate.cut import CutConfig
from curate.dataset import Dataset
from curate.read_shard import ShardReader
from curate.shard_plan import CutStore, cut_units, kept_clips
from curate.shard_stages import CutClips
from curate.tables import CLIPS, DECISIONS, SOURCES
from pipelines.shard import main as shard

FLAGS = ["--engine=local", "--cut.preset=ultrafast", "--pack.max_clips=7"]
N_FILMS, N_CLIPS, FRAMES = 3, 6, 40


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three films of 240 numbered frames with six kept clips each, as `curate` and `decide` leave them."""
    (tmp_path / "films").mkdir()
    dataset = Dataset(str(tmp_path / "dataset"))
    sources, clips = [], []
    for number in range(N_FILMS):
        path = film(tmp_path / "films" / f"{number}.mp4", N_CLIPS * FRAMES)
        source = f"{number:032x}"
        sources.append(
            dict.fromkeys(SOURCES.names)
            | {"source_id": source, "uri": str(path), "status": "ok", "duration_s": N_CLIPS * FRAMES / 25}
        )
        spans = spans_of(path, [(i * FRAMES, (i + 1) * FRAMES) for i in range(N_CLIPS)])
        for i, span in enumerate(spans):
            clips.append(
                dict.fromkeys(CLIPS.names)
                | {
                    "clip_id": f"{number:016x}{i:08x}",
                    "source_id": source,
                    "start_s": span.start_s,
                    "end_s": span.end_s,
                    "n_frames": span.n_frames,
                    "width": span.w,
                    "height": span.h,
                }
            )
    dataset.write("sources", pa.Table.from_pylist(sources, schema=SOURCES))
    dataset.write("clips", pa.Table.from_pylist(clips, schema=CLIPS))
    decide(dataset, [clip["clip_id"] for clip in clips])
    return dataset


def decide(dataset: Dataset, kept: list[str]) -> None:
    rows = [
        dict.fromkeys(DECISIONS.names) | {"clip_id": clip_id, "keep": clip_id in kept, "weight": 1.0}
        for clip_id in dataset.read("clips", ["clip_id"])["clip_id"].to_pylist()
    ]
    dataset.write("decisions", pa.Table.from_pylist(rows, schema=DECISIONS))


def run(dataset: Dataset, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[float, str]:
    """Seconds encoded by a run of `reelmill shard`, and what it printed."""
    capsys.readouterr()
    assert shard(["--dataset", dataset.uri, *FLAGS, *flags]) == 0
    out = capsys.readouterr().out
    told = re.search(r"([\d.]+) s encoded now, ([\d.]+) s kept; (\d+) frames decoded", out)
    assert told is not None
    return float(told[1]), out


def tars(dataset: Dataset) -> dict[str, bytes]:
    folder = Path(dataset.uri, "shards")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_more_is_encoded_than_kept(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    encoded_s, out = run(dataset, capsys)
    assert encoded_s == pytest.approx(28.8)
    assert "28.8 s kept" in out
    rows = dataset.read("shards").to_pylist()
    assert sum(row["duration_s"] for row in rows) == pytest.approx(28.8)
    decoded = re.search(r"(\d+) frames decoded", out)
    assert decoded is not None
    assert int(decoded[1]) <= 1.03 * N_FILMS * N_CLIPS * FRAMES
    assert run(dataset, capsys)[0] == 0.0


def test_failed_cuts_are_tried_again_and_the_others_are_not(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "films/1.mp4"
    path.rename(tmp_path / "away.mp4")
    encoded_s, out = run(dataset, capsys)
    assert encoded_s == pytest.approx(19.2)
    assert "12 clips in" in out
    assert "+ 6 failed" in out
    failed = [row for row in dataset.read("shards").to_pylist() if row["error"]]
    assert len(failed) == 6
    assert all("1.mp4" in row["error"] for row in failed)
    assert "6 failed clips" in run(dataset, capsys)[1]  # still away
    (tmp_path / "away.mp4").rename(path)
    encoded_s, out = run(dataset, capsys)
    assert encoded_s == pytest.approx(9.6)
    assert "18 clips in" in out
    assert "+ 0 failed" in out


def test_failures_of_an_interrupted_run_are_tried_again(dataset: Dataset, tmp_path: Path) -> None:
    units = cut_units(kept_clips(dataset), CutConfig(preset="ultrafast"))
    path = tmp_path / "films/0.mp4"
    path.rename(tmp_path / "away.mp4")
    stage = CutClips(dataset.uri, CutConfig(preset="ultrafast"))
    stage.setup()
    assert [row["failed"] for row in stage(units[:2])] == [N_CLIPS, 0]
    todo = CutStore(dataset).missing(units)
    assert [(unit["unit"], len(unit["spans"])) for unit in todo] == [
        (units[0]["unit"], N_CLIPS),
        (units[2]["unit"], N_CLIPS),
    ]
    (tmp_path / "away.mp4").rename(path)
    assert [row["failed"] for row in stage(todo)] == [0, 0]
    assert CutStore(dataset).missing(units) == []


def test_new_decisions_cut_only_what_is_not_cut_yet(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = dataset.read("clips", ["clip_id"])["clip_id"].to_pylist()
    decide(dataset, clips[::2])
    assert run(dataset, capsys)[0] == pytest.approx(14.4)
    decide(dataset, clips[::2] + clips[1:4:2])
    assert run(dataset, capsys)[0] == pytest.approx(3.2)
    decide(dataset, clips)
    run(dataset, capsys)
    apart = tars(dataset)
    shutil.rmtree(Path(dataset.uri, "shards"))
    assert run(dataset, capsys)[0] == pytest.approx(28.8)
    assert tars(dataset) == apart  # in one run or in three
    assert run(dataset, capsys, "--cut.crf=30")[0] == pytest.approx(28.8)  # other settings, other clips


def test_a_killed_run_cuts_nothing_twice(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Dataset(str(tmp_path / "whole"))
    shutil.copytree(dataset.uri, whole.uri)
    run(whole, capsys)
    cuts = Path(dataset.uri, "_state/cuts")
    words = [sys.executable, "-m", "pipelines.shard", "--dataset", dataset.uri, *FLAGS]
    job = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(cuts.glob("*.parquet")) and job.poll() is None:
        time.sleep(0.002)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    done = len(list(cuts.glob("*.parquet")))
    assert done >= 1
    assert run(dataset, capsys)[0] == pytest.approx(9.6 * (N_FILMS - done))
    assert tars(dataset) == tars(whole)


def test_a_child_that_dies_costs_no_clip(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cutting process is killed after its first clip: what was finished stands, the rest is cut alone."""
    scratch = Path(dataset.uri, "scratch")
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    config = replace(CutConfig(), preset="slow", threads=1)  # slow enough to be killed on the way
    stage = CutClips(dataset.uri, config)
    stage.setup()
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until and not list(scratch.rglob("*.json")):
            time.sleep(0.001)
        process = stage._child._process
        assert process is not None
        killed.append(process.pid)
        process.kill()

    units = cut_units(kept_clips(dataset), config)
    killer = threading.Thread(target=kill)
    killer.start()
    (row,) = stage([units[0]])
    killer.join()
    assert killed
    assert (row["clips"], row["failed"]) == (N_CLIPS, 0)
    facts = CutStore(dataset).facts(units[0])
    assert [facts[span["cut_id"]]["error"] for span in units[0]["spans"]] == [None] * N_CLIPS
    for place, span in enumerate(units[0]["spans"]):
        path = Path(dataset.uri, facts[span["cut_id"]]["place"]["path"])
        assert shown_in(path)[0] == list(range(place * FRAMES, (place + 1) * FRAMES))


def test_a_source_past_its_deadline_fails_with_the_reason(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run(dataset, capsys, "--cut.deadline_base_s=0.001", "--cut.deadline_factor=0")
    assert "+ 18 failed" in out
    assert "deadline" in dataset.read("shards").to_pylist()[0]["error"]
    assert "+ 0 failed" in run(dataset, capsys)[1]
    assert len(ShardReader(dataset).read(f"{2:016x}{5:08x}")[0]) > 1000
