"""Files of older versions are read as today's; those of newer ones are refused in one sentence.

    table = migrate(pq.read_table(file))       # curate.dataset.conform then adds what columns are missing

Columns that a version added need nothing here: they are null in the files of before. Whatever else changed has one
small function in `MIGRATIONS`, and in `SQL_MIGRATIONS` for `reelmill query`; a file that is several versions old goes
through several of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from curate.errors import BadInput
from curate.tables import SCHEMA_VERSION, told


def _parents_of_one(captions: pa.Table) -> pa.Table:
    """1 -> 2: the first captions told only one parent_id; parent_ids names them all."""
    if "parent_ids" in captions.column_names or "parent_id" not in captions.column_names:
        return captions
    parents = [None if parent is None else [parent] for parent in captions["parent_id"].to_pylist()]
    return captions.append_column("parent_ids", pa.array(parents, pa.list_(pa.string())))


def _parents_in_sql(schema: pa.Schema) -> str:
    if "parent_ids" in schema.names or "parent_id" not in schema.names:
        return "*"
    return "*, CASE WHEN parent_id IS NOT NULL THEN [parent_id] END AS parent_ids"


def _pairs_in_sql(schema: pa.Schema) -> str:
    """2 -> 3: score_errors was a map; `conform` reads both, and SQL must not see two types of one column."""
    is_map = "score_errors" in schema.names and pa.types.is_map(schema.field("score_errors").type)
    return "* REPLACE (map_entries(score_errors) AS score_errors)" if is_map else "*"


MIGRATIONS: dict[tuple[str, int], Callable[[pa.Table], pa.Table]] = {("captions", 1): _parents_of_one}
"""(table, version) -> what turns the rows of that version into those of the next."""

SQL_MIGRATIONS: dict[tuple[str, int], Callable[[pa.Schema], str]] = {
    ("captions", 1): _parents_in_sql,
    ("clips", 2): _pairs_in_sql,
}
"""The same for DuckDB: (table, version) -> from the schema of the file, what to SELECT."""


def version_of(schema: pa.Schema, where: str) -> int:
    """The version a file was written with; today's for one that tells none. Raises BadInput for a newer one.

    `where` names the file in the message.
    """
    version = int(told(schema, "schema_version") or SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise BadInput(
            f"{where} was written by a newer Reelmill: its schema has version {version}, and this one reads up to "
            f"{SCHEMA_VERSION}. Upgrade here (pip install --upgrade reelmill), or work on the dataset where it was "
            "written."
        )
    return version


def must_migrate(schema: pa.Schema, where: str) -> bool:
    """True if more than null columns lies between the version of a file and today's."""
    versions = range(version_of(schema, where), SCHEMA_VERSION)
    return any((told(schema, "table"), version) in MIGRATIONS for version in versions)


def sql_migration(schema: pa.Schema, where: str) -> list[str]:
    """What to SELECT from a file of this schema, one list after the other, to have today's columns."""
    table = told(schema, "table")
    versions = range(version_of(schema, where), SCHEMA_VERSION)
    steps = [
        SQL_MIGRATIONS[table, version](schema) for version in versions if (table, version) in SQL_MIGRATIONS
    ]
    return [step for step in steps if step != "*"]


def migrate(table: pa.Table, where: str | None = None) -> pa.Table:
    """`table`, read whole from a file of an older version, with the meaning of today's columns."""
    name = told(table.schema, "table")
    for version in range(version_of(table.schema, where or f"a file of {name}"), SCHEMA_VERSION):
        table = MIGRATIONS.get((name, version), lambda same: same)(table)
    return table
