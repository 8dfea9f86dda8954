"""`reelmill query`: the tables as SQL views, the joined `dataset`, files, and what is told when it fails."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_dataset import ERROR, HOSTILE, build

from curate.dataset import Dataset
from curate.tables import SOURCES
from pipelines.query import connect, main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("it's")).uri


def rows(uri: str, sql: str) -> list[tuple]:
    return connect(Dataset(uri)).sql(sql).fetchall()


def test_every_table_is_a_view(uri: str) -> None:
    counts = {
        name: rows(uri, f"SELECT count(*) FROM {name}")[0][0]
        for name in ("sources", "clips", "decisions", "captions", "shards", "latents", "dataset")
    }
    assert counts == {
        "sources": 4, "clips": 8, "decisions": 8, "captions": 16, "shards": 5, "latents": 5, "dataset": 8
    }  # fmt: skip
    assert rows(uri, "SELECT DISTINCT vae_id FROM latents") == [("tiny-0123",)]
    assert rows(uri, "SELECT error FROM sources WHERE status = 'failed'") == [(ERROR,)]


def test_the_joined_view_has_one_row_per_clip_with_its_chosen_caption(uri: str) -> None:
    sql = "SELECT clip_id[:2], source_status, keep, reason, caption_dense, n_captions, bucket FROM dataset"
    found = {row[0]: row[1:] for row in rows(uri, sql)}
    assert found["b0"] == ("ok", True, None, HOSTILE, 3, "16x9-h72")
    assert found["b2"] == ("ok", False, "motion 0.12 < 0.50", None, 0, None)
    assert found["c0"] == ("partial", True, None, "a screen of one colour, dense, of c0", 3, "16x9-h72")


def test_a_source_given_twice_does_not_double_its_clips(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    sources = dataset.read("sources")
    copy = sources.slice(0, 1).to_pylist()[0] | {"uri": "copy.mp4", "duplicate_of": "a ö.mp4"}
    dataset.write("sources", pa.concat_tables([sources, pa.Table.from_pylist([copy], schema=SOURCES)]))
    assert rows(dataset.uri, "SELECT count(*) FROM dataset") == [(8,)]


def test_tables_that_do_not_exist_yet(tmp_path: Path, capsys) -> None:
    uri = build(tmp_path, tables=("sources", "clips")).uri
    assert rows(uri, "SELECT count(*), count(keep), count(caption_dense), count(bucket) FROM dataset") == [
        (8, 0, 0, 0)
    ]
    assert main(["--dataset", uri, "FROM captions"]) == 2
    assert "has no captions table. Run `reelmill recaption --dataset URI` first." in capsys.readouterr().err
    assert main(["--dataset", uri]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("rows)")] == [
        "sources", "clips", "dataset"
    ]  # fmt: skip


def test_only_failed_sources_can_still_be_asked_about(tmp_path: Path, capsys) -> None:
    uri = build(tmp_path, tables=("sources",)).uri
    assert rows(uri, "SELECT count(*) FROM sources") == [(4,)]
    assert main(["--dataset", uri, "FROM clips"]) == 2
    assert "has no clips table. Run `reelmill curate" in capsys.readouterr().err
    assert main(["--dataset", uri, "FROM dataset"]) == 2
    assert "has no clips table. Run `reelmill curate" in capsys.readouterr().err


def test_an_empty_folder_names_the_command_to_run(tmp_path: Path, capsys) -> None:
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "has no clips table. Run `reelmill curate --input FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("FROM captoins", 'Did you mean "captions"?'),
        ("SELECT texd FROM captions", 'Candidate bindings: "text"'),
        ("SELCT 1", 'syntax error at or near "SELCT" (line 1)\n'),
        ("SELECT\n sum(motion FROM clips", 'syntax error at or near "FROM" (line 2)\n'),
        ("", "the SQL is empty"),
        (" ; -- nothing", "the SQL is empty"),
        ("INSERT INTO clips FROM clips", "The tables are views of the dataset, which SQL only reads.\n"),
        ("UPDATE clips SET motion = 1", "The tables are views of the dataset, which SQL only reads.\n"),
        ("DELETE FROM clips", "The tables are views of the dataset, which SQL only reads.\n"),
    ],
)
def test_wrong_sql_is_one_line(uri: str, capsys, sql: str, told: str) -> None:
    assert main(["--dataset", uri, sql]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert "^" not in err


def test_an_answer_is_printed_as_a_table(uri: str, capsys) -> None:
    assert (
        main(["--dataset", uri, "SELECT keep, count(*) AS clips FROM decisions GROUP BY ALL ORDER BY 1"]) == 0
    )
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()
    ]
    assert ["keep", "clips"] in cells
    assert ["false", "3"] in cells
    assert ["true", "5"] in cells


def test_an_answer_is_written_as_csv_parquet_or_json(uri: str, tmp_path: Path, capsys) -> None:
    sql = "SELECT clip_id, caption_dense FROM dataset WHERE clip_id LIKE 'b%' ORDER BY clip_id"
    for suffix in ("csv", "parquet", "json"):
        assert main(["--dataset", uri, "--out", str(tmp_path / f"o'k.{suffix}"), sql]) == 0
        assert capsys.readouterr().out.startswith("3 rows written to ")
    assert (tmp_path / "o'k.csv").read_text().splitlines()[0] == "clip_id,caption_dense"
    expected = [("b00000000000", HOSTILE), ("b10000000000", None), ("b20000000000", None)]
    table = pq.read_table(tmp_path / "o'k.parquet").to_pylist()
    assert [tuple(row.values()) for row in table] == expected
    assert [tuple(row.values()) for row in json.loads((tmp_path / "o'k.json").read_text())] == expected
    assert main(["--dataset", uri, "--out", str(tmp_path / "d.csv"), "DESCRIBE clips"]) == 0
    assert len(list(tmp_path.iterdir())) == 4  # and no partial file


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_an_answer_that_breaks_off_leaves_the_old_file(uri: str, tmp_path: Path, capsys, suffix: str) -> None:
    sql = "SELECT if(range < 900000, range, error('broken at ' || range)) FROM range(1000000)"
    old = tmp_path / f"old.{suffix}"
    old.write_text("old")
    for file in (old, tmp_path / f"new.{suffix}"):
        assert main(["--dataset", uri, "--out", str(file), sql]) == 2
        assert "broken at" in capsys.readouterr().err
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_an_answer_that_breaks_off_never_hangs(uri: str, tmp_path: Path) -> None:
    """On a busy machine, DuckDB's own threads for writing made one in some ten wait for ever."""
    asks = """
import sys
from pathlib import Path
import duckdb
from curate.dataset import Dataset
from pipelines.query import connect
from pipelines.query_answer import write
uri, file = sys.argv[1], Path(sys.argv[2])
for _ in range(20):
    with connect(Dataset(uri), file) as connection:
        sql = "SELECT if(range < 900000, range, error('broken at ' || range)) AS a FROM range(1000000)"
        try:
            write(connection, connection.sql(sql), file)
        except duckdb.Error as error:
            assert "broken at" in str(error), error
        else:
            raise AssertionError("it did not break off")
"""
    files = [tmp_path / f"{n}.{suffix}" for n in range(2) for suffix in ("csv", "parquet", "json")]
    asked = [
        subprocess.Popen([sys.executable, "-c", asks, uri, str(file)], cwd=ROOT, stderr=subprocess.PIPE)
        for file in files
    ]
    try:
        for process in asked:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in asked:
            process.kill()


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_an_answer_is_printed_for_other_programs(
    uri: str, capsys, tmp_path: Path, monkeypatch, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sql = "SELECT clip_id, caption_dense, reasons FROM dataset WHERE clip_id LIKE 'b%' ORDER BY clip_id"
    assert main(["--dataset", uri, "--format", kind, sql]) == 0
    out = capsys.readouterr().out
    black = ["black_ratio 1.00 > 0.10", "motion 0.02 < 0.50"]
    if kind == "json":
        assert json.loads(out) == [
            {"clip_id": "b00000000000", "caption_dense": HOSTILE, "reasons": []},
            {"clip_id": "b10000000000", "caption_dense": None, "reasons": black},
            {"clip_id": "b20000000000", "caption_dense": None, "reasons": ["motion 0.12 < 0.50"]},
        ]
    else:
        assert [row[:2] for row in csv.reader(out.splitlines())] == [
            ["clip_id", "caption_dense"],
            ["b00000000000", HOSTILE],
            ["b10000000000", ""],
            ["b20000000000", ""],
        ]
    assert list(tmp_path.iterdir()) == []


def test_json_has_null_for_what_is_no_number(uri: str, capsys) -> None:
    sql = "SELECT 'nan'::FLOAT AS a, 1 / 0.5 AS b, [1.5, 'inf'::DOUBLE] AS \"c d\", NULL::FLOAT[] AS e, 'x' AS f"
    assert main(["--dataset", uri, "--format", "json", sql]) == 0
    assert capsys.readouterr().out == '[\n\t{"a":null,"b":2.0,"c d":[1.5,null],"e":null,"f":"x"}\n]\n'


def test_rows_too_wide_for_the_terminal(uri: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    wide = ", ".join(f"repeat('{letter}', 12) AS {letter}" for letter in "abcdefg")
    sql = f"SELECT {wide}, NULL AS n, chr(27) || 'x' AS z, repeat('w', 401) AS w FROM range({{}})"
    assert main(["--dataset", uri, sql.format(1)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:9] == [*(f"{letter}  {letter * 12}" for letter in "abcdefg"), "n  NULL", r"z  \x1bx"]
    assert "".join(line.strip() for line in lines[9:-2]) == "w  " + "w" * 399 + "…"
    assert max(map(len, lines[:-1])) <= 60
    assert lines[-1].startswith("Rows: 1, printed down: 10 columns")
    assert main(["--dataset", uri, sql.format(9)]) == 0
    shown = capsys.readouterr().out
    assert "10 columns (" in shown
    assert shown.endswith("Columns are hidden: name fewer, widen the terminal, or print with --format csv.\n")


def test_names_are_not_broken_at_their_hyphens(uri: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "films/one-of-many-films-with-long-names.mp4"
    wide = ", ".join(f"'{name} {name}' AS {letter}" for letter in "abcdefg")
    assert main(["--dataset", uri, f"SELECT {wide}, '' AS empty"]) == 0
    shown = capsys.readouterr().out
    assert shown.split().count(name) == 14
    assert "\nempty\n" in shown


def test_an_answer_that_breaks_off_prints_nothing(uri: str, capsys) -> None:
    sql = "SELECT if(range < 900000, range, error('broken at ' || range)) FROM range(1000000)"
    assert main(["--dataset", uri, "--format", "csv", sql]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "broken at 900000" in shown.err


def test_sql_may_be_piped_in(uri: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.query", "--dataset", uri, "--format", "csv"]
    run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    done = run(command, input="SELECT count(*) AS n\nFROM clips;\n")
    assert (done.stdout, done.stderr) == ("n\n8\n", "")
    (tmp_path / "asked.sql").write_text("CREATE TABLE two AS SELECT 2 AS two;\nFROM two;\n")
    with open(tmp_path / "asked.sql") as file:
        assert run(command, stdin=file).stdout == "two\n2\n"
    done = run(command[:-2], stdin=subprocess.DEVNULL)
    assert "dataset (8 rows)" in done.stdout
    assert done.stderr == ""
    done = run(command, stdin=subprocess.DEVNULL)
    assert "there is nothing to write: give SQL" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("sql", "number"),
    [
        ("SELECT 1; SELECT 2", 1),
        ("SELECT 1; CREATE TABLE m AS SELECT 2", 1),
        ("CREATE TABLE m AS SELECT 2; PIVOT clips ON camera USING count(*); SELECT 1", 2),
        ("EXPLAIN SELECT 1; SELECT 2", 1),
    ],
)
def test_no_answer_is_dropped_in_silence(uri: str, capsys, sql: str, number: int) -> None:
    assert main(["--dataset", uri, sql]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    n = sql.count(";") + 1
    assert shown.err == (
        f"reelmill query: error: the SQL has {n} statements, and the answer of number {number} would be lost: ask one "
        "question at a time, or at the prompt, which answers each.\n"
    )


def test_show_tables_lists_no_stand_ins(uri: str, capsys) -> None:
    ours = ["captions", "clips", "dataset", "decisions", "latents", "shards", "sources"]
    assert main(["--dataset", uri, "--format", "csv", "show  tables;"]) == 0
    assert capsys.readouterr().out.split() == ["name", *ours]
    assert main(["--dataset", uri, "--format", "csv", "CREATE TABLE mine AS SELECT 1; FROM mine"]) == 0


def test_control_characters_reach_no_terminal(uri: str, capsys) -> None:
    assert main(["--dataset", uri, "SELECT 'a' || chr(27) || '[31mred' || chr(7) AS t"]) == 0
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert "\x07" not in out
    assert "[31mred" in out


def test_where_an_answer_cannot_be_written(uri: str, tmp_path: Path, capsys) -> None:
    assert main(["--dataset", uri, "--out", "answer.xls", "FROM clips"]) == 2
    assert "end its name in .csv, .parquet, .json" in capsys.readouterr().err
    assert main(["--dataset", uri, "--out", str(tmp_path / "none" / "a.csv"), "FROM clips"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_name_and_a_format_that_contradict(uri: str, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "a.parquet")
    assert main(["--dataset", uri, "--out", out, "--format", "csv", "FROM clips"]) == 2
    assert capsys.readouterr().err == (
        f"reelmill query: error: the name {out!r} says parquet and --format csv: leave --format away.\n"
    )
    assert not list(tmp_path.iterdir())
    assert main(["--dataset", uri, "--out", str(tmp_path / "a.csv"), "--format", "csv", "FROM clips"]) == 0


def test_a_dataset_on_an_object_store(tmp_path: Path) -> None:
    build(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "dataset"), "/bucket/films", recursive=True)
    try:
        assert rows("memory://bucket/films", "SELECT count(*) FROM dataset WHERE keep") == [(5,)]
        assert rows("memory://bucket/films", "SELECT DISTINCT vae_id FROM latents") == [("tiny-0123",)]
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_reader_that_goes_away_is_no_error(uri: str) -> None:
    command = (
        f"'{sys.executable}' -m pipelines.query --dataset \"{uri}\" --max_rows 99999 'FROM range(99999)'"
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == 141
