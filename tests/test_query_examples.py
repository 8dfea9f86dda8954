"""The ten examples of `reelmill query`, each with the answer worked out by hand on a small dataset."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_dataset import build

import pipelines.query_answer
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import TABLES
from pipelines import query_examples as examples
from pipelines.query import connect, main
from tests.bench.query import write_tables

NEAR_A4 = "2.0 of 64 bits <= 8"
COPY_A4, COPY_B3 = "copy of a1 (2.0 of 64 bits differ <= 8)", "copy of a1 (5.0 of 64 bits differ <= 8)"
PAN, STILL = "camera pans over a hill", "A hill stands still"

# clip: seconds, camera, reasons to reject it, and the one that it is a copy of
CLIPS: dict[str, tuple[float, str, list[str], str | None]] = {
    "a1": (3600, "pan", [], None),
    "a2": (1800, "pan", [], None),
    "a3": (1800, "pan", ["motion 0.12 < 0.5", "aesthetic 3.00 < 4"], None),
    "a4": (36, "static", [COPY_A4], "a1"),
    "b1": (1800, "pan", [], None),
    "b2": (360, "static", [], None),
    "b3": (36, "static", [COPY_B3], "a1"),
    "b4": (36, "static", ["motion 0.30 < 0.5"], None),
    "b5": (360, "static", [], None),
    "b6": (360, "static", [], None),
    "b7": (60, "static", [], None),  # kept, and not captioned
}
SOURCES = [
    {"source_id": "a", "uri": "a.mp4", "status": "ok"},
    {"source_id": "a", "uri": "copy.mp4", "status": "ok", "duplicate_of": "a.mp4"},
    {"source_id": "b", "uri": "b.mp4", "status": "partial", "error": "cut off at 2:00"},
    {"uri": "c.mp4", "status": "failed", "failure": "transient", "attempts": 2, "error": "lost\n<b>contact</b>"},
]  # fmt: skip
SHARDS = [
    {"clip_id": "a1", "shard": "x/0.tar", "bucket": "x", "duration_s": 60.0, "mp4_size": 3_000_000},
    {"clip_id": "a2", "shard": "x/0.tar", "bucket": "x", "duration_s": 60.0, "mp4_size": 1_000_000},
    {"clip_id": "b1", "shard": "x/1.tar", "bucket": "x", "duration_s": 30.0, "mp4_size": 2_000_000},
    {"clip_id": "b2", "error": "the encoder gave up"},
]


def clips() -> list[dict[str, Any]]:
    rows = []
    for clip, (seconds, camera, _, _) in CLIPS.items():
        row = {"clip_id": clip, "source_id": clip[0], "start_s": 5.0, "end_s": 5 + seconds, "camera": camera}
        size = {"width": 720, "height": 1280} if clip[0] == "b" else {"width": 1920, "height": 1080}
        square = {"crop": {"x": 0, "y": 280, "w": 720, "h": 720}} if clip > "b1" else {}
        upright = {"crop": {"x": 555, "y": 0, "w": 810, "h": 1080}} if clip == "a4" else {}
        rows.append(row | size | square | upright)
    return rows


def captions() -> list[dict[str, Any]]:
    asked = {"kind": "dense", "captioner": "openai", "model": "qwen", "status": "ok"}
    told = {"cost_usd": 0.5, "tokens_in": 1000, "tokens_out": 50, "chosen": True}
    rows: list[dict[str, Any]] = [
        {"clip_id": clip, "text": PAN if CLIPS[clip][1] == "pan" else STILL, **asked, **told}
        for clip in ("a1", "a2", "b1", "b2", "b5", "b6")
    ]
    scores = {"a1": (0.3, 0.1), "a2": (0.2, -0.05), "b1": (0.25, 0.02), "b2": (0.1, None)}
    for row in rows:
        row["clip_score"], row["clip_margin"] = scores.get(row["clip_id"], (None, None))
    rows += [
        {"clip_id": "a1", "text": "stands still", "clip_score": 0.0, "clip_margin": -1.0, "chosen": False, **asked},
        {"clip_id": "b1", **asked, "status": "error", "error": "HTTP 500", "cost_usd": 1.0},
        {"clip_id": "b7", **asked, "status": "refused"},
        {"clip_id": "a1", "kind": "short", "text": "a hill", "captioner": "coca", "status": "truncated",
         "chosen": True},
        {"clip_id": "b7", "kind": "original", "text": "old words camera", "captioner": "sidecar", "status": "ok",
         "chosen": True, "clip_score": 0.01, "clip_margin": -0.5},
    ]  # fmt: skip
    day = datetime(2026, 11, 22)
    return [row | {"caption_id": f"c{place}", "created_at": day} for place, row in enumerate(rows)]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    dataset = Dataset(tmp_path_factory.mktemp("examples"))
    decisions = [
        {
            "clip_id": clip,
            "keep": not why,
            "reason": why[0] if why else None,
            "reasons": why,
            "duplicate_of": copy,
        }
        for clip, (_, _, why, copy) in CLIPS.items()
    ]
    tables = {
        "sources": SOURCES,
        "clips": clips(),
        "decisions": decisions,
        "captions": captions(),
        "shards": SHARDS,
    }
    for name, rows in tables.items():
        dataset.write(name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    return dataset.uri


ANSWERS: list[tuple[examples.Example, list[str], list[tuple]]] = [
    (
        examples.FUNNEL,
        ["file", "shots", "kept", "captioned", "packed", "minutes", "status"],
        [
            ("ALL FILES", 11, 7, 6, 3, 139.0, None),
            ("b.mp4", 7, 5, 4, 1, 49.0, "partial"),
            ("a.mp4", 4, 2, 2, 2, 90.0, "ok"),
            ("c.mp4", 0, 0, 0, 0, 0.0, "failed"),
        ],
    ),
    (
        examples.REJECTED,
        ["rule", "clips", "percent", "only_this", "minutes", "for_example"],
        [("copy", 2, 18.2, 2, 1.2, NEAR_A4), ("motion", 2, 18.2, 1, 30.6, "0.12 < 0.5")],
    ),
    (
        examples.LENGTHS,
        ["kind", "captioner", "model", "captions", "cut_off", "mean", "p5", "median", "p95"],
        [
            ("dense", "openai", "qwen", 7, 0, 4.1, 2, 4, 5),
            ("original", "sidecar", None, 1, 0, 3.0, 3, 3, 3),
            ("short", "coca", None, 1, 1, 2.0, 2, 2, 2),
        ],
    ),
    (
        examples.WORDS,
        ["camera", "word", "clips", "percent_of_clips", "times_as_often"],
        [
            ("pan", "camera", 3, 100.0, 2.0),
            ("pan", "over", 3, 100.0, 2.0),
            ("pan", "pans", 3, 100.0, 2.0),
            ("static", "stands", 3, 100.0, 2.0),
            ("static", "still", 3, 100.0, 2.0),
        ],
    ),
    (
        examples.DISAGREE,
        ["text", "kind", "margin", "score", "clip_id"],
        [
            (PAN, "dense", pytest.approx(-0.05), pytest.approx(0.2), "a2"),
            (PAN, "dense", pytest.approx(0.02), pytest.approx(0.25), "b1"),
            (PAN, "dense", pytest.approx(0.1), pytest.approx(0.3), "a1"),
            (STILL, "dense", None, pytest.approx(0.1), "b2"),
        ],
    ),
    (
        examples.COPIES,
        ["kept_clip", "copies", "others", "seconds", "how"],
        [("a1", 2, 1, 72.0, NEAR_A4)],
    ),
    (
        examples.COST,
        ["captioner", "model", "kind", "requests", "usable", "no_price", "tokens_in", "tokens_out", "usd",
         "usd_per_1000"],
        [
            ("openai", "qwen", "dense", 9, 7, 2, 1000.0, 50.0, 4.0, 666.667),
            ("coca", None, "short", 1, 1, 1, None, None, None, None),
        ],
    ),
    (
        examples.ASPECTS,
        ["aspect", "clips", "kept", "minutes", "minutes_kept", "percent_kept", "lines"],
        [
            ("16:9", 3, 2, 120.0, 90.0, 75.0, 1080),
            ("9:16", 1, 1, 30.0, 30.0, 100.0, 720),
            ("1:1", 6, 4, 20.2, 19.0, 94.1, 720),
            ("3:4", 1, 0, 0.6, 0.0, 0.0, 810),
        ],
    ),
    (
        examples.FAILED,
        ["status", "failure", "attempts", "uri", "error"],
        [
            ("failed", "transient", 2, "c.mp4", "lost\n<b>contact</b>"),
            ("partial", None, None, "b.mp4", "cut off at 2:00"),
        ],
    ),
    (
        examples.BALANCE,
        ["bucket", "shards", "clips", "minutes", "mb", "largest_mb", "to_mean"],
        [("x", 2, 3, 2.5, 6.0, 4.0, 1.33)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("example", "columns", "expected"), ANSWERS, ids=lambda value: getattr(value, "title", "")
)
def test_answer(uri: str, example: examples.Example, columns: list[str], expected: list[tuple]) -> None:
    with connect(Dataset(uri)) as connection:
        answer = connection.sql(example.sql)
        assert answer.columns == columns
        assert answer.fetchall() == expected


def test_every_example_has_its_answer_here() -> None:
    assert [example for example, _, _ in ANSWERS] == list(examples.EXAMPLES)
    assert len(examples.EXAMPLES) == 10


def test_they_are_listed_with_sql_that_runs_as_it_stands(uri: str, capsys) -> None:
    assert main(["--dataset", "my films", "--examples"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("Run one: reelmill query --dataset 'my films' --example 3\n")
    for number, example in enumerate(examples.EXAMPLES, 1):
        assert f"{number}. {example.title}\n" in shown
    copied = shown.partition("2. Why clips")[2].partition("\n\n")[2].partition("\n\n")[0]
    assert main(["--dataset", uri, "--format", "csv", copied]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "rule,clips,percent,only_this,minutes,for_example"


def test_one_is_run_by_its_number(uri: str, capsys) -> None:
    assert main(["--dataset", uri, "--example", "10", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"bucket": "x", "shards": 2, "clips": 3, "minutes": 2.5, "mb": 6.0, "largest_mb": 4.0,
         "to_mean": 1.33}
    ]  # fmt: skip
    for wrong in (0, 11):
        with pytest.raises(BadInput, match=f"there is no example {wrong}; they are numbered from 1 to 10"):
            examples.numbered(wrong)
    assert main(["--dataset", uri, "--example", "1", "SELECT 1"]) == 2
    assert "give SQL or --example, not both" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """Eight clips of four films in one folder, of which five have captions and none a score or a price."""
    return build(tmp_path_factory.mktemp("small")).uri


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> str:
    """240 clips with ids, places and buckets as long as in life."""
    dataset = Dataset(tmp_path_factory.mktemp("large"))
    write_tables(dataset, 600)
    return dataset.uri


def shown(monkeypatch, capsys, uri: str, number: int, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--dataset", uri, "--example", str(number)]) == 0
    return capsys.readouterr().out


def test_above_a_table_stands_what_it_tells(uri: str, monkeypatch, capsys) -> None:
    for number, example in enumerate(examples.EXAMPLES, 1):
        title, rest = shown(monkeypatch, capsys, uri, number).split("\n", 1)
        assert title == example.title
        assert " ".join(rest.split()).startswith(example.tells)


def test_nothing_is_hidden_on_a_terminal_of_80_columns(uri: str, large: str, monkeypatch, capsys) -> None:
    for number, (_, columns, rows) in enumerate(ANSWERS, 1):
        told = shown(monkeypatch, capsys, uri, number)
        assert all(column in told for column in columns)
        assert "shown)" not in told
        assert max(map(len, told.splitlines())) <= 80
        assert rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.query_answer, "_FEW_ROWS", 0)  # those that may have many rows fit as a table
        for number in {*range(1, 11)} - {3, 7}:
            assert "Columns are hidden" not in shown(monkeypatch, capsys, large, number)
    cost = shown(monkeypatch, capsys, uri, 7).split("\n\n")
    assert [line.split() for line in cost[1].splitlines()] == [
        ["captioner", "openai"], ["model", "qwen"], ["kind", "dense"], ["requests", "9"], ["usable", "7"],
        ["no_price", "2"], ["tokens_in", "1000.0"], ["tokens_out", "50.0"], ["usd", "4.0"], ["usd_per_1000", "666.667"],
    ]  # fmt: skip
    assert cost[-1] == "Rows: 2, printed down: 10 columns are wider than this terminal.\n"
    assert "printed down" not in shown(monkeypatch, capsys, uri, 7, columns=160)


LONG = "a hill under a sky, " * 60


def test_what_examples_are_asked_for_is_read_whole_on_80_columns(tmp_path: Path, monkeypatch, capsys) -> None:
    """The caption that disagrees, and ids of clips, on a line of their own; no cell in two lines."""
    dataset = Dataset(tmp_path)
    ids = [f"{number:024x}" for number in range(40)]
    near = "of 64 bits differ <= 13"
    for name, rows in {
        "sources": [{"source_id": "s", "uri": "s.mp4", "status": "ok"}],
        "clips": [{"clip_id": i, "source_id": "s", "start_s": 0.0, "end_s": 3.0} for i in ids],
        "decisions": [
            {"clip_id": i, "keep": n < 20, "duplicate_of": None if n < 20 else ids[n % 9], "reasons": why,
             "reason": why[0] if why else None}
            for n, i in enumerate(ids)
            for why in [[] if n < 20 else [f"copy of {ids[n % 9]} ({n / 4:.1f} {near})"]]
        ],
        "captions": [
            {"caption_id": i, "clip_id": i, "kind": "dense", "captioner": "c", "status": "ok", "chosen": True,
             "text": f"{n}: {LONG}END", "clip_score": 0.5, "clip_margin": n / 100}
            for n, i in enumerate(ids)
        ],
    }.items():  # fmt: skip
        dataset.write(name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    told = shown(monkeypatch, capsys, dataset.uri, 5)
    blocks = told.split("\n\n")[1:-1]
    assert len(blocks) == 10
    for n, block in enumerate(blocks):
        text = " ".join(block.split())
        assert text == f"text {n}: {LONG}END kind dense margin {n / 100} score 0.5 clip_id {ids[n]}"
    assert told.endswith("\n\nRows: 10.\n")
    assert max(map(len, told.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--dataset", dataset.uri, "--example", "5", "--max_rows", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"clip_id  {ids[0]}\n\nRows: 1 of more; see --max_rows.\n")
    copies = shown(monkeypatch, capsys, dataset.uri, 6)
    assert re.search(rf"│ {ids[0]} +│ +2 │ +0 │ +6.0 │ 6.8 of 64 bits <= 13 │\n", copies)
    rejected = shown(monkeypatch, capsys, dataset.uri, 2)
    assert re.search(r"│ copy +│ +20 │ +50.0 │ +20 │ +1.0 │ 5.0 of 64 bits <= 13 │\n", rejected)
    for table in (copies, rejected):
        assert table.count("├") == 1  # else DuckDB has broken a cell and drawn a line between all rows


def test_what_a_rule_costs_alone_is_not_told_as_known(uri: str, monkeypatch, capsys) -> None:
    told = " ".join(shown(monkeypatch, capsys, uri, 2).split())
    assert "would be kept" not in told
    assert "text is not read of a clip that another rule rejects, and its copies are not looked for." in told


def test_an_answer_without_rows_says_what_that_means(small: str, monkeypatch, capsys) -> None:
    for number in (4, 5):
        told = shown(monkeypatch, capsys, small, number)
        assert told.endswith(f"\n\n{examples.numbered(number).empty}\n")
        assert "│" not in told
    assert main(["--dataset", small, "--example", "4", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_funnel_leaves_out_the_folder_that_all_files_share(small: str, tmp_path: Path) -> None:
    with connect(Dataset(small)) as connection:
        files = [row[0] for row in connection.sql(examples.FUNNEL.sql).fetchall()]
    assert files == ["ALL FILES", "b ö.mp4", "c ö.mp4", "a ö.mp4", "d ö.mp4"]
    dataset = Dataset(tmp_path)
    for uris, expected in (
        (["s3://b/x/ab/1.mp4", "s3://b/x/ac/1.mp4", "s3://b/x/a"], ["a", "ab/1.mp4", "ac/1.mp4"]),
        (["/films/one.mp4"], ["one.mp4"]),
        (["/a.mp4", "b.mp4"], ["/a.mp4", "b.mp4"]),
    ):
        rows = [{"source_id": str(i), "uri": uri, "status": "ok"} for i, uri in enumerate(uris)]
        for name, table in {"sources": rows, "clips": [], "decisions": []}.items():
            dataset.write(name, pa.Table.from_pylist(table, schema=TABLES[name]))
        with connect(dataset) as connection:
            assert [row[0] for row in connection.sql(examples.FUNNEL.sql).fetchall()[1:]] == expected


def test_before_captions_and_shards_exist(tmp_path: Path, capsys) -> None:
    uri = build(tmp_path, tables=("sources", "clips", "decisions")).uri
    found = [main(["--dataset", uri, "--example", str(number)]) for number in range(1, 11)]
    assert found == [0, 0, 2, 2, 2, 0, 2, 0, 0, 2]
    err = capsys.readouterr().err
    assert err.count("has no captions table. Run `reelmill recaption --dataset URI` first.") == 4
    assert err.count("has no shards table. Run `reelmill shard --dataset URI` first.") == 1


def test_the_guide_lists_them(uri: str) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "query.md"
    counted, *_ = re.findall(r"^```sql\n(.+?)```", page.read_text(), re.MULTILINE | re.DOTALL)
    with connect(Dataset(uri)) as connection:
        assert sorted(connection.sql(counted).fetchall()) == [(False, 4, 0), (True, 7, 0)]
    listed = re.findall(r"^(\d+)\. (.+)$", page.read_text(), re.MULTILINE)
    assert listed == [(str(number), example.title) for number, example in enumerate(examples.EXAMPLES, 1)]
