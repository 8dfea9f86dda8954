"""What the Hugging Face Hub must be told to show the tables of a dataset, and what it had better not be given."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from curate.dataset import Dataset


def configs(dataset: Dataset) -> dict[str, str]:
    """The tables that exist: name -> glob of their files, relative to the dataset.

    The tars are not among them: the Hub reads all files of a repository with one reader. Neither are overrides/,
    which hold people's names and notes; what came of them stands in decisions/.
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


def uploading(dataset: Dataset, by_hand: dict[str, int]) -> str:
    """How to upload the dataset, and what in it concerns nobody else; `by_hand` as in pipelines.card_data."""
    folder = shlex.quote(dataset.uri) if dataset.is_local else "FOLDER"
    copied = "" if dataset.is_local else " (a copy of it on a disk)"
    lines = [
        f"To upload it{copied}: hf upload USER/NAME {folder} . --repo-type dataset "
        '--exclude "_state/*" --exclude "overrides/*"',
        "_state/ holds what runs left behind and overrides/ the words of people.",
        "sources/ tells the full path of every file (uri)"
        + (" and decisions/ who overruled the rules, and why (override)" if any(by_hand.values()) else "")
        + ": look whether all may read that.",
    ]
    return "\n".join(lines)


def _has_map(dataset: Dataset, table: str, name: str) -> bool:
    with dataset.open(table, name) as file:
        return any(pa.types.is_map(column.type) for column in pq.read_schema(file))
