"""The SQL box: one SELECT at a time, with a deadline, a cap of memory and a most of rows.

Every question has a DuckDB of its own (`pipelines.query.connect`), which reads the dataset, writes nothing and reaches
nothing else; nothing that one leaves behind can be seen by the next. It is asked in a process that can be killed.
"""

from __future__ import annotations

import queue
import re
import threading
from typing import Any

from curate.errors import BadInput
from curate.isolate import ChildFailed
from pipelines.query import connect, explained
from pipelines.serve_children import Children

LONGEST_SQL = 20_000  # characters
MOST_ROWS = 1_000
LONGEST_CELL = 2_000  # characters
MOST_BYTES = 4_000_000  # characters of all cells
DEADLINE_S = 30.0
KILLED_AFTER_S = 10.0  # more, where DuckDB does not hear that it shall stop
MEMORY_GIB = 4.0
AT_ONCE = 2
MOST_EXACT = 2**53 - 1  # of the whole numbers that a browser reads as they are
_SHOW_TABLES = re.compile(r"\s*SHOW\s+TABLES\s*;?\s*", re.IGNORECASE)
# Without the empty stand-ins for tables and columns that the dataset lacks.
_OUR_TABLES = (
    "SELECT view_name AS name FROM duckdb_views() WHERE NOT internal AND NOT temporary ORDER BY name"
)


class TooLong(Exception):
    """The question took longer than its deadline, or more memory than it may."""


class Busy(Exception):
    """As many questions as may run are running."""


class Questions:
    """The SQL of the page, asked in processes of their own. Any thread may ask."""

    def __init__(self, uri: str) -> None:
        """`uri`: of the dataset."""
        self._uri = uri
        self.children = Children(AT_ONCE, memory_gib=MEMORY_GIB)

    def answer(self, sql: str) -> dict[str, Any]:
        """What `answer` says. Raises Busy when AT_ONCE others run, TooLong where it took too much."""
        if len(sql) > LONGEST_SQL:
            raise BadInput(f"the SQL is longer than {LONGEST_SQL:,} characters.")
        try:
            with self.children.one(wait=False) as child:
                found: dict[str, Any] = child.call(
                    "pipelines.serve_sql:answer",
                    self._uri,
                    sql,
                    DEADLINE_S,
                    deadline_s=DEADLINE_S + KILLED_AFTER_S,
                )
                return found
        except queue.Empty:
            raise Busy(
                f"{AT_ONCE} questions are being answered already; ask again when one is done."
            ) from None
        except ChildFailed as error:
            raise TooLong(f"{error}; ask for less, or use `reelmill query`.") from error

    def close(self) -> None:
        """End the processes."""
        self.children.kill()


def answer(uri: str, sql: str, deadline_s: float) -> dict[str, Any]:
    """`{columns, types, rows, is_cut, n_cut_cells}` of one SELECT: MOST_ROWS rows, cells as JSON can hold them.

    Whole numbers beyond MOST_EXACT are texts, or a browser would round them.

    Raises BadInput for SQL that is refused, TooLong after `deadline_s` seconds.
    """
    import duckdb

    from curate.dataset import Dataset

    dataset = Dataset(uri)
    with connect(dataset) as connection, explained(dataset):
        clock = threading.Timer(deadline_s, connection.interrupt)
        clock.daemon = True
        try:
            statement = only_select(
                connection.extract_statements(_OUR_TABLES if _SHOW_TABLES.fullmatch(sql) else sql)
            )
            clock.start()
            found = connection.sql(statement).limit(MOST_ROWS + 1).to_arrow_table()
        except duckdb.InterruptException as error:
            raise TooLong(
                f"stopped after {deadline_s:g} seconds; ask for less, or use `reelmill query`."
            ) from error
        finally:
            clock.cancel()
    return _told(found)


def only_select(statements: list[Any]) -> Any:
    """The one statement there is. Raises BadInput unless it only reads."""
    import duckdb

    if len(statements) != 1:
        raise BadInput(f"ask one question at a time; this is {len(statements)} statements.")
    kind = statements[0].type
    if kind == duckdb.StatementType.MULTI:  # one that DuckDB asks the tables for before it answers
        raise BadInput(
            "PIVOT must name its values here, as in FROM (PIVOT clips ON camera IN ('pan', 'static') USING count(*)); "
            "`reelmill query` finds them by itself."
        )
    if kind == duckdb.StatementType.EXPLAIN:
        raise BadInput("EXPLAIN is not answered here; `reelmill query` does.")
    if kind != duckdb.StatementType.SELECT:
        raise BadInput(
            f"only a SELECT is answered here, not {kind.name}: the SQL box reads and changes nothing."
        )
    return statements[0]


def _told(found: Any) -> dict[str, Any]:
    left, n_cut, rows = MOST_BYTES, 0, []
    columns = [column.to_pylist() for column in found.slice(0, MOST_ROWS).columns]  # two may have one name
    for row in zip(*columns, strict=True):
        cells = []
        for value in row:
            is_exact = not isinstance(value, int) or abs(value) <= MOST_EXACT
            is_plain = value is None or isinstance(value, bool | int | float)
            plain = value if is_plain and is_exact else str(value)
            if isinstance(plain, str) and len(plain) > LONGEST_CELL:
                plain, n_cut = plain[:LONGEST_CELL] + "…", n_cut + 1
            left -= len(str(plain))
            cells.append(plain)
        if left < 0:
            break
        rows.append(cells)
    return {
        "columns": found.column_names,
        "types": [str(kind) for kind in found.schema.types],
        "rows": rows,
        "is_cut": len(rows) < len(found),
        "n_cut_cells": n_cut,
    }
