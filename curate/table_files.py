"""How one Parquet file of a table is laid out, and how the rows of any file become today's.

    with dataset.atomic_writer("clips", "part-00000.parquet") as file:
        write_parquet(file, CLIPS, chunks)         # in the order of the table's key
    rows = conform(pq.read_table(path), CLIPS)     # exactly the columns of CLIPS

The figures behind the choices are those of `tests/bench/tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from curate.table_versions import migrate

ROW_GROUP_ROWS = 16_000
# Uncompressed, as Arrow holds it. Hugging Face's viewer refuses row groups of more than 100 MB.
ROW_GROUP_BYTES = 64 << 20


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns of `schema`; what an older file lacks is made from it, or null."""
    table = migrate(table)
    columns = [
        _cast(table[field.name], field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_map(kind) and pa.types.is_list(column.type):  # of pairs, which Arrow makes no map of
        return pa.chunked_array([pa.array(map(_pairs, column.to_pylist()), kind)], kind)
    return column.cast(kind)


def _pairs(items: list[dict[str, str]] | None) -> list[tuple[str, ...]] | None:
    return None if items is None else [tuple(item.values()) for item in items]


# Dictionaries pay only where values repeat; on ids, texts, hashes and places in a file they cost space and time.
_PLAIN = {
    "clip_id", "caption_id", "parent_id", "parent_ids", "cut_id", "uri", "text", "text_raw", "structured", "phash",
    "error", "created_at", "latency_ms", "mp4_offset", "mp4_size", "json_offset", "json_size", "latent_offset",
    "latent_size", "text_offset", "text_size",
}  # fmt: skip


# Bytes of like weight side by side: embeddings become 8 % smaller than by zstd alone, and are read 15 % faster.
_SPLIT = {"embedding": "embedding.list.element"}


def stored(schema: pa.Schema) -> pa.Schema:
    """The schema in the file: maps are lists of (key, value), for Hugging Face's `datasets` knows no map."""
    for place, field in enumerate(schema):
        if pa.types.is_map(field.type):
            schema = schema.set(place, field.with_type(_pairs_of(field.type)))
    return schema


def _pairs_of(kind: pa.MapType) -> pa.ListType:
    return pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))


def write_parquet(file: IO[bytes], schema: pa.Schema, chunks: Iterable[pa.Table]) -> int:
    """Write `chunks` as one Parquet file: zstd, statistics, page index, row groups by `_groups`. Returns the rows."""
    count, schema = 0, stored(schema)
    split = {path: "BYTE_STREAM_SPLIT" for name, path in _SPLIT.items() if name in schema.names}
    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=_repeated(schema),
        column_encoding=split or None,
        write_page_index=True,
    ) as writer:
        waiting: list[pa.Table] = []
        for chunk in chunks:
            waiting.append(conform(chunk, schema))
            count += len(chunk)
            is_large = sum(part.nbytes for part in waiting) >= ROW_GROUP_BYTES
            if is_large or sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                whole = pa.concat_tables(waiting)
                full = len(whole) // ROW_GROUP_ROWS * ROW_GROUP_ROWS or len(whole)
                for group in _groups(whole.slice(0, full)):
                    writer.write_table(group)
                waiting = [whole.slice(full)]
        for group in _groups(pa.concat_tables(waiting) if waiting else schema.empty_table()):
            writer.write_table(group)
    return count


def _groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Row groups: 16,000 rows, halved until they hold 64 MiB at most."""
    for start in range(0, len(rows), ROW_GROUP_ROWS):
        yield from _halved(rows.slice(start, ROW_GROUP_ROWS))


def _halved(group: pa.Table) -> Iterator[pa.Table]:
    if group.nbytes <= ROW_GROUP_BYTES or len(group) == 1:
        yield group
        return
    half = (len(group) + 1) // 2
    yield from _halved(group.slice(0, half))
    yield from _halved(group.slice(half))


def _repeated(schema: pa.Schema) -> list[str]:
    """The Parquet columns that get a dictionary, nested ones by their path (`reasons.list.element`)."""
    return [path for f in schema if f.name not in _PLAIN for path in _leaves(f.name, f.type)]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for inner in kind for leaf in _leaves(f"{path}.{inner.name}", inner.type)]
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [] if pa.types.is_floating(kind) else [path]
