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

from curate import parts
from curate.errors import BadInput
from curate.table_files import conform as conform
from curate.table_files import write_parquet as write_parquet
from curate.table_versions import must_migrate
from curate.tables import TABLES

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
        """Sorted names (relative to `folder`, which may be nested) of the files below it.

        Files of a table that are being replaced are there or not as `curate/parts.py` says.
        """
        if folder not in parts.TABLES_OF_FILES:
            return self._listed(folder, suffix)
        while True:
            hidden = parts.hidden(self, folder)
            names = self._listed(folder, suffix)
            # A local folder that was exchanged while it was listed seems to lack files.
            is_whole = not self.is_local or self._listed(folder, suffix) == names
            if is_whole and parts.hidden(self, folder) == hidden:
                return [name for name in names if name not in hidden]

    def _listed(self, folder: str, suffix: str) -> list[str]:
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
        schema = TABLES[table]
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
        while True:
            names = self._parts(table)
            if not names:
                raise BadInput(f"{self.uri} has no {table} table. {_REMEDY.get(table, '')}".rstrip())
            try:
                return pa.concat_tables([self._read_part(name, schema) for name in names])
            except FileNotFoundError:
                if self._parts(table) == names:
                    raise
                # The files were replaced while we read: now the others are there.

    def _read_part(self, path: str, schema: pa.Schema) -> pa.Table:
        with self.fs.open(path, "rb") as file:
            found = pq.ParquetFile(file)
            whole = must_migrate(found.schema_arrow, path)  # from columns that were not asked for
            known = [name for name in schema.names if name in found.schema_arrow.names]
            return conform(found.read(columns=None if whole else known), schema)

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
        parts.recover(self, table)
        old = parts.versions(self, table) if table not in _FOLDERS else {}
        alone = not set(old) - {"part-00000.parquet"}
        if not alone:  # several files, which one cannot replace by writing another
            target = f"{parts.staging(table)}/part-00000-{uuid.uuid4().hex[:8]}.parquet"
        with self.atomic_writer(*target.split("/")) as file:
            count = write_parquet(file, self.schema_with_notes(table, notes or {}), chunks)
        if not alone:
            parts.swap(self, table, old)
        return count

    def schema_with_notes(self, table: str, notes: Mapping[str, str]) -> pa.Schema:
        """The table's schema with `notes` in its metadata, beside what the table tells of itself."""
        told = {_NOTE + key: text for key, text in notes.items()}
        return TABLES[table].with_metadata({**told, **_text(TABLES[table].metadata or {})})


_REMEDY = {
    "sources": "Run `reelmill curate --input FOLDER --dataset URI` first.",
    "clips": "Run `reelmill curate --input FOLDER --dataset URI` first.",
    "decisions": "Run `reelmill decide --dataset URI` first.",
    "overrides": "Nobody has overruled a decision yet; `reelmill serve` and `reelmill overrule` do that.",
    "captions": "Run `reelmill recaption --dataset URI` first.",
    "shards": "Run `reelmill shard --dataset URI` first.",
    "latents": "Run `reelmill encode --dataset URI` first.",
}


def _text(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in metadata.items()}
