"""The report's figures against literal counts: what comes in must add up to what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_dataset import CLIPS, ERROR, build, clip_id

from curate.dataset import Dataset
from curate.funnel import count_funnel
from curate.tables import CAPTIONS, DECISIONS, SHARDS
from pipelines import report_data as data
from pipelines import report_scores as scores
from pipelines.query import connect
from pipelines.report_bins import bars
from pipelines.report_runs import read_metrics, runs, samples, thin


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("report"))


def parts(stage: dict) -> dict[str, tuple[int, str]]:
    return {part["name"]: (part["n"], part["outcome"]) for part in stage["parts"]}


def test_the_funnel_adds_up(dataset: Dataset) -> None:
    stages = data.funnel(connect(dataset))
    assert [(stage["name"], stage["total"]) for stage in stages] == [
        ("files in", 4), ("shots found", 8), ("kept shots to caption", 5), ("kept shots to shard", 5),
        ("kept shots to encode", 5),
    ]  # fmt: skip
    for stage in stages:
        assert sum(part["n"] for part in stage["parts"]) == stage["total"]
    assert parts(stages[0]) == {"ok": (2, "good"), "read in part": (1, "good"), "failed": (1, "failed")}
    assert parts(stages[1]) == {
        "kept": (5, "good"), "black ratio": (1, "rejected"), "motion": (1, "rejected"), "duplicate": (1, "rejected")
    }  # fmt: skip
    assert parts(stages[2]) == {"captioned": (5, "good")}


def test_the_funnel_is_that_of_curate(dataset: Dataset) -> None:
    told = count_funnel(dataset)
    files, shots = data.funnel(connect(dataset))[:2]
    assert (files["total"], shots["total"], parts(shots)["kept"][0]) == (told.sources, told.clips, told.kept)
    assert {name.replace("_", " "): n for name, n in told.rejected.items()} == {
        part["name"]: part["n"] for part in shots["parts"] if part["outcome"] == "rejected"
    }


def test_what_failed_and_what_was_not_done_yet_is_counted(tmp_path: Path) -> None:
    dataset = build(tmp_path, tables=("sources", "clips", "decisions"))
    bad = [{"clip_id": clip_id("a0"), "error": "no space"}, {"clip_id": clip_id("a1"), "shard": "x/0.tar"}]
    dataset.write("shards", pa.Table.from_pylist(bad, schema=SHARDS))
    tried = [
        {"caption_id": "1", "clip_id": clip_id("a0"), "kind": "original", "text": "mine", "status": "ok"},
        {
            "caption_id": "2",
            "clip_id": clip_id("b0"),
            "kind": "dense",
            "text": None,
            "status": "error",
            "error": "e",
        },
        {"caption_id": "3", "clip_id": clip_id("c0"), "kind": "dense", "text": None, "status": "refused"},
        {"caption_id": "4", "clip_id": clip_id("c0"), "kind": "short", "text": "yes", "status": "ok"},
    ]
    dataset.write("captions", pa.Table.from_pylist(tried, schema=CAPTIONS))
    captions, shards, latents = data.funnel(connect(dataset))[2:]
    assert parts(captions) == {"captioned": (1, "good"), "failed": (1, "failed"), "not yet": (3, "waiting")}
    assert parts(shards) == {"in shards": (1, "good"), "failed": (1, "failed"), "not yet": (3, "waiting")}
    assert parts(latents) == {"not yet": (5, "waiting")}
    n, errors = data.errors(connect(dataset))
    assert n == 4
    assert [row["error"] for row in errors][1:] == [ERROR, "e", "no space"]


def test_only_clips(tmp_path: Path) -> None:
    tables = connect(build(tmp_path, tables=("sources", "clips")))
    assert parts(data.funnel(tables)[1]) == {"not decided yet": (8, "waiting")}
    assert len(data.gallery(tables, 3)) == 3
    assert scores.histograms(tables)[1]["limits"] == []
    assert data.captions(tables) == []


def test_histograms_count_every_shot_and_know_the_limit(dataset: Dataset) -> None:
    found = {score["name"]: score for score in scores.histograms(connect(dataset))}
    motion = found["motion"]
    assert motion["limits"] == [{"op": "<", "bound": 0.5}]
    assert (sum(motion["kept"]), sum(motion["rejected"])) == (4, 3)
    assert (motion["n"], motion["nulls"], motion["median"]) == (7, 1, 3.0)
    assert motion["reasons"] == ["flow needs two frames (1)"]
    # Bins of 0.2 over 0..6, one moved to end at the limit: 0.02 and 0.12 lie in the first; 3.0 is kept and rejected
    assert motion["edges"][:5] == [0.0, 0.2, 0.5, 0.6, 0.8]
    place = motion["edges"].index(3.0)
    assert (motion["rejected"][0], motion["kept"][place], motion["rejected"][place]) == (2, 1, 1)
    assert found["black_ratio"]["limits"] == [{"op": ">", "bound": 0.1}]
    assert (found["nsfw"]["n"], found["nsfw"]["nulls"], found["nsfw"]["kept"]) == (0, 8, [])
    assert found["luma"]["about"].startswith("mean luma")


def test_outliers_do_not_flatten_a_histogram() -> None:
    values = np.concatenate([np.linspace(0, 1, 999), [1000.0]])
    binned = bars(values, np.ones(1000, bool), [2.0])
    assert (binned["edges"][0], binned["edges"][-1]) == (0.0, 2.0)  # the limit is always inside
    assert binned["over"] == 1
    assert sum(binned["kept"]) == 1000
    assert binned["max"] == 1000.0


def test_the_gallery_takes_rejected_clips_from_every_reason(dataset: Dataset) -> None:
    every = data.gallery(connect(dataset), 9)
    assert {clip["clip_id"][:2] for clip in every[:5]} == {"a0", "a1", "b0", "c0", "c1"}
    assert {clip["clip_id"][:2] for clip in every[5:]} == {"b1", "b2", "c2"}
    by_id = {clip["clip_id"][:2]: clip for clip in every}
    assert by_id["b1"]["reasons"] == CLIPS["b1"][3]
    assert by_id["a0"]["source_caption"] == "a red, then a green screen"
    assert [row["text"] for row in by_id["a0"]["captions"]] == [
        "a screen of one colour, dense, of a0", "a newer one, not chosen", "a screen, a0"
    ]  # fmt: skip
    assert [clip["clip_id"] for clip in data.gallery(connect(dataset), 2)] == [
        clip["clip_id"] for clip in every[:2] + every[5:7]
    ]


def test_rejected_clips_are_taken_in_turn_from_every_reason(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    decisions = dataset.read("decisions").to_pylist()
    for row in decisions:  # everything is dark but one shot, which is still
        still = row["clip_id"].startswith("c1")
        row |= {"keep": False, "reason": "motion 0.1 < 0.5" if still else "luma 3 < 20"}
    dataset.write("decisions", pa.Table.from_pylist(decisions, schema=DECISIONS))
    chosen = data.gallery(connect(dataset), 2)
    assert {clip["reason"] for clip in chosen} == {"motion 0.1 < 0.5", "luma 3 < 20"}


def test_captions_by_captioner(dataset: Dataset) -> None:
    rows = data.captions(connect(dataset))
    assert [(r["kind"], r["n"], r["with_text"], r["distinct_texts"]) for r in rows] == [
        ("dense", 10, 10, 6), ("rewrite", 1, 0, 0), ("short", 5, 5, 5)
    ]  # fmt: skip
    assert rows[2]["words"] == 3.0


def test_clips_by_camera(dataset: Dataset) -> None:
    assert scores.counts_by(connect(dataset), "camera") == [
        {"name": "pan", "kept": 3, "rejected": 1}, {"name": "static", "kept": 2, "rejected": 2}
    ]  # fmt: skip


def test_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    (folder / "samples").mkdir(parents=True)
    lines = [json.dumps({"step": s, "loss": 2.0 / s, "lr": 0.1}) for s in range(1, 11)]
    lines += ['{"step": 11, "loss": NaN}', '{"step": 11, "val_loss": 0.5}', '{"step": 12, "lo']
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "samples" / "strip.png").write_bytes(b"png")
    (folder / "samples" / "large.mp4").write_bytes(bytes(2_000_000))
    (folder / "samples" / "notes.txt").write_text("no picture")
    for run in (runs(Dataset(tmp_path), "runs")[0], runs(Dataset(folder), "")[0]):
        assert run["name"] == "first"
        assert run["points"][0] == [1, 2.0]
        assert len(run["points"]) == 10
        assert run["val_points"] == [[11, 0.5]]
        assert run["not_finite"] == 1
        assert run["last"] == {"step": 11, "lr": 0.1, "val_loss": 0.5}
        assert run["samples"] == [{"name": "strip.png", "kind": "image", "uri": "data:image/png;base64,cG5n"}]
        assert run["samples_left_out"] == ["large.mp4"]
    assert runs(Dataset(tmp_path / "none"), "runs") == []


def test_a_run_with_skipped_steps_and_validation_by_level(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 2.0, "mfu": None},
        {"step": 2, "loss": None},
        {"step": 3, "loss": 1.0, "validation": {"0.1": 1.0, "0.9": 2.0}},
        {"step": 4, "loss": 1.0, "validation": {}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run,) = runs(Dataset(tmp_path), "")
    assert run["points"] == [[1, 2.0], [3, 1.0], [4, 1.0]]
    assert run["val_points"] == [[3, 1.5]]
    assert run["not_finite"] == 1


def test_samples_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "strip.png", "prompts.json"):
        (tmp_path / name).write_bytes(b"x")
    found = samples(Dataset(tmp_path), "")["samples"]
    assert [sample["name"] for sample in found] == ["strip.png", "a.mp4", "b.mp4"]
    assert found[1]["uri"] == "data:video/mp4;base64,eA=="


def test_metrics_cut_short_and_thinned() -> None:
    assert read_metrics(b'{"step": 1, "loss": 1}\n[3]\n{"loss": 2}\n{"step": 2, "lo') == [
        {"step": 1, "loss": 1}
    ]
    assert thin([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [[2, 2.0], [3, 5.0]]
