"""What `reelmill query` does with an answer: a table, CSV or JSON on the terminal, or a file."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from curate.errors import BadInput
from pipelines.query import quote, rows_of

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset
    from pipelines.query_examples import Example

Answer = TypeVar("Answer")
_FORMATS = {
    ".csv": "FORMAT csv, HEADER",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".json": "FORMAT json, ARRAY true",
}
_FEW_ROWS = 8  # that many can be read down
_SHOW_TABLES = re.compile(r"\s*SHOW\s+TABLES\s*;?\s*", re.IGNORECASE)
# The views of the dataset and the tables of the session, without the empty stand-ins for what the dataset lacks.
_NAMES = """
SELECT view_name AS name, view_oid AS oid FROM duckdb_views()
WHERE NOT internal AND NOT temporary AND view_name <> 'answer_rows'
UNION ALL SELECT table_name, table_oid FROM duckdb_tables()
"""
# Kinds of statements that have an answer; MULTI is PIVOT.
_QUESTIONS = ("SELECT", "MULTI", "EXPLAIN", "EXECUTE", "CALL", "PRAGMA")
_LONGEST, _LONGEST_TEXT = 400, 2000  # characters of a value that is printed down; of one that is to be read


def one_question(statements: Sequence[duckdb.Statement]) -> None:
    """Raises BadInput unless the last statement alone can have an answer; those before it may make tables."""
    if not statements:
        raise BadInput("the SQL is empty; leave it out for a prompt, or for a list of the views.")
    unheard = [number for number, one in enumerate(statements[:-1], 1) if one.type.name in _QUESTIONS]
    if unheard:
        raise BadInput(
            f"the SQL has {len(statements)} statements, and the answer of number {unheard[0]} would be lost: "
            "ask one question at a time, or at the prompt, which answers each."
        )


def own_tables(sql: str) -> str:
    """`sql`, or for SHOW TABLES what lists the dataset's views and the session's tables alone."""
    return f"SELECT name FROM ({_NAMES}) ORDER BY name" if _SHOW_TABLES.fullmatch(sql) else sql


def show(answer: duckdb.DuckDBPyRelation, max_rows: int, example: Example | None = None) -> None:
    """Print an answer, which may be that of `example`, as a table; control characters of captions are shown as text.

    A few rows that are too wide for the terminal are printed down, a column a line, so that none is hidden. So are all
    rows of an example that is to be read down; one without rows says what that means.
    """
    width = shutil.get_terminal_size((160, 24)).columns
    with redirect_stdout(io.StringIO()) as drawn:
        answer.show(max_rows=max_rows, max_width=width)
    table = drawn.getvalue().rstrip()
    if example is not None and re.search(r"^ *0 rows", table, re.MULTILINE):
        print(example.empty)
        return
    read_down = example is not None and example.is_read_down
    if not read_down and not re.search(r"\d columns \(\d+ shown\)", table.rpartition("└")[2]):
        print(table)
        return
    most = max_rows if read_down else _FEW_ROWS
    rows = answer.limit(most + 1).project("CAST(COLUMNS(*) AS VARCHAR)").fetchall()
    if read_down:
        _print_down(answer.columns, rows[:most], _LONGEST_TEXT, width)
        print(f"Rows: {len(rows)}." if len(rows) <= most else f"Rows: {most} of more; see --max_rows.")
    elif len(rows) > most:
        print(f"{table}\nColumns are hidden: name fewer, widen the terminal, or print with --format csv.")
    else:
        _print_down(answer.columns, rows, _LONGEST, width)
        told = f"{len(answer.columns)} columns are wider than this terminal"
        print(f"Rows: {len(rows)}, printed down: {told}.")


def _print_down(
    columns: Sequence[str], rows: Sequence[Sequence[str | None]], longest: int, width: int
) -> None:
    """Print rows as a block each, a column a line; values are cut after `longest` characters."""
    names = [_plain(name) for name in columns]
    indent = max(map(len, names))
    for row in rows:
        for name, value in zip(names, row, strict=True):
            text = "NULL" if value is None else value
            cut = text if len(text) <= longest else text[: longest - 1] + "…"
            first, next_ones = f"{name:<{indent}}  ", " " * (indent + 2)
            at_least = max(width, indent + 22)
            wrapped = textwrap.wrap(
                _plain(cut),
                at_least,
                initial_indent=first,
                subsequent_indent=next_ones,
                break_on_hyphens=False,  # names of files and models, to be copied
            )
            print("\n".join(wrapped) or first.rstrip())
        print()


def _plain(text: str) -> str:
    """Text on one line that can do nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], Answer]) -> Answer:
    """What `work`, which asks `connection`, returns. Ctrl-C stops it, of which DuckDB alone would not hear."""
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(work)
        try:
            return asked.result()
        except KeyboardInterrupt:
            connection.interrupt()
            wait([asked])
            raise


