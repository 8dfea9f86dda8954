"""The SQL that README, docs, --help and the list of views show runs as it stands, and counts rules, not figures."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from small_dataset import build, clip_id

from curate.dataset import Dataset
from curate.tables import DECISIONS
from pipelines import query as module
from pipelines.query import connect, main
from pipelines.query_answer import overview

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/tables.md", "docs/query.md")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the datasets that the pages name lie; two clips fail one rule by different figures."""
    dataset = build(tmp_path)
    rows = dataset.read("decisions").to_pylist()
    for row in rows:
        if row["clip_id"] == clip_id("c2"):
            row |= {"reason": "motion 0.31 < 0.50", "reasons": ["motion 0.31 < 0.50"], "duplicate_of": None}
    dataset.write("decisions", pa.Table.from_pylist(rows, schema=DECISIONS))
    (tmp_path / "work").mkdir()
    for name in ("films", "films.reel"):
        (tmp_path / "work" / name).symlink_to(tmp_path / "dataset")
    (tmp_path / "work" / "labels.csv").write_text(f"clip_id,label\n{clip_id('a0')},red\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def commands(text: str) -> list[list[str]]:
    """The words behind `reelmill query` of every line of `text` that gives SQL, up to a pipe, a file or a comment."""
    found = []
    for line in text.splitlines():
        if not (told := re.fullmatch(r"\s*reelmill query (.*)", line)):
            continue
        words = shlex.split(told[1].replace("s3://bucket/", ""), comments=True)
        ends = [place for place, word in enumerate(words) if word in ("|", ">", "<")]
        words = words[: min(ends, default=len(words))]
        if " " in words[-1]:
            found.append(words)
    return found


def counts(answer: str) -> dict[str, int]:
    """Rule -> clips, of an answer as CSV; kept clips have no rule."""
    _, *rows = csv.reader(answer.splitlines())
    return {row[0]: int(row[1]) for row in rows if row[0]}


def test_the_commands_that_are_shown_run_and_count_rules(folder: Path, capsys) -> None:
    assert main(["--help"]) == 0
    texts = {"--help": capsys.readouterr().out, "query.py": module.__doc__ or ""}
    texts |= {page: (ROOT / page).read_text() for page in PAGES}
    for place, text in texts.items():
        shown = commands(text)
        assert shown, place
        by_rule = 0
        for words in shown:
            assert main(words) == 0, (place, words)
            capsys.readouterr()
            if "reason" in words[-1]:
                assert main([*words[:-1], "--format=csv", words[-1]]) == 0
                assert counts(capsys.readouterr().out) == {"motion": 2, "black_ratio": 1}, (place, words)
                by_rule += 1
        assert by_rule == (place != "docs/query.md"), place


def test_the_sql_blocks_of_the_guide_run(folder: Path) -> None:
    blocks = re.findall(r"^```sql\n(.+?)```", (ROOT / "docs/query.md").read_text(), re.MULTILINE | re.DOTALL)
    with connect(Dataset("films")) as connection:
        answers = [connection.sql(block).fetchall() for block in blocks]
    assert [sorted(answers[0]), *answers[1:]] == [
        [(False, 3, 0), (True, 5, 0)],
        [("motion", 2), ("black_ratio", 1)],
        [(clip_id("c1"), "flow needs two frames")],
    ]


def test_the_sql_for_duckdb_itself_runs(folder: Path) -> None:
    found = []
    for page in PAGES:
        found += re.findall(r'duckdb -c "(.+?)"', (ROOT / page).read_text())
        found += re.findall(r"^duckdb +(SELECT .+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert len(found) == 3
    for sql in found:
        assert duckdb.sql(sql).fetchall(), sql


def test_the_sql_below_the_list_of_views_runs(folder: Path) -> None:
    with connect(Dataset("films")) as connection:
        shown = re.findall(r'^  "(.+)"$', overview(connection), re.MULTILINE)
        answers = [connection.sql(sql).fetchall() for sql in shown]
    assert len(answers) == 2
    assert [row for row in answers[0] if row[0]] == [("motion", 2), ("black_ratio", 1)]
