"""What the live view shows of a dataset at a time: tables, clips, what people said, and the searches."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.table_files import stored
from curate.tables import TABLES
from pipelines.query import rows_of
from pipelines.report_data import views_of
from pipelines.serve_rows import Rows

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset

AT_ONCE = 2  # questions to the tables about one clip; others wait
#: Table -> its files, each with what changes when it is replaced.
Versions = dict[str, tuple[tuple[str, str], ...]]


@dataclass
class Prepared:
    """Something that takes a while to make from some tables.

    Attributes:
        made_from: the tables' files.
        value: what was made; while that is being done for new files, what was made of those before.
        is_old: `value` is of the files before.
        told: how far it is.
        folder: where its files lie; they go with it.
    """

    made_from: Versions
    value: Any = None
    is_old: bool = False
    told: str = "waiting"
    folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def after(cls, old: Prepared | None, versions: Versions, *tables: str) -> Prepared:
        """The old one where its tables are the same; else one to be made, with the old value until then."""
        if old is None:
            return cls(versions)
        if is_same(old.made_from, versions, *tables):
            return old
        return cls(versions, old.value, old.value is not None, old.told, old.folder)


@dataclass
class View:
    """What is shown at a time. `captions` and `vectors` come later than the rest.

    `number` is another for other tables; people's words alone leave it as it is.
    """

    number: int
    versions: Versions
    tables: duckdb.DuckDBPyConnection
    rows: Rows
    words: dict[str, list[dict[str, Any]]]
    captions: Prepared
    vectors: Prepared
    answers: dict[str, Any] = field(default_factory=dict)
    # Held while the overview is made, which takes seconds: nobody waits for it but who asks for the same.
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))
    known_rows: dict[int, tuple[np.ndarray, Any]] = field(default_factory=dict)
    lock_of_rows: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(connection, *args)` on a connection of its own, for AT_ONCE at a time."""
        with self.turns, beside(self.tables) as connection:
            return function(connection, *args)

    def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """The same without such a limit, remembered as long as this view stands, and made once."""
        with self.lock:
            if name not in self.answers:
                with beside(self.tables) as connection:
                    self.answers[name] = function(connection, *args)
            return self.answers[name]

    def rows_of(self, clip_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row of each clip, -1 where there is no such clip; remembered as long as this view stands."""
        with self.lock_of_rows:
            key = id(clip_ids)
            if key not in self.known_rows:
                found = pc.fill_null(pc.index_in(clip_ids, value_set=self.rows.clip_ids), -1)
                self.known_rows[key] = found.to_numpy(), clip_ids  # which keeps its id its own
            return self.known_rows[key][0]


@contextmanager
def beside(tables: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Another connection to the views of `tables`, one of `pipelines.query.connect`, to be asked at the same time.

    It gets the stand-ins for what the dataset lacks, which belong to one connection.
    """
    with tables.cursor() as connection:
        views = views_of(connection)
        for table, schema in TABLES.items():
            connection.register(f"empty_{table}", stored(schema).empty_table())
            if table not in views:
                connection.execute(f"CREATE TEMP VIEW no_{table} AS FROM empty_{table}")
        yield connection


def versions_of(dataset: Dataset) -> Versions:
    """Table -> its files, each with what changes when it is replaced (inode, size and time, or ETag)."""
    found = {}
    for table in TABLES:
        suffix = "index.parquet" if table in ("shards", "latents") else ".parquet"
        names = dataset.files(table, suffix)
        keys = []
        for name in names:
            try:
                keys.append((name, str(dataset.fs.ukey(dataset.path(table, name)))))
            except FileNotFoundError:  # replaced meanwhile; the next look sees what came
                keys.append((name, "gone"))
        found[table] = tuple(keys)
    return found


def captions_in_tables(
    tables: duckdb.DuckDBPyConnection, clip_ids: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The captions of some clips as `Captions.of` gives them, while that is being prepared."""
    if "captions" not in views_of(tables):
        return {}
    marks = ", ".join("?" for _ in clip_ids)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(
        tables,
        "SELECT clip_id, kind, text, text_raw, captioner, status, error, chosen FROM captions "
        f"WHERE clip_id IN ({marks}) ORDER BY kind, coalesce(chosen, false) DESC, caption_id",
        *clip_ids,
    ):
        found.setdefault(str(row.pop("clip_id")), []).append(row)
    return found


def is_same(one: Versions, other: Versions, *tables: str) -> bool:
    return all(one[table] == other[table] for table in tables)
