"""The tables of a dataset in SQL, through DuckDB.

    reelmill query --dataset films                                         # a prompt; piped: what is there
    reelmill query --dataset films "SELECT split_part(reason, ' ', 1) AS rule, count(*) FROM decisions GROUP BY ALL"
    reelmill query --dataset s3://bucket/films --out kept.csv "SELECT * FROM dataset WHERE keep"
    reelmill query --dataset films --example 3 --format json | jq

Every table is a view; `dataset` joins them, one row per clip. Nothing is copied: DuckDB reads the Parquet, and
cannot write to it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from curate.errors import BadInput

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset
    from pipelines.query_examples import Example

# What DuckDB says of INSERT, UPDATE and DELETE on a view.
_WRITES = re.compile(r"is not an table|Can only (update|delete from) base table")


@dataclass(frozen=True)
class QueryConfig:
    """Ask the tables of a dataset in SQL.

    The views are sources, clips, decisions, overrides, captions, shards, latents, and `dataset`, which joins
    them with one row per clip. Without SQL, gives a prompt on a terminal; elsewhere it reads the SQL that is
    piped in, or lists the views with their rows and columns. SQL cannot change the dataset, nor reach other files.

    Attributes:
        dataset: folder or URI of the dataset.
        sql: what to ask, in DuckDB's SQL.
        format: how to print the answer; csv and json print all rows. For Parquet give `out`, whose name alone says
            its format.
        out: local file to write the answer to (.csv, .parquet or .json) instead of printing it.
        max_rows: most rows to print in a table.
        examples: list ten questions that are often asked, with their SQL.
        example: run the example of that number instead of `sql`.

    Example:
        reelmill query --dataset films "SELECT split_part(reason, ' ', 1) AS rule, count(*) FROM decisions GROUP BY ALL"
        reelmill query --dataset films --out kept.parquet "FROM dataset WHERE keep AND motion > 2"
        reelmill query --dataset films --example 3
    """

    dataset: str
    sql: str | None = None
    format: Literal["table", "csv", "json"] = "table"
    out: str | None = None
    max_rows: int = 40
    examples: bool = False
    example: int | None = None


def query(config: QueryConfig) -> None:
    """Answer `config.sql`, on the terminal or in a file. Raises BadInput for SQL that DuckDB refuses."""
    from curate.dataset import Dataset
    from pipelines.query_answer import deliver, interruptible, overview, scratch, target
    from pipelines.query_examples import listing, numbered

    if config.examples:
        print(listing(config.dataset))
        return
    if config.sql is not None and config.example is not None:
        raise BadInput("give SQL or --example, not both.")
    example = None if config.example is None else numbered(config.example)
    sql = config.sql if example is None else example.sql
    dataset = Dataset(config.dataset)
    is_plain = config.out is None and config.format == "table"
    if sql is None and is_plain and sys.stdin.isatty() and sys.stdout.isatty():
        from pipelines.query_prompt import prompt

        with connect(dataset) as connection:
            prompt(connection, dataset, config.max_rows)
        return
    sql = _piped() if sql is None else sql
    if sql is None and not is_plain:
        raise BadInput("there is nothing to write: give SQL, or --example with a number.")
    out = target(config.out, dataset, config.format)
    with scratch(out, config.format) as file, connect(dataset, file) as connection:
        if sql is None:
            print(overview(connection))
            return
        with explained(dataset, on_one_line=True):
            asked = partial(_answer, connection, sql, config.max_rows, file, example)
            n_rows = interruptible(connection, asked)
        if file is not None:
            deliver(file, n_rows, out)


def _answer(
    connection: duckdb.DuckDBPyConnection, sql: str, max_rows: int, file: Path | None, example: Example | None
) -> int:
    """Print the answer to `sql`, which may be that of `example`, or write it to `file`; returns the rows written."""
    from pipelines.query_answer import one_question, own_tables, show, write

    one_question(connection.extract_statements(sql))
    answer = connection.sql(own_tables(sql))
    if answer is None and file is not None:
        raise BadInput("the SQL has no rows to write.")
    if file is not None:
        return write(connection, answer, file)
    if example is not None:
        print(f"{example.heading()}\n")
    if answer is not None:  # a statement such as CREATE TABLE has none
        show(answer, max_rows, example)
    return 0


def connect(dataset: Dataset, file: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view per table that exists, and `dataset`. Raises BadInput without clips.

    SQL can read the dataset, and write to `file`; it reaches nothing else outside, and no setting.
    """
    import duckdb

    from curate.table_files import stored
    from curate.tables import TABLES
    from pipelines.query_files import PROTOCOL, ReadOnlyFiles
    from pipelines.query_views import JOINED, rows_in_sql

    parts = {table: _parts(dataset, table) for table in TABLES}
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")  # `FROM config` is no variable of ours
    connection.execute("SET parquet_metadata_cache = true")
    connection.register_filesystem(
        ReadOnlyFiles(dataset, {name for names in parts.values() for name in names})
    )
    connection.execute(f"SET allowed_directories = ['{PROTOCOL}://']")
    if file is not None:
        connection.execute(f"SET allowed_paths = [{quote(str(file))}]")
        if connection.sql("FROM duckdb_settings() WHERE name = 'async_threads'"):
            # With threads of their own for writing, DuckDB 2.0.0 sometimes waits for itself for ever where an answer
            # breaks off.
            connection.execute("SET async_threads = 0")
    # DuckDB lets SQL into the folder it spills to, which else is .tmp where one stands. It makes this one when it must,
    # and removes it.
    connection.execute(
        f"SET temp_directory = {quote(f'{tempfile.gettempdir()}/reelmill-query-{uuid4().hex}')}"
    )
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    names = {}
    for table, schema in TABLES.items():
        names[table] = table if parts[table] else f"no_{table}"
        connection.register(f"empty_{table}", stored(schema).empty_table())
        if parts[table]:
            connection.execute(f"CREATE VIEW {table} AS {rows_in_sql(dataset, table, parts[table])}")
        else:  # an empty stand-in, so that the joined view has all its columns
            connection.execute(f"CREATE TEMP VIEW no_{table} AS FROM empty_{table}")
    if names["clips"] != "clips":
        if names["sources"] == "sources":
            return connection
        dataset.read("clips")  # raises the BadInput that names the command
    connection.execute(JOINED.format(**names))
    return connection


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str, *values: Any) -> list[dict[str, Any]]:
    """The rows of an answer, with `values` for its question marks."""
    # Through Arrow: DuckDB's own Python rows want pytz for a time with its zone.
    rows: list[dict[str, Any]] = connection.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return rows


