"""What the Hugging Face Hub must be told to show the tables of a dataset: `configs` and `dataset_info` of its card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset


def configs(dataset: Dataset) -> dict[str, str]:
    """The tables that exist: name -> glob of their files, relative to the dataset.

    The tars are not among them: the Hub reads all files of a repository with one reader.
    """
    found = {}
    for table in ("clips", "captions", "decisions", "sources"):
        names = dataset.files(table, ".parquet")
        if names:
            found[table] = (
                f"{table}/**/*.parquet" if any("/" in name for name in names) else f"{table}/*.parquet"
            )
    if dataset.exists("shards", "index.parquet"):
        found["shards"] = "shards/index.parquet"
    for name in dataset.files("latents", "index.parquet"):
        found[f"latents-{name.split('/')[0]}"] = f"latents/{name}"
    return found


def features(tables: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, Any]] | None:
    """The columns of a table in the words of `datasets`, without its maps; None for a table without any.

    `datasets` knows no maps, and refuses a table that has one unless it is told which columns to read.
    """
    schema = tables.sql(f"FROM {table} LIMIT 0").to_arrow_table().schema
    if not any(pa.types.is_map(column.type) for column in schema):
        return None
    return [
        {"name": column.name, **_dtype(column.type)} for column in schema if not pa.types.is_map(column.type)
    ]


def _dtype(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": [{"name": part.name, **_dtype(part.type)} for part in kind]}
    if pa.types.is_list(kind):
        inside = _dtype(kind.value_type)
        return {"list": inside["dtype"] if set(inside) == {"dtype"} else inside}
    names = {pa.float32(): "float32", pa.float64(): "float64"}  # Arrow calls them float and double
    return {"dtype": names.get(kind, str(kind))}
