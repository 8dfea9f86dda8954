"""A dataset is a folder of Parquet tables and tars, local or on an object store, reached through fsspec.

    dataset = Dataset("s3://bucket/films")          # or a local path
    clips = dataset.read("clips", columns=["clip_id", "motion"])
    dataset.write("decisions", table)               # one atomic replacement of decisions/*.parquet

Every file appears whole or not at all: it is written under a temporary name in `_state/tmp/` and then moved
(object stores commit a PUT atomically by themselves). Reading never sees a half-written part.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import BadInput
from curate.tables import TABLES

ROW_GROUP_ROWS = 16_000
_NOTE = "reelmill."  # before the names of notes in a file's metadata
_FOLDERS = {"shards": "shards/index.parquet"}


def config_hash(config: Any) -> str:
    """16 hex digits of the canonical JSON of a frozen dataclass (or plain values)."""
    value = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Dataset:
    """Paths, atomic writes and table access under one dataset URI."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Open `uri` (nothing is created). Raises BadInput when its scheme is unknown or has no driver."""
        try:
            self.fs, self.root = fsspec.core.url_to_fs(os.fspath(uri))
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"cannot open dataset {os.fspath(uri)!r}: {error}. Use a local path, or install the driver "
                "of its scheme (pip install 'reelmill[s3]' for s3://)."
            ) from error
        self.uri = os.fspath(uri)
        self.is_local = "file" in (
            self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        )

    def path(self, *parts: str) -> str:
        """Path of a member on the dataset's file system."""
        return "/".join([self.root.rstrip("/"), *parts])

    def exists(self, *parts: str) -> bool:
        return bool(self.fs.exists(self.path(*parts)))

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names (relative to `folder`, which may be nested) of the files below it."""
        base = self.path(folder).rstrip("/") + "/"
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(base)
        except FileNotFoundError:
            return []
        plain = [str(name).lstrip("/") for name in found]
        base = base.lstrip("/")
        return sorted(n[len(base) :] for n in plain if n.startswith(base) and n.endswith(suffix))

    def open(self, *parts: str) -> IO[bytes]:
        return self.fs.open(self.path(*parts), "rb")  # type: ignore[no-any-return]

    def read_bytes(self, *parts: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a member, or those of `[start, end)`."""
        return bytes(self.fs.cat_file(self.path(*parts), start=start, end=end))

    @contextmanager
    def atomic_writer(self, *parts: str) -> Iterator[IO[bytes]]:
        """Open a member for writing; it appears under its name only when the block ends without error."""
        final = self.path(*parts)
        if not self.is_local:
            # An object store commits on close; a block that fails must therefore never close its writer.
            file = self.fs.open(final, "wb")
            try:
                yield file
            except BaseException:
                file.discard()
                file.closed = True  # or the garbage collector would still try to flush it
                raise
            file.close()
            return
        temporary = self.path("_state", "tmp", uuid.uuid4().hex)
        self.fs.makedirs(temporary.rsplit("/", 1)[0], exist_ok=True)
        self.fs.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    def write_bytes(self, data: bytes, *parts: str) -> None:
        with self.atomic_writer(*parts) as file:
            file.write(data)

    def remove(self, *parts: str) -> None:
        path = self.path(*parts)
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)

    # Tables ---------------------------------------------------------------------------------------------

    def has(self, table: str) -> bool:
        return bool(self._parts(table))

    def _parts(self, table: str) -> list[str]:
        if table in _FOLDERS:
            return [self.path(_FOLDERS[table])] if self.exists(_FOLDERS[table]) else []
        return [self.path(table, name) for name in self.files(table, ".parquet")]

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, with today's schema. Raises BadInput when it does not exist yet."""
        parts = self._parts(table)
        if not parts:
            raise BadInput(f"{self.uri} has no {table} table. {_REMEDY.get(table, '')}".rstrip())
        schema = TABLES[table]
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
        tables = []
        for part in parts:
            with self.fs.open(part, "rb") as file:
                found = pq.ParquetFile(file)
                known = [name for name in schema.names if name in found.schema_arrow.names]
                tables.append(conform(found.read(columns=known), schema))
        return pa.concat_tables(tables)

    def notes(self, table: str) -> dict[str, str]:
        """What write() was told to keep beside the rows; empty for a table that does not exist."""
        for part in self._parts(table):
            with self.fs.open(part, "rb") as file:
                found = pq.read_schema(file).metadata or {}
            prefix = _NOTE.encode()
            return {k[len(prefix) :].decode(): v.decode() for k, v in found.items() if k.startswith(prefix)}
        return {}

    def write(
        self, table: str, rows: pa.Table | Iterable[pa.Table], notes: Mapping[str, str] | None = None
    ) -> int:
        """Replace a table by `rows` (in key order; streamed, so memory stays bounded). Returns the rows.

        `notes` go into the file's metadata, so that they and the rows are replaced as one.
        """
        chunks = [rows] if isinstance(rows, pa.Table) else rows
        target = _FOLDERS.get(table, f"{table}/part-00000.parquet")
        old = [part for part in self._parts(table) if part != self.path(target)]
        with self.atomic_writer(*target.split("/")) as file:
            told = {**(TABLES[table].metadata or {}), **{_NOTE + k: v for k, v in (notes or {}).items()}}
            count = write_parquet(file, TABLES[table].with_metadata(told), chunks)
        for part in old:
            self.fs.rm(part)
        return count


_REMEDY = {
    "sources": "Run `reelmill curate --input FOLDER --dataset URI` first.",
    "clips": "Run `reelmill curate --input FOLDER --dataset URI` first.",
    "decisions": "Run `reelmill decide --dataset URI` first.",
    "captions": "Run `reelmill recaption --dataset URI` first.",
    "shards": "Run `reelmill shard --dataset URI` first.",
    "latents": "Run `reelmill encode --dataset URI` first.",
}


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns of `schema`; columns that an older file lacks become null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


# Dictionaries pay only where values repeat; on ids, texts and hashes they cost space and time.
_PLAIN = {"clip_id", "caption_id", "uri", "text", "text_raw", "phash", "embedding.list.element", "error"}


def write_parquet(file: IO[bytes], schema: pa.Schema, chunks: Iterable[pa.Table]) -> int:
    """Write `chunks` as one Parquet file: zstd, page index, row groups of 16,000 rows. Returns the rows."""
    repeated = [field.name for field in schema if field.name not in _PLAIN and not _is_float(field.type)]
    count = 0
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=repeated, write_page_index=True
    ) as writer:
        waiting: list[pa.Table] = []
        for chunk in chunks:
            waiting.append(conform(chunk, schema))
            count += len(chunk)
            if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                whole = pa.concat_tables(waiting)
                full = len(whole) // ROW_GROUP_ROWS * ROW_GROUP_ROWS
                writer.write_table(whole.slice(0, full), row_group_size=ROW_GROUP_ROWS)
                waiting = [whole.slice(full)]
        writer.write_table(
            pa.concat_tables(waiting) if waiting else schema.empty_table(), row_group_size=ROW_GROUP_ROWS
        )
    return count


def _is_float(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or (pa.types.is_list(kind) and pa.types.is_floating(kind.value_type))
