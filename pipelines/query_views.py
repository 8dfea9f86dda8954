"""The Parquet files of a table as one SELECT with today's columns, whatever version wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.table_versions import sql_migration
from curate.tables import TABLES
from pipelines.query_files import PROTOCOL


def rows_in_sql(dataset: Dataset, table: str, names: Sequence[str]) -> str:
    """SQL that gives the rows of the files `names`; columns that no file has are taken from `empty_TABLE`.

    Raises BadInput for a file of a newer version.
    """
    alike: dict[tuple[str, ...], list[str]] = {}  # what must be done to a file -> the files
    found = set()
    with ThreadPoolExecutor(8) as pool:  # on an object store every look takes a while
        schemas = pool.map(lambda name: _schema(dataset, name), names)
        for name, schema in zip(names, schemas, strict=True):
            alike.setdefault(tuple(sql_migration(schema, dataset.path(name))), []).append(name)
            found.update(schema.names)
    parts = list(_selects(table, alike))
    if missing := [f'"{name}"' for name in TABLES[table].names if name not in found]:
        parts.append(f"SELECT {', '.join(missing)} FROM empty_{table}")
    return " UNION ALL BY NAME ".join(parts)


def _schema(dataset: Dataset, name: str) -> pa.Schema:
    with dataset.open(name) as file:
        return pq.read_schema(file)


def _selects(table: str, alike: dict[tuple[str, ...], list[str]]) -> Iterator[str]:
    # Latents of several VAEs stand side by side; the folder tells which made a row.
    is_latents = table == "latents"
    vae_id = "* EXCLUDE filename, regexp_extract(filename, '/latents/([^/]+)/', 1) AS vae_id"
    for steps, names in alike.items():
        files = ", ".join("'" + f"{PROTOCOL}://{name}".replace("'", "''") + "'" for name in names)
        sql = f"SELECT * FROM read_parquet([{files}], union_by_name=true, filename={is_latents})"
        for select in (*steps, vae_id) if is_latents else steps:
            sql = f"SELECT {select} FROM ({sql})"
        yield sql
