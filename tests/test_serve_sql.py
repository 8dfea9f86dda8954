"""The SQL box over real HTTP: it answers one SELECT, and nothing it is sent changes or reaches anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_small import Served, served
from small_dataset import build, clip_id

from curate.dataset import Dataset
from pipelines import serve_sql
from pipelines.query import connect
from pipelines.report_data import views_of
from pipelines.serve_sql import Questions, TooLong


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("sql"))


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


def contents(folder: str) -> dict[str, str]:
    """Every file below a folder with a hash of its bytes."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_select_is_answered(server: Served) -> None:
    found = server.json(
        "/api/sql", {"sql": "SELECT clip_id, motion, reasons FROM dataset WHERE NOT keep ORDER BY 1;"}
    )
    assert found["columns"] == ["clip_id", "motion", "reasons"]
    assert [row[0] for row in found["rows"]] == [clip_id(short) for short in ("b1", "b2", "c2")]
    assert found["rows"][1][1] == pytest.approx(0.12)
    assert found["rows"][1][2] == "['motion 0.12 < 0.50']"
    assert (found["is_cut"], found["n_cut_cells"]) == (False, 0)


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE clips",
        "SUMMARIZE captions",
        "FROM clips",
        "SHOW TABLES",
        "VALUES (1)",
        "SELECT 1 -- ;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "SELECT 'nan'::DOUBLE, 'inf'::FLOAT",
        "SELECT now(), 'x'::BLOB, {'a': [1]}, 1::DECIMAL(9, 2)",
    ],
)
def test_other_ways_to_ask(server: Served, sql: str) -> None:
    assert server.json("/api/sql", {"sql": sql})["columns"]


def test_what_a_select_cannot_ask_says_what_can(server: Served) -> None:
    told = server.refused("/api/sql", {"sql": "PIVOT clips ON camera USING count(*)"})[1]
    assert told.startswith("PIVOT must name its values here, as in FROM (PIVOT clips")
    asked = told.removeprefix("PIVOT must name its values here, as in ").partition("; ")[0]
    found = server.json("/api/sql", {"sql": f"SELECT sum(pan), sum(static) FROM ({asked})"})
    assert found["rows"] == [["4", "4"]] or found["rows"] == [[4, 4]]
    told = server.refused("/api/sql", {"sql": "EXPLAIN SELECT 1"})[1]
    assert told == "EXPLAIN is not answered here; `reelmill query` does."


@pytest.mark.parametrize("sql", ["SHOW TABLES", " show\ttables ; "])
def test_the_tables_are_those_there_are(server: Served, dataset: Dataset, sql: str) -> None:
    """Not the empty stand-ins for what the dataset lacks."""
    found = server.json("/api/sql", {"sql": sql})
    with connect(dataset) as tables:
        assert [row[0] for row in found["rows"]] == sorted(views_of(tables))
    assert found["columns"] == ["name"]
    assert "clips" in [row[0] for row in found["rows"]]


def test_large_numbers_are_exact(server: Served) -> None:
    """A browser's numbers are doubles, which round what is beyond 2^53."""
    least = 2**53
    found = server.json(
        "/api/sql", {"sql": f"SELECT {least}, {least - 1}, -{least}, 1 - {least}, true, {2**63 - 1}"}
    )
    assert found["rows"] == [[str(least), least - 1, str(-least), 1 - least, True, str(2**63 - 1)]]


