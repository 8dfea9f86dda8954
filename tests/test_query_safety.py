"""What SQL of `reelmill query` cannot do: change a dataset, or reach anything beside it. And many threads at once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pytest
from moto_store import moto_store
from small_dataset import build

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import CAPTIONS
from pipelines.query import connect, explained, main
from pipelines.query_files import ReadOnlyFiles


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("safe")).uri


def contents(folder: str | Path) -> dict[str, str]:
    """Every file below a folder with a hash of its bytes."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "sql",
    [
        "COPY clips TO 'dataset://clips/part-00000.parquet'",
        "COPY clips TO 'dataset://clips/part-00000.parquet' (USE_TMP_FILE false)",
        "COPY clips TO 'dataset://clips/part-00001.parquet' (USE_TMP_FILE false)",
        "COPY clips TO '{dataset}/clips/part-00000.parquet' (USE_TMP_FILE false)",
        "COPY clips TO '{dataset}/clips/part-00000.parquet'",
        "COPY clips TO 'file://{dataset}/clips/part-00000.parquet' (USE_TMP_FILE false)",
        "COPY clips TO 'here.csv'",
        "EXPLAIN ANALYZE COPY clips TO '{dataset}/clips/part-00000.parquet' (USE_TMP_FILE false)",
        "PREPARE p AS COPY clips TO '{dataset}/clips/x.parquet'; EXECUTE p",
        "EXPORT DATABASE 'there'",
        "ATTACH 'there.db'; CREATE TABLE there.t AS FROM clips",
        "ATTACH 'dataset://there.db' AS there",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "FROM enable_logging(storage = 'file', storage_path = 'logs')",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "LOAD httpfs",
        "FROM read_text('/etc/hostname')",
        "FROM read_parquet('dataset://clips/../clips/part-00000.parquet')",
        "FROM read_parquet('{dataset}/clips/part-00000.parquet')",
        "FROM 'https://example.com/x.parquet'",
    ],
)
def test_sql_writes_and_reads_nothing_outside(
    uri: str, tmp_path: Path, monkeypatch, capsys, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(uri)
    code = main(["--dataset", uri, sql.replace("{dataset}", uri)])
    shown = capsys.readouterr()
    assert contents(uri) == before
    assert list(tmp_path.iterdir()) == []
    assert code == 2
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err


def test_what_is_refused_is_told_with_the_remedy(uri: str, capsys) -> None:
    assert main(["--dataset", uri, "COPY clips TO 'x.csv'"]) == 2
    assert "only --out writes; for other files see docs/query.md." in capsys.readouterr().err
    assert main(["--dataset", uri, "COPY clips TO 'dataset://clips/x.parquet' (USE_TMP_FILE false)"]) == 2
    assert capsys.readouterr().err == (
        "reelmill query: error: SQL only reads a dataset; write an answer to a file with --out.\n"
    )


def test_the_folder_that_duckdb_spills_to_is_no_way_out(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word of ours it is .tmp of the working folder, and open to SQL."""
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "there.txt").write_text("a secret")
    monkeypatch.chdir(tmp_path)
    tables = connect(Dataset(uri))
    for sql in (
        f"SELECT * FROM read_text('{tmp_path}/.tmp/there.txt')",
        f"COPY (SELECT 1) TO '{tmp_path}/.tmp/w.csv'",
        "COPY (SELECT 1) TO '.tmp/w.csv'",
    ):
        with pytest.raises(duckdb.Error):
            tables.sql(sql).fetchall()
    assert [path.name for path in (tmp_path / ".tmp").iterdir()] == ["there.txt"]


def test_what_does_not_fit_into_memory_is_spilled_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build(tmp_path / "d", tables=("sources", "clips"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda: real(config={"memory_limit": "40MB", "threads": 1}))
    tables = connect(dataset)
    (count,) = tables.sql(
        "SELECT count(*) FROM (SELECT md5(range::VARCHAR) AS a FROM range(1_500_000) ORDER BY a LIMIT 1_400_000)"
    ).fetchall()
    assert count == (1_400_000,)
    tables.close()
    assert not list(tmp_path.glob("reelmill-query-*"))


def test_an_answer_is_not_written_into_the_dataset(uri: str, tmp_path: Path, capsys) -> None:
    inside = f"{uri}/clips/mine.parquet"
    (tmp_path / "link").symlink_to(uri)
    for out in (inside, os.path.relpath(inside), f"{tmp_path}/link/clips/mine.parquet"):
        assert main(["--dataset", uri, "--out", out, "FROM clips"]) == 2
        assert "it lies in the dataset, whose tables it could change" in capsys.readouterr().err
    assert not Path(inside).exists()


def test_files_that_were_replaced_are_told(tmp_path: Path) -> None:
    """`reelmill compact` gives a table new files while a prompt is open."""
    dataset = build(tmp_path, tables=("sources", "clips"))
    tables = connect(dataset)
    part = tmp_path / "dataset" / "clips" / "part-00000.parquet"
    part.rename(part.with_name("part-00000-1234.parquet"))
    with pytest.raises(BadInput, match=r"replaced since this began: begin again\.$"), explained(dataset):
        tables.sql("SELECT sum(motion) FROM clips").fetchall()


def test_tables_in_memory_can_be_made(uri: str) -> None:
    with connect(Dataset(uri)) as connection:
        connection.sql("CREATE TABLE mine AS SELECT clip_id FROM decisions WHERE keep")
        connection.sql("DELETE FROM mine WHERE clip_id LIKE 'b%'")
        assert connection.sql("SELECT count(*) FROM mine").fetchall() == [(4,)]


@pytest.mark.parametrize("local", [True, False])
def test_threads_that_share_a_file_each_have_their_position(tmp_path: Path, local: bool) -> None:
    memory = fsspec.filesystem("memory")
    dataset = Dataset(tmp_path if local else "memory://shared")
    try:
        dataset.write_bytes(bytes(range(100)), "clips", "part-00000.parquet")
        file = ReadOnlyFiles(dataset, {"clips/part-00000.parquet"}).open("dataset://clips/part-00000.parquet")
        file.seek(10)
        other = threading.Thread(target=file.seek, args=(50,))
        other.start()
        other.join()
        assert file.read(3) == bytes([10, 11, 12])
        assert file.read(2) == bytes([13, 14])
        assert [file.seek(98), file.read(10), file.read(10)] == [98, bytes([98, 99]), b""]
        file.close()
    finally:
        if not local:
            memory.rm("/shared", recursive=True)


def test_a_large_table_is_read_by_many_threads_without_a_mistake(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    n = 200_000
    rows = {
        "caption_id": [f"{i:032x}" for i in range(n)],
        "clip_id": [f"{i // 2:024x}" for i in range(n)],
        "text": [f"caption {i} {i * i}" for i in range(n)],
        "kind": ["dense"] * n,
    }
    absent = {f.name: pa.nulls(n, f.type) for f in CAPTIONS if f.name not in rows}
    dataset.write("captions", pa.table({**rows, **absent}).select(CAPTIONS.names).cast(CAPTIONS))
    build(tmp_path / "other", tables=("sources", "clips"))
    for table in ("sources", "clips"):
        dataset.write(table, Dataset(tmp_path / "other" / "dataset").read(table))
    with connect(dataset) as connection:
        for _ in range(5):
            assert connection.sql(
                "SELECT count(*), sum(split_part(text, ' ', 3)::BIGINT), max(caption_id), count(DISTINCT clip_id) "
                "FROM captions"
            ).fetchall() == [(n, (n - 1) * n * (2 * n - 1) // 6, f"{n - 1:032x}", n // 2)]


def test_on_s3(tmp_path: Path, capsys) -> None:
    build(tmp_path)
    with moto_store() as store:
        import s3fs

        s3fs.S3FileSystem().put(str(tmp_path / "dataset"), "runs/films", recursive=True)
        uri = f"{store.uri}/films"
        before = s3fs.S3FileSystem().du("runs/films", total=False)
        assert (
            main(["--dataset", uri, "--format", "csv", "SELECT count(*) AS n FROM dataset WHERE keep"]) == 0
        )
        assert capsys.readouterr().out == "n\n5\n"
        for target in (f"{uri}/clips/part-00000.parquet", "dataset://clips/part-00000.parquet"):
            assert main(["--dataset", uri, f"COPY captions TO '{target}' (USE_TMP_FILE false)"]) == 2
        assert s3fs.S3FileSystem(use_listings_cache=False).du("runs/films", total=False) == before
