"""Many small files of a table become few of 128 to 512 MB, with the same rows, sorted by key, in today's schema.

    done = compact(Dataset(uri), "captions")       # None if the files are good as they are

The rows are sorted by DuckDB, on disk where they do not fit; how the files are replaced as one is in
`curate/parts.py`. Who calls must keep other writers of the table away.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, conform, write_parquet
from curate.errors import BadInput
from curate.parts import TableReplaced, recover, staging, swap, versions
from curate.table_files import stored
from curate.table_versions import version_of
from curate.tables import SCHEMA_VERSION, TABLES, order_of

SMALLEST, USUAL, LARGEST = 128 << 20, 256 << 20, 512 << 20
_CHUNK_ROWS = 2_048
_MEMORY = "2GB"  # of the sort; what does not fit goes to a temporary folder


@dataclass(frozen=True)
class Compacted:
    """What became of a table.

    Attributes:
        rows: its rows, as many before as after.
        files: files before and after.
        size_bytes: their bytes before and after.
    """

    rows: int
    files: tuple[int, int]
    size_bytes: tuple[int, int]


def compact(dataset: Dataset, table: str) -> Compacted | None:
    """Merge the files of `table`; None if there is nothing to do.

    Raises BadInput if the table does not exist, was written by a newer Reelmill, or was replaced meanwhile.
    """
    recover(dataset, table)
    old = versions(dataset, table)
    if not old:
        dataset.read(table)  # raises the BadInput that names the command
    sizes = {name: int(dataset.fs.size(dataset.path(table, name))) for name in old}
    rows, is_old = _look(dataset, table, list(old))
    small = [size for size in sizes.values() if size < SMALLEST]
    if not is_old and max(sizes.values()) <= LARGEST and (not small or len(sizes) == 1):
        return None
    names = _write(dataset, table, list(old), rows)
    try:
        after = sum(int(dataset.fs.size(dataset.path(staging(table), name))) for name in names)
        swap(dataset, table, old)
    except (TableReplaced, FileNotFoundError) as error:
        recover(dataset, table)
        raise BadInput(
            f"{dataset.uri}: the {table} table was replaced while its files were merged; it stands as the other "
            "command wrote it. Run `reelmill compact` again when that has ended."
        ) from error
    return Compacted(rows, (len(old), len(names)), (sum(sizes.values()), after))


def _look(dataset: Dataset, table: str, names: list[str]) -> tuple[int, bool]:
    """Rows of all files, and whether one was written by an older version."""
    rows, is_old = 0, False
    for name in names:
        with dataset.open(table, name) as file:
            found = pq.ParquetFile(file)
            rows += found.metadata.num_rows
            is_old |= version_of(found.schema_arrow, dataset.path(table, name)) < SCHEMA_VERSION
    return rows, is_old


def _write(dataset: Dataset, table: str, names: list[str], rows: int) -> list[str]:
    """Write the sorted rows of the files `names` into staged ones; returns these."""
    schema = dataset.schema_with_notes(table, dataset.notes(table))
    token = uuid.uuid4().hex[:8]
    written: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        chunks = _sorted(_read(dataset, table, names), stored(TABLES[table]), scratch)
        done = 0
        # The first file is written even where there is no row.
        for first in chain([next(chunks, stored(TABLES[table]).empty_table())], chunks):
            written.append(f"part-{len(written):05}-{token}.parquet")
            with dataset.atomic_writer(staging(table), written[-1]) as file:
                left = rows - done
                done += write_parquet(file, schema, _until_full(chain([first], chunks), file, left))
    if done != rows:  # never seen; the old files stand
        raise RuntimeError(f"{rows} rows of {table} became {done}")
    return written


def _read(dataset: Dataset, table: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of all files in today's schema, a row group at a time."""
    for name in names:
        with dataset.open(table, name) as file:
            found = pq.ParquetFile(file)
            for group in range(found.num_row_groups):
                yield from conform(found.read_row_group(group), stored(TABLES[table])).to_batches()


def _sorted(batches: Iterator[pa.RecordBatch], schema: pa.Schema, scratch: str) -> Iterator[pa.Table]:
    """The rows in the order of the table, in chunks."""
    import duckdb

    with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": scratch}) as tables:
        tables.execute("SET TimeZone = 'UTC'")
        tables.register("rows", pa.RecordBatchReader.from_batches(schema, batches))
        order = ", ".join(f'"{column}" NULLS LAST' for column in order_of(schema))
        for batch in tables.sql(f"FROM rows ORDER BY {order}").to_arrow_reader(_CHUNK_ROWS):
            yield conform(pa.Table.from_batches([batch]), schema)


def _until_full(chunks: Iterator[pa.Table], file: IO[bytes], left: int) -> Iterator[pa.Table]:
    """Chunks for one file of at least USUAL bytes, unless too little would be left for another.

    `left` counts the rows that are not written yet.
    """
    rows = 0
    for chunk in chunks:
        yield chunk
        rows += len(chunk)
        size = file.tell()
        if size >= USUAL and size / rows * (left - rows) >= 1.25 * SMALLEST:  # an estimate: with room
            return