def test_two_columns_of_one_name(server: Served) -> None:
    found = server.json("/api/sql", {"sql": "SELECT 1 AS a, 2 AS a"})
    assert found["rows"] == [[1, 2]]
    assert len(found["columns"]) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t AS FROM clips",
        "CREATE TEMP TABLE t AS FROM clips",
        "CREATE OR REPLACE VIEW clips AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "INSERT INTO clips VALUES (1)",
        "UPDATE clips SET motion = 1",
        "DELETE FROM clips",
        "DROP VIEW clips",
        "ALTER TABLE clips ADD COLUMN x INT",
        "TRUNCATE clips",
        "MERGE INTO clips USING decisions USING (clip_id) WHEN MATCHED THEN DELETE",
        "COPY clips TO 'here.csv'",
        "COPY clips TO 'dataset://clips/part-00001.parquet' (USE_TMP_FILE false)",
        "COPY clips TO '{dataset}/clips/part-00000.parquet'",
        "EXPORT DATABASE 'there'",
        "IMPORT DATABASE 'there'",
        "ATTACH 'there.db'",
        "DETACH memory",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET allowed_directories",
        "SET VARIABLE x = 1",
        "PRAGMA enable_profiling",
        "PRAGMA database_list",
        "CALL force_checkpoint()",
        "CHECKPOINT",
        "VACUUM",
        "ANALYZE",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "EXPLAIN ANALYZE COPY clips TO '{dataset}/clips/part-00000.parquet'",
        "EXPLAIN SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW clips",
        "SELECT 1; COPY clips TO 'here.csv'",
        "",
        "-- nothing",
        ";",
        "FROM read_text('/etc/hostname')",
        "FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "FROM sniff_csv('/etc/passwd')",
        "FROM glob('/etc/*')",
        "FROM read_blob('{dataset}/clips/part-00000.parquet')",
        "FROM read_parquet('{dataset}/clips/part-00000.parquet')",
        "FROM read_parquet('dataset://clips/../clips/part-00000.parquet')",
        "FROM 'https://example.com/x.parquet'",
        "FROM parquet_metadata('/tmp/x.parquet')",
        "FROM enable_logging(storage = 'file', storage_path = 'logs')",
        "FROM query('COPY clips TO ''here.csv''')",
        "FROM query_table('/etc/passwd')",
        "FROM dataset_of_ours",
        "FROM config",
        "FROM relation",
        "SELEC 1",
        "SELECT * FROM clips WHERE",
    ],
)
def test_sql_that_writes_or_leaves_is_refused(
    server: Served, dataset: Dataset, tmp_path: Path, monkeypatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(dataset.uri)
    status, why = server.refused("/api/sql", {"sql": sql.replace("{dataset}", dataset.uri)})
    assert status == 400
    assert why
    assert "Traceback" not in why
    assert contents(dataset.uri) == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_is_told(server: Served) -> None:
    told = {
        sql: server.refused("/api/sql", {"sql": sql})[1]
        for sql in ("DROP VIEW clips", "SELECT 1; SELECT 2", "FROM latent")
    }
    assert (
        told["DROP VIEW clips"]
        == "only a SELECT is answered here, not DROP: the SQL box reads and changes nothing."
    )
    assert told["SELECT 1; SELECT 2"] == "ask one question at a time; this is 2 statements."
    assert "Table with name latent does not exist" in told["FROM latent"]
    assert "Nobody has overruled a decision yet" in server.refused("/api/sql", {"sql": "FROM overrides"})[1]


@pytest.mark.parametrize(
    "body", [b"no json", b"[1]", b'"text"', b"{}", b'{"sql": 1}', b"\xff\xfe", b"[" * 60_000]
)
def test_a_body_that_is_none(server: Served, body: bytes) -> None:
    assert server.ask("/api/sql", body, content_type="application/json")[0] == 400


def test_long_sql_is_refused(server: Served) -> None:
    assert server.refused("/api/sql", {"sql": "SELECT 1 --" + "x" * 20_000}) == (
        400,
        "the SQL is longer than 20,000 characters.",
    )


def test_many_rows_and_long_texts_are_cut_and_it_says_so(server: Served) -> None:
    found = server.json("/api/sql", {"sql": "SELECT range AS n FROM range(1000000000) ORDER BY n"})
    assert [row[0] for row in found["rows"]] == list(range(1000))
    assert found["is_cut"]
    assert not server.json("/api/sql", {"sql": "FROM range(1000)"})["is_cut"]
    found = server.json("/api/sql", {"sql": "SELECT repeat('x', 2001), repeat('y', 2000)"})
    assert found["rows"] == [["x" * 2000 + "…", "y" * 2000]]
    assert found["n_cut_cells"] == 1
    columns = ", ".join(f"repeat('x', 1900) AS c{n}" for n in range(10))
    found = server.json("/api/sql", {"sql": f"SELECT {columns} FROM range(999)"})
    assert len(found["rows"]) == 4_000_000 // 19_000
    assert found["is_cut"]


ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range = 7"


def test_a_question_without_end_is_stopped(server: Served, monkeypatch) -> None:
    monkeypatch.setattr(serve_sql, "DEADLINE_S", 0.3)
    status, why = server.refused("/api/sql", {"sql": ENDLESS})
    assert (status, why) == (504, "stopped after 0.3 seconds; ask for less, or use `reelmill query`.")
    assert server.json("/api/sql", {"sql": "SELECT 1"})["rows"] == [[1]]


def test_a_question_that_does_not_stop_is_killed(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(serve_sql, "answer", None)  # only here: the process has its own
    questions = Questions(dataset.uri)
    assert questions.answer("SELECT 1")["rows"] == [[1]]
    monkeypatch.setattr(serve_sql, "KILLED_AFTER_S", -29.7)
    with pytest.raises(TooLong, match="no result within the deadline of 0 s; killed; ask for less"):
        questions.answer(ENDLESS)
    monkeypatch.setattr(serve_sql, "KILLED_AFTER_S", 10.0)
    assert questions.answer("SELECT 2")["rows"] == [[2]]
    questions.close()


def test_a_question_that_wants_too_much_memory_is_killed(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(serve_sql, "MEMORY_GIB", 0.5)
    questions = Questions(dataset.uri)
    assert questions.answer("SELECT 1")["rows"] == [[1]]
    with pytest.raises(TooLong, match=r"above the cap of 0\.5 GiB; killed"):
        questions.answer("SELECT len(list(range::VARCHAR || repeat('x', 100))) FROM range(1000000000)")
    assert questions.answer("SELECT 2")["rows"] == [[2]]
    questions.close()


def test_a_third_question_at_a_time_waits_for_its_turn(server: Served) -> None:
    children = server.live.questions.children
    with children.one():
        assert server.json("/api/sql", {"sql": "SELECT 1"})["rows"] == [[1]]
        with children.one():
            assert server.refused("/api/sql", {"sql": "SELECT 1"}) == (
                503,
                "2 questions are being answered already; ask again when one is done.",
            )
    assert server.json("/api/sql", {"sql": "SELECT 1"})["rows"] == [[1]]
