"""Whether every file of a table is sorted as docs/tables.md says. What row groups let a reader skip rests on it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.tables import TABLES, order_of


def assert_sorted(dataset: Dataset, *tables: str) -> None:
    """Fails unless the files of `tables` are sorted, nulls last, and hold two rows or more that differ in order."""
    for table in tables:
        names = dataset.files(table, "index.parquet" if table in ("shards", "latents") else ".parquet")
        assert names, f"{table}/ has no files"
        for name in names:
            with dataset.open(table, name) as file:
                rows = pq.read_table(file, columns=order_of(TABLES[table]))
            assert distinct(rows) > 1, f"{table}/{name} has too few rows to tell"
            by = [(column, "ascending") for column in order_of(TABLES[table])]
            in_order = rows.take(pc.sort_indices(rows, sort_keys=by))
            assert rows.to_pylist() == in_order.to_pylist(), f"{table}/{name} is not sorted"


def distinct(rows: pa.Table) -> int:
    return len({tuple(row.values()) for row in rows.to_pylist()})