def overview(connection: duckdb.DuckDBPyConnection) -> str:
    """The views, their rows and columns, and where to begin."""
    lines = []
    for name in table_names(connection):
        counted = rows_of(connection, f"SELECT count(*) AS n FROM {quoted_name(name)}")
        columns = rows_of(connection, f"SELECT column_name FROM (DESCRIBE {quoted_name(name)})")
        lines.append(f"{name} ({counted[0]['n']:,} rows)")
        lines.append("    " + ", ".join(row["column_name"] for row in columns))
    lines += [
        "",
        "Ask, for example:",
        "  \"SELECT split_part(reason, ' ', 1) AS rule, count(*) FROM decisions GROUP BY ALL ORDER BY 2 DESC\"",
        '  "SELECT kind, captioner, avg(length(text)) FROM captions GROUP BY ALL"',
        "or see --examples.",
    ]
    return "\n".join(lines)


def table_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The dataset's views, then the session's tables, as they were made."""
    return [row["name"] for row in rows_of(connection, f"{_NAMES} ORDER BY oid")]


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def target(out: str | None, dataset: Dataset, kind: str) -> Path | None:
    """Where --out writes; `kind`: --format. Raises BadInput where an answer cannot, or must not, be written."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in _FORMATS:
        raise BadInput(f"cannot tell the format of {out!r}; end its name in {', '.join(_FORMATS)}.")
    if kind not in ("table", path.suffix[1:]):
        raise BadInput(f"the name {out!r} says {path.suffix[1:]} and --format {kind}: leave --format away.")
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {out!r}: there is no folder {str(path.parent)!r}.")
    if path.is_dir():
        raise BadInput(f"cannot write {out!r}: it is a folder.")
    if dataset.is_local and path.resolve().is_relative_to(Path(dataset.root).resolve()):
        raise BadInput(f"cannot write {out!r}: it lies in the dataset, whose tables it could change.")
    return path


@contextmanager
def scratch(out: Path | None, kind: str) -> Iterator[Path | None]:
    """The name of a file for an answer to be written to, which is gone afterwards; None for a table.

    It lies beside `out`, so that it can be renamed to it, or in the machine's folder for such files.
    """
    if out is None and kind == "table":
        yield None
        return
    folder = Path(tempfile.gettempdir()) if out is None else out.parent
    file = folder.resolve() / f".query-{uuid4().hex}{f'.{kind}' if out is None else out.suffix}"
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def write(connection: duckdb.DuckDBPyConnection, answer: duckdb.DuckDBPyRelation, file: Path) -> int:
    """Write an answer to `file`, in the format that its name ends with. Returns its rows."""
    answer.create_view("answer_rows")
    rows = _finite(connection) if file.suffix == ".json" else "answer_rows"
    written = f"COPY {rows} TO {quote(str(file))} ({_FORMATS[file.suffix]}, USE_TMP_FILE false)"
    copied = connection.execute(written).fetchone()
    return int(copied[0]) if copied else 0


def _finite(connection: duckdb.DuckDBPyConnection) -> str:
    """`answer_rows` with null for what JSON has no number for: NaN and the infinities."""
    made = []
    for column in rows_of(connection, "DESCRIBE answer_rows"):
        name, kind = quoted_name(column["column_name"]), column["column_type"]
        if kind in ("FLOAT", "DOUBLE"):
            made.append(f"CASE WHEN isfinite({name}) THEN {name} END AS {name}")
        elif kind in ("FLOAT[]", "DOUBLE[]"):
            made.append(f"[CASE WHEN isfinite(x) THEN x END FOR x IN {name}] AS {name}")
    return f"(SELECT * REPLACE ({', '.join(made)}) FROM answer_rows)" if made else "answer_rows"


def deliver(file: Path, n_rows: int, out: Path | None) -> None:
    """Make the `file` that was written `out`, or print it."""
    if out is not None:
        os.replace(file, out)
        print(f"{n_rows} rows written to {out}")
        return
    sys.stdout.flush()
    with file.open("rb") as rows:
        shutil.copyfileobj(rows, sys.stdout.buffer)
