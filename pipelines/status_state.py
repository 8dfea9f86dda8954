"""What lies in `_state/` of a dataset and when it was written: one listing, and the few columns that are counted.

state = State(dataset)
state.under("_state/captions", ".parquet")       # name -> when it was written
state.rows("_state/captions", ["clip_id", "status"])
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset

#: Files that are read at once: most of the time is waiting for a store, or for the disk.
READERS = 16
_TIMES = ("mtime", "LastModified", "updated", "last_modified")  # what the drivers of the stores call it


class State:
    """`_state/` as it was listed."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._times = times(dataset, "_state")

    @property
    def is_empty(self) -> bool:
        return not self._times

    def under(self, folder: str, suffix: str = "") -> dict[str, datetime]:
        """Files below `folder`, relative to it, and when each was written."""
        start = folder.removeprefix("_state/") + "/"
        return {
            name.removeprefix(start): written
            for name, written in self._times.items()
            if name.startswith(start) and name.endswith(suffix)
        }

    def newest(self, folder: str, suffix: str = "") -> datetime | None:
        """When something below `folder` was written last; null if nothing is there."""
        return max(self.under(folder, suffix).values(), default=None)

    def rows(self, folder: str, columns: Mapping[str, pa.DataType], names: list[str]) -> pa.Table:
        """`columns` of the Parquet files `names` in `folder`, without those that are gone by now."""
        schema = pa.schema(list(columns.items()))
        if self._dataset.is_local and names:
            with suppress(duckdb.IOException):  # a file is gone: its job has just ended
                return self._at_once(folder, schema, names)
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda name: self._read(f"{folder}/{name}", schema), names)
            return pa.concat_tables([schema.empty_table(), *filter(None, found)])

    def _at_once(self, folder: str, schema: pa.Schema, names: list[str]) -> pa.Table:
        """The same by DuckDB, which opens thousands of local files three times as fast."""
        files = [self._dataset.path(folder, name) for name in names]
        sql = f"SELECT {', '.join(schema.names)} FROM read_parquet(?)"
        with duckdb.connect() as connection:
            return connection.sql(sql, params=[files]).to_arrow_table().cast(schema)

    def _read(self, name: str, schema: pa.Schema) -> pa.Table | None:
        try:
            with self._dataset.open(*name.split("/")) as file:
                return pq.ParquetFile(file).read(columns=schema.names, use_threads=False).cast(schema)
        except FileNotFoundError:  # its job has just ended
            return None


def times(dataset: Dataset, folder: str) -> dict[str, datetime]:
    """Files below `folder`, relative to it, and when each was written, by the clock of the store."""
    base = dataset.path(folder).rstrip("/") + "/"
    dataset.fs.invalidate_cache()
    try:
        found: Mapping[str, Mapping[str, Any]] = dataset.fs.find(base, detail=True)
    except FileNotFoundError:
        return {}
    cut = len(base.lstrip("/"))
    return {name.lstrip("/")[cut:]: _time(info) for name, info in found.items()}


def _time(info: Mapping[str, Any]) -> datetime:
    told = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if told is None:
        return datetime.fromtimestamp(0, UTC)
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    if not isinstance(told, datetime):
        return datetime.fromtimestamp(told, UTC)
    return told if told.tzinfo else told.replace(tzinfo=UTC)
