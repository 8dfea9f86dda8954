"""Shards: placement, tars that plain webdataset reads, offsets that find a clip, reruns that do nothing twice."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import webdataset
from conftest import moving_square, write_video
from sorted_tables import assert_sorted

from curate.dataset import Dataset
from curate.shards import ShardConfig, TarWriter, bucket, plan_shards
from curate.tables import CAPTIONS
from pipelines.curate import main as curate
from pipelines.decide import main as decide
from pipelines.shard import main as shard


@pytest.mark.parametrize(
    ("size", "duration_s", "name"),
    [
        ((640, 360), 4.2, "16x9_360p_4s"),
        ((640, 272), 3.9, "21x9_240p_2s"),
        ((360, 640), 40.0, "9x16_360p_32s"),
        ((200, 200), 0.4, "1x1_144p_1s"),
        ((1440, 1080), 8.0, "4x3_1080p_8s"),
    ],
)
def test_bucket(size: tuple[int, int], duration_s: float, name: str) -> None:
    assert bucket(*size, duration_s) == name


def test_plan_places_every_clip_once_within_the_limits() -> None:
    clips = [
        {
            "clip_id": f"{i:024x}",
            "source_id": f"{i // 10}",
            "bucket": "16x9_360p_4s" if i % 3 else "1x1_144p_1s",
            "mp4_size": 100_000 + i,
        }
        for i in range(100)
    ]
    plan = plan_shards(clips, ShardConfig(target_mib=1.0, max_clips=8))
    placed = [key for keys in plan.values() for key in keys]
    assert sorted(placed) == [clip["clip_id"] for clip in clips]
    assert max(map(len, plan.values())) == 8
    assert plan == plan_shards(clips[::-1], ShardConfig(target_mib=1.0, max_clips=8))
    first = [int(key, 16) for key in plan["16x9_360p_4s/00000.tar"]]
    assert first != sorted(first)  # neighbours come from different sources


@pytest.mark.parametrize(
    ("counts", "touching"),
    [
        ([10] * 10, 0),
        ([50, 30, 20], 0),
        ([50, 1, 1, 40, 8], 0),
        ([50, 50], 0),
        ([51, 49], 1),
        ([3, 2], 0),
        ([1], 0),
        ([5], 4),  # one source alone: nothing can be done
        ([60, 40], 19),  # 41 of the 60 find a place of their own
    ],
)
def test_neighbours_come_from_different_sources_wherever_possible(counts: list[int], touching: int) -> None:
    clips = [
        {"clip_id": f"{s:04x}{i:08x}", "source_id": str(s), "bucket": "b", "mp4_size": 1}
        for s, count in enumerate(counts)
        for i in range(count)
    ]
    (keys,) = plan_shards(clips, ShardConfig()).values()
    assert sorted(keys) == sorted(clip["clip_id"] for clip in clips)
    assert sum(a[:4] == b[:4] for a, b in pairwise(keys)) == touching
    assert plan_shards(clips[::-1], ShardConfig()) == plan_shards(clips, ShardConfig())
    if len(clips) > 5:
        assert keys != next(iter(plan_shards(clips, ShardConfig(seed=1)).values()))


def test_keys_that_would_break_readers_are_refused() -> None:
    for key in ("../../etc/passwd", "a.b", "", "ABCDEF123456"):
        with pytest.raises(ValueError, match="hex digits"):
            TarWriter(io.BytesIO()).add(key, "mp4", b"")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four sources of two shots each, curated, with one caption."""
    films = tmp_path / "films"
    films.mkdir()
    for i in range(4):
        pictures = np.concatenate([moving_square(40, seed=i), 255 - moving_square(50, seed=i + 50, step=3)])
        write_video(films / f"film {i}.mp4", pictures)
    (films / "film 0.txt").write_text("a bright square")
    out = tmp_path / "dataset"
    assert curate(["--input", str(films), "--dataset", str(out), "--engine=local", "--clip.model=off"]) == 0
    return out


