"""The report's figures against literal counts: what comes in must add up to what became of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_browser import needs_chromium, open_in_chromium
from small_dataset import CLIPS, ERROR, build, clip_id

from curate.dataset import Dataset
from curate.decide import DecideConfig, Range
from curate.funnel import count_funnel
from curate.overrides import put
from curate.tables import CAPTIONS, DECISIONS, SHARDS, SOURCES
from pipelines import report_data as data
from pipelines import report_scores as scores
from pipelines.decide import write_decisions
from pipelines.query import connect
from pipelines.report import ReportConfig, gather, render
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


def test_the_funnel_tells_what_was_decided_by_hand(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    for short, keep in (("a0", True), ("b1", False), ("c2", True), ("a1", False), ("b0", None)):
        put(dataset, clip_id(short), keep=keep, author="ann")
    write_decisions(dataset, DecideConfig(luma=Range(), duration_s=Range()))
    shots = data.funnel(connect(dataset))[1]
    kept, *rejected = shots["parts"]
    assert kept == {"name": "kept", "n": 5, "outcome": "good", "by_hand": 2}
    assert {part["name"]: part["n"] for part in rejected} == {"by hand": 2, "motion": 1}
    assert all("by_hand" not in part for part in data.funnel(connect(build(tmp_path / "none")))[1]["parts"])


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
    assert [(row["what"], row["n"], row["error"]) for row in errors] == [
        ("caption dense", 1, "e"), ("file", 1, ERROR), ("shard", 1, "no space"),
        ("file", 1, "decoding broke off at 6.0 s: moov atom not found"),
    ]  # fmt: skip


def test_errors_of_one_kind_are_told_once_and_crowd_out_no_other(tmp_path: Path) -> None:
    dataset = build(tmp_path, tables=("sources", "clips", "decisions"))
    failed = [
        (
            f"/films/no {i:03}.mp4",
            f"/films/no {i:03}.mp4: [Errno 541478725] End of file: '/tmp/x {i}/a.mp4' at {i}.5 s, byte {10_000 + i}",
        )
        for i in range(700)
    ]
    failed += [
        ("s3://b/film.mp4", "HTTP 403"),
        ("s3://b/other.mp4", "HTTP 503"),
        ("/films/é.mp4", "é.mp4 isn't it"),
    ]
    sources = [{"uri": uri, "status": "failed", "error": error} for uri, error in failed]
    dataset.write("sources", pa.Table.from_pylist(sources, schema=SOURCES))
    bad = [{"clip_id": clip_id("a0"), "error": "no space"}, {"clip_id": clip_id("a1"), "error": "no space"}]
    dataset.write("shards", pa.Table.from_pylist(bad, schema=SHARDS))
    n, errors = data.errors(connect(dataset))
    assert n == 705
    assert errors[:2] == [
        {"table": "sources", "what": "file", "status": "failed", "n": 700, "error": failed[0][1],
         "who": "/films/no 000.mp4, /films/no 001.mp4 and 698 more"},
        {"table": "shards", "what": "shard", "status": "failed", "n": 2, "error": "no space",
         "who": f"{clip_id('a0')}, {clip_id('a1')}"},
    ]  # fmt: skip
    # A status of HTTP is no figure that may differ.
    assert {row["error"] for row in errors[2:]} == {"HTTP 403", "HTTP 503", "é.mp4 isn't it"}
    assert [row["what"] for row in data.errors(connect(dataset), 2)[1]] == ["file", "shard"]


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
    # Bins of 0.2 over 0..6, one of them parted at the limit: 0.02 and 0.12 lie in the first; 3.0 is kept and rejected
    assert motion["edges"][:5] == [0.0, 0.2, 0.4, 0.5, 0.6]
    place = motion["edges"].index(3.0)
    assert (motion["rejected"][0], motion["kept"][place], motion["rejected"][place]) == (2, 1, 1)
    assert found["black_ratio"]["limits"] == [{"op": ">", "bound": 0.1}]
    assert (found["nsfw"]["n"], found["nsfw"]["nulls"], found["nsfw"]["kept"]) == (0, 8, [])
    assert found["luma"]["about"].startswith("mean luma")


def test_outliers_do_not_flatten_a_histogram() -> None:
    values = np.concatenate([np.linspace(0, 1, 999), [1000.0]])
    binned = bars(values, np.ones(1000, bool), [2.0])
    assert binned["edges"][0] == 0.0
    assert 2.0 in binned["edges"]  # the limit is always inside
    assert binned["edges"][-1] < 3.0
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
        {"name": "pan", "kept": 3, "rejected": 1, "waiting": 0},
        {"name": "static", "kept": 2, "rejected": 2, "waiting": 0},
    ]


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
        assert run["samples"] == [
            {"name": "strip.png", "kind": "image", "text": None, "uri": "data:image/png;base64,cG5n"}
        ]
        assert (run["samples_left_out"], run["n_left_out"]) == (["large.mp4"], 1)
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
    (tmp_path / "late").mkdir()
    for name in ("b.mp4", "a.mp4", "strip.png", "late/a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    asked = [
        {"video": "a.mp4", "original": "a <b>lake</b>", "text": "A lake, long told."},
        {"video": "c.mp4"},
        3,
    ]
    (tmp_path / "prompts.json").write_text(json.dumps(asked))
    (tmp_path / "late" / "prompts.json").write_text(json.dumps([{"video": "a.mp4", "text": "x" * 5000}]))
    found = samples(Dataset(tmp_path), "")["samples"]
    assert [(sample["name"], sample["text"]) for sample in found] == [
        ("strip.png", None), ("a.mp4", "a <b>lake</b>"), ("b.mp4", None),
        ("late/a.mp4", "x" * 4000 + "… (cut here; 5,000 characters in all)"),
    ]  # fmt: skip
    assert found[1]["uri"] == "data:video/mp4;base64,eA=="
    (tmp_path / "prompts.json").write_text("no JSON")
    assert samples(Dataset(tmp_path), "")["samples"][1]["text"] is None


def test_of_many_samples_left_out_the_first_are_named(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:03}.mp4").write_bytes(b"x")
    found = samples(Dataset(tmp_path), "")
    assert len(found["samples"]) == 12
    assert found["n_left_out"] == 28
    assert found["samples_left_out"] == [f"{number:03}.mp4" for number in range(12, 32)]


def test_metrics_cut_short_and_thinned() -> None:
    assert read_metrics(b'{"step": 1, "loss": 1}\n[3]\n{"loss": 2}\n{"step": 2, "lo') == [
        {"step": 1, "loss": 1}
    ]
    assert thin([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [[2, 2.0], [3, 5.0]]


@needs_chromium
def test_the_page_tells_errors_by_kind_and_samples_with_their_prompts(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    rows = dataset.read("sources").to_pylist()
    rows += [{"uri": f"/f/{i}.mp4", "status": "failed", "error": f"no end: '{i}'"} for i in range(1200)]
    dataset.write("sources", pa.Table.from_pylist(rows, schema=SOURCES))
    (tmp_path / "own").mkdir()
    for number in range(13):
        (tmp_path / "own" / f"{number:03}.mp4").write_bytes(b"x")
    (tmp_path / "own" / "strip.png").write_bytes(b"x")
    asked = [
        {"video": "000.mp4", "original": "a <b>lake</b>"},
        {"video": "001.mp4", "original": "x" * 300},
    ]
    (tmp_path / "own" / "prompts.json").write_text(json.dumps(asked))
    values = gather(dataset, ReportConfig(dataset.uri, samples=str(tmp_path / "own"), gallery=0))
    page = tmp_path / "page.html"
    page.write_text(render(values), "utf-8")
    dom, _ = open_in_chromium(page)
    text = re.sub(r"<[^>]+>", "", dom)
    # 1,200 of one kind, two files and a caption
    assert "1,203 in all. Errors that differ in names and long numbers alone are told once" in text
    assert "file failed, 1,200 times /f/0.mp4, /f/1.mp4 and 1,198 more: no end: '0'" in text
    assert "caption rewrite error c00000000000: HTTP 500: out of tokens" in text
    for columns, table in (("uri", "sources"), ("clip_id", "captions")):
        assert f'"SELECT {columns}, error FROM {table} WHERE error IS NOT NULL"' in text
    assert "FROM shards WHERE error" not in text  # there are none
    assert "000.mp4 · a &lt;b&gt;lake&lt;/b&gt;" in text
    assert f"<summary>001.mp4 · {'x' * 150}…</summary>{'x' * 300}</details>" in dom
    assert 'alt="contact sheet: frames of every sample"' in dom
    assert "not shown (too large or too many): 011.mp4, 012.mp4" in text
