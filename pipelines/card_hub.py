"""What the Hugging Face Hub must be told to show the tables of a dataset: the `configs` of its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
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


def refused(dataset: Dataset) -> list[str]:
    """The tables that the Hub cannot read: files of version 2 and before hold a map, which `datasets` knows not."""
    return [
        table
        for table in ("clips",)
        if any(_has_map(dataset, table, n) for n in dataset.files(table, ".parquet"))
    ]


def _has_map(dataset: Dataset, table: str, name: str) -> bool:
    with dataset.open(table, name) as file:
        return any(pa.types.is_map(column.type) for column in pq.read_schema(file))