@contextmanager
def explained(dataset: Dataset, *, on_one_line: bool = False) -> Iterator[None]:
    """DuckDB's errors as BadInput: in its own words, or with the command that makes a missing table.

    Its mark below the wrong word needs several lines; `on_one_line` only the number of the line is told.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        told = str(error).strip()
        for table in _absent(dataset):
            if f"Table with name {table} does not exist" in told:
                # Raises the BadInput that names the command which writes this table.
                dataset.read("clips" if table == "dataset" else table)
        if told.startswith("Traceback"):  # raised by the dataset's file system
            told = told.splitlines()[-1].partition(": ")[2]
        if "No such file" in told:
            told += ". The table's files were replaced since this began: begin again."
        if on_one_line:
            told = re.sub(r"\s+LINE (\d+):.*", r" (line \1)", told, flags=re.DOTALL)
        if _WRITES.search(told):
            told += ". The tables are views of the dataset, which SQL only reads."
        if "disabled by configuration" in told:
            told += (
                ". SQL reads this dataset alone, and only --out writes; for other files see docs/query.md."
            )
        raise BadInput(told) from error


def _piped() -> str | None:
    """The SQL that is piped or redirected into the command; None if nothing is."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or none at all
        return None
    if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)):
        return None
    return sys.stdin.read().strip() or None


def _parts(dataset: Dataset, table: str) -> list[str]:
    """The Parquet files behind a view, relative to the dataset."""
    suffix = "index.parquet" if table in ("shards", "latents") else ".parquet"
    return [f"{table}/{name}" for name in dataset.files(table, suffix)]


def _absent(dataset: Dataset) -> list[str]:
    from curate.tables import TABLES

    absent = [table for table in TABLES if not _parts(dataset, table)]
    return [*absent, "dataset"] if "clips" in absent else absent


def quote(text: str) -> str:
    """`text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(QueryConfig, query, argv, name="query", positional="sql")


if __name__ == "__main__":
    raise SystemExit(main())
