"""Caption statistics, copies and shapes against counts made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from report_browser import needs_chromium, open_in_chromium
from report_clips import build, clip_id
from small_dataset import build as build_films
from small_dataset import clip_id as film_clip

from curate.dataset import Dataset
from curate.tables import CAPTIONS, CLIPS, DECISIONS, SOURCES
from pipelines import report_captions
from pipelines.query import connect, rows_of
from pipelines.query_examples import ASPECTS
from pipelines.report import ReportConfig, gather, render
from pipelines.report_captions import statistics
from pipelines.report_copies import copies
from pipelines.report_data import captions
from pipelines.report_scores import aspects


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("captions"))


def with_captions(folder: Path, *texts: tuple[str, str, str | None, str]) -> Dataset:
    """A dataset of clips with one caption each: (kind, camera, text, status)."""
    dataset = Dataset(folder)
    dataset.write("sources", pa.Table.from_pylist([{"uri": "x"}], schema=SOURCES))
    clips = [
        {"clip_id": clip_id(i), "source_id": "a", "camera": camera}
        for i, (_, camera, _, _) in enumerate(texts)
    ]
    dataset.write("clips", pa.Table.from_pylist(clips, schema=CLIPS))
    rows = [
        {
            "caption_id": f"{i:04}",
            "clip_id": clip_id(i),
            "kind": kind,
            "captioner": "c",
            "text": text,
            "status": status,
        }
        for i, (kind, _, text, status) in enumerate(texts)
    ]
    dataset.write("captions", pa.Table.from_pylist(rows, schema=CAPTIONS))
    return dataset


def test_lengths_words_and_what_failed(tmp_path: Path) -> None:
    dataset = with_captions(
        tmp_path,
        ("dense", "pan", "The camera pans over a lake.", "ok"),
        ("dense", "pan", "The camera  pans over a hill", "ok"),
        ("dense", "pan", "A Lake; the lake!", "truncated"),
        ("dense", "static", "A lake, and nothing pans", "ok"),
        ("dense", "static", "A lake, and nothing pans", "ok"),
        ("dense", "static", None, "refused"),
        ("short", "static", "naïve l'été 湖", "ok"),
    )
    facts = statistics(connect(dataset))
    assert facts is not None
    assert {(row["kind"], row["status"]): row["n"] for row in facts["status"]} == {
        ("dense", "ok"): 4, ("dense", "truncated"): 1, ("dense", "refused"): 1, ("short", "ok"): 1
    }  # fmt: skip
    dense, short = facts["kinds"]
    assert (dense["kind"], dense["n"], dense["n_distinct"]) == ("dense", 5, 4)
    # words: 6, 6 (two blanks are one), 4, 5, 5
    assert (dense["words"]["edges"], dense["words"]["kept"]) == ([4.0, 5.0, 6.0, 7.0], [1, 2, 2])
    assert dense["tenths"][1] == 5.0
    assert dense["top"][:3] == [
        {"word": "lake", "share": 0.8},
        {"word": "pans", "share": 0.8},
        {"word": "camera", "share": 0.4},
    ]
    assert dense["vocabulary"] == 9  # the camera pans over a lake hill and nothing
    assert [row["word"] for row in short["top"]] == ["l'été", "naïve", "湖"]
    assert dense["clip_score"]["n"] == 0
    assert facts["cost"]["usd"] is None
    assert facts["sampled"] is None


def test_words_that_stand_out_by_camera(dataset: Dataset) -> None:
    found = statistics(connect(dataset))["camera"]
    assert found["kind"] == "dense"
    words = {
        row["camera"]: {w["word"]: (w["share"], round(w["overall"], 3)) for w in row["words"]}
        for row in found["rows"]
    }
    # Captions of 100 clips without every tenth: 30 static, 30 pan; "stays", "fixed", "hill" in all of the static ones.
    assert {row["camera"]: row["n"] for row in found["rows"]} == {"static": 30, "pan": 30}
    assert words["static"]["fixed"] == (1.0, 0.5)
    assert words["pan"]["pans"] == (1.0, 0.5)
    assert "camera" not in words["pan"]  # both say it
    assert "the" not in words["pan"]


@pytest.mark.parametrize(("n", "told"), [(20, {"pan": ["falls"]}), (19, {})])
def test_few_captions_and_small_gaps_tell_nothing_of_a_camera(tmp_path: Path, n: int, told: dict) -> None:
    pan = ["my lake falls" if i < n // 2 else "my lake" for i in range(n)]
    # `my` is no word of a picture.
    static = ["a lake" if i < 35 else "a lake falls glitter" for i in range(40)]
    rows = [
        ("dense", camera, text, "ok")
        for camera, texts in (("pan", pan), ("static", static))
        for text in texts
    ]
    found = statistics(connect(with_captions(tmp_path, *rows)))["camera"]
    assert {row["camera"]: [word["word"] for word in row["words"]] for row in found["rows"]} == told


def test_words_are_counted_alike_in_the_table_and_in_the_histogram(tmp_path: Path) -> None:
    tables = connect(with_captions(tmp_path, ("dense", "pan", " two\n\nlines,  and\tblanks \n", "ok")))
    assert captions(tables)[0]["words"] == statistics(tables)["kinds"][0]["words"]["max"] == 4


def test_words_are_counted_in_a_sample(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_captions, "SAMPLED", 40)
    facts = statistics(connect(dataset))
    assert facts["sampled"] == 40
    assert sum(row["n"] for row in facts["camera"]["rows"]) < 40
    assert sum(kind["words"]["n"] for kind in facts["kinds"]) == 190  # lengths are of all
    assert facts["cost"]["tokens_out"] == 3000
    assert round(facts["cost"]["usd"], 6) == 1.0


def test_no_captions(tmp_path: Path) -> None:
    assert statistics(connect(build_films(tmp_path, tables=("sources", "clips")))) is None


def test_the_least_alike_copies_come_first(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write(
        "sources", pa.Table.from_pylist([{"uri": "x", "source_id": "a", "status": "ok"}], schema=SOURCES)
    )
    rows = [{"clip_id": clip_id(i), "source_id": "a", "start_s": 0.0, "end_s": 1.0} for i in range(6)]
    dataset.write("clips", pa.Table.from_pylist(rows, schema=CLIPS))
    why = [
        None,
        f"copy of {clip_id(0)} (1.5 of 64 bits differ <= 13)",
        f"copy of {clip_id(0)} (12.0 of 64 bits differ <= 13)",
        f"semantic copy of {clip_id(0)} (cosine 0.990 >= 0.95)",
        f"semantic copy of {clip_id(0)} (cosine 0.951 >= 0.95)",
        f"copy of {clip_id(0)}",
    ]
    decided = [
        {"clip_id": clip_id(i), "keep": reason is None, "reason": reason, "reasons": [reason] if reason else [],
         "duplicate_of": clip_id(0) if reason else None}
        for i, reason in enumerate(why)
    ]  # fmt: skip
    dataset.write("decisions", pa.Table.from_pylist(decided, schema=DECISIONS))
    found = copies(connect(dataset), 4)
    assert (found["n_clips"], found["n_files"]) == (5, 0)
    assert [pair["copy"]["clip_id"] for pair in found["pairs"]] == [clip_id(i) for i in (2, 4, 1, 3)]
    assert {pair["kept"]["clip_id"] for pair in found["pairs"]} == {clip_id(0)}
    assert found["pairs"][0]["reason"] == why[2]


def test_pictures_of_a_pair_are_of_its_two_clips_and_files(tmp_path: Path) -> None:
    dataset = build_films(tmp_path)
    film = tmp_path / "films" / "a ö.mp4"
    shutil.copy(film, tmp_path / "films" / "again.mp4")
    rows = dataset.read("sources").to_pylist()
    rows.append(
        {
            "uri": str(tmp_path / "films" / "again.mp4"),
            "source_id": "a" * 32,
            "status": "ok",
            "duplicate_of": str(film),
        }
    )
    dataset.write("sources", pa.Table.from_pylist(rows, schema=SOURCES))
    found = gather(dataset, ReportConfig(dataset.uri))["copies"]
    assert (found["n_clips"], found["n_files"]) == (1, 1)
    clips, files = found["pairs"]
    assert (clips["kept"]["clip_id"], clips["copy"]["clip_id"]) == (film_clip("a0"), film_clip("c2"))
    assert clips["reason"] == "duplicate of a00000000000 (hash distance 2)"
    assert clips["kept"]["picture"] != clips["copy"]["picture"]
    assert files["copy"]["uri"].endswith("again.mp4")
    assert files["kept"]["picture"] == files["copy"]["picture"] is not None  # the same bytes
    assert files["kept"]["end_s"] == 4.0


def test_shapes_are_the_nearest_usual_ones_inside_the_borders(dataset: Dataset, tmp_path: Path) -> None:
    rows = aspects(connect(dataset))
    assert {row["name"]: row["kept"] + row["rejected"] for row in rows} == {"16:9": 320, "1:1": 80}
    assert (rows[0]["w"], rows[0]["h"]) == (16, 9)
    sizes = [(1080, 1920), (144, 236), (1000, 240), (144, 84), (90, 100), (None, None), (0, 9)]
    other = with_sizes(tmp_path, sizes)
    assert {row["name"]: row["waiting"] for row in aspects(connect(other))} == {
        "9:16": 2, "21:9": 1, "16:9": 1, "1:1": 1, "not measured": 2
    }  # fmt: skip


def test_shapes_are_those_of_the_example_of_query(tmp_path: Path) -> None:
    dataset = with_sizes(tmp_path, [(width, 100) for width in range(20, 401)])
    decisions = [{"clip_id": clip_id(i), "keep": i % 3 > 0} for i in range(381)]
    dataset.write("decisions", pa.Table.from_pylist(decisions, schema=DECISIONS))
    tables = connect(dataset)
    found = {row["name"]: (row["kept"] + row["rejected"], row["kept"]) for row in aspects(tables)}
    assert found == {row["aspect"]: (row["clips"], row["kept"]) for row in rows_of(tables, ASPECTS.sql)}
    assert len(found) == 6


def with_sizes(folder: Path, sizes: list[tuple[int | None, int | None]]) -> Dataset:
    """A dataset of clips of a second, of these sizes."""
    dataset = Dataset(folder)
    dataset.write("sources", pa.Table.from_pylist([{"uri": "x"}], schema=SOURCES))
    clips = [
        {"clip_id": clip_id(i), "source_id": "a", "start_s": 0.0, "end_s": 1.0, "width": w, "height": h}
        for i, (w, h) in enumerate(sizes)
    ]
    dataset.write("clips", pa.Table.from_pylist(clips, schema=CLIPS))
    return dataset


@needs_chromium
def test_shares_by_camera_do_not_read_as_shares_of_shares(dataset: Dataset, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(gather(dataset, ReportConfig(dataset.uri, gallery=0))), "utf-8")
    dom, _ = open_in_chromium(page)
    assert "<b>fixed</b> 100&nbsp;%<span> (all 50&nbsp;%)</span>" in dom