def add_caption(folder: Path, clip_id: str, text: str) -> None:
    row = dict.fromkeys(CAPTIONS.names) | {
        "caption_id": "c1", "clip_id": clip_id, "kind": "dense", "text": text, "status": "ok", "captioner": "x",
    }  # fmt: skip
    Dataset(str(folder)).write("captions", pa.Table.from_pylist([row], schema=CAPTIONS))


def test_plain_webdataset_reads_the_shards(dataset: Path) -> None:
    clips = Dataset(str(dataset)).read("clips", ["clip_id", "n_frames"]).to_pylist()
    add_caption(dataset, clips[0]["clip_id"], "a square <script> moves")
    assert shard(["--dataset", str(dataset), "--engine=local", "--pack.max_clips=3"]) == 0
    tars = sorted(map(str, (dataset / "shards").rglob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode(only="json"))
    assert len(samples) == 8
    assert {s["__key__"] for s in samples} == {clip["clip_id"] for clip in clips}
    for sample in samples:
        assert sample["mp4"][4:8] == b"ftyp"
        assert sample["json"]["clip_id"] == sample["__key__"]
    captioned = next(s for s in samples if s["__key__"] == clips[0]["clip_id"])
    assert captioned["json"]["captions"][0]["text"] == "a square <script> moves"


def test_index_finds_each_member_by_its_bytes(dataset: Path) -> None:
    shard(["--dataset", str(dataset), "--engine=local"])
    store = Dataset(str(dataset))
    index = store.read("shards").to_pylist()
    assert_sorted(store, "sources", "clips", "decisions", "shards")
    for row in index:
        data = store.read_bytes(
            "shards", row["shard"], start=row["json_offset"], end=row["json_offset"] + row["json_size"]
        )
        assert json.loads(data)["clip_id"] == row["clip_id"]
        start = row["mp4_offset"]
        assert store.read_bytes("shards", row["shard"], start=start, end=start + 8)[4:] == b"ftyp"


def test_rerun_writes_nothing_and_a_new_caption_rewrites_without_cutting(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(["--dataset", str(dataset), "--engine=local"])
    before = {p: p.stat().st_mtime_ns for p in (dataset / "shards").rglob("*.tar")}
    shard(["--dataset", str(dataset), "--engine=local"])
    assert {p: p.stat().st_mtime_ns for p in (dataset / "shards").rglob("*.tar")} == before

    clip = Dataset(str(dataset)).read("clips", ["clip_id"]).to_pylist()[0]["clip_id"]
    add_caption(dataset, clip, "new words")
    capsys.readouterr()
    shard(["--dataset", str(dataset), "--engine=local"])
    assert "cut: " not in capsys.readouterr().err  # nothing was cut again
    (row,) = (r for r in Dataset(str(dataset)).read("shards").to_pylist() if r["clip_id"] == clip)
    data = (dataset / "shards" / row["shard"]).read_bytes()[row["json_offset"] :][: row["json_size"]]
    assert json.loads(data)["captions"][0]["text"] == "new words"
    assert not list((dataset / "_state/cuts").rglob("*.mp4"))


def test_other_decisions_drop_their_clips_from_the_shards(dataset: Path) -> None:
    shard(["--dataset", str(dataset), "--engine=local"])
    decide(["--dataset", str(dataset), "--rules.duration_s.min=1.8"])
    shard(["--dataset", str(dataset), "--engine=local"])
    assert len(Dataset(str(dataset)).read("shards")) == 4
    tars = sorted(map(str, (dataset / "shards").rglob("*.tar")))
    assert len(list(webdataset.WebDataset(tars, shardshuffle=False))) == 4


def test_a_source_that_went_away_is_an_error_per_clip(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset.parent / "films" / "film 2.mp4").unlink()
    assert shard(["--dataset", str(dataset), "--engine=local"]) == 0
    rows = Dataset(str(dataset)).read("shards").to_pylist()
    failed = [row for row in rows if row["error"]]
    assert len(rows) == 8
    assert len(failed) == 2
    assert "film 2.mp4" in failed[0]["error"]
    assert "6 clips in" in capsys.readouterr().out
