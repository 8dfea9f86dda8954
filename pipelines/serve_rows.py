"""The clips of a dataset in memory, for pages of them: filtered, sorted and counted in milliseconds.

    rows = Rows(connect(dataset))
    found = rows.find(Wanted(state="rejected", reason="motion", sort="motion"))
    cards = rows.cards(found.rows)

A row is the number of a clip in the order of clip ids, from 0. The wide columns stay in Arrow and are taken for the
50 clips of a page; the narrow ones that filters read lie in DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import BadInput
from curate.tables import CLIPS
from pipelines.query import rows_of
from pipelines.report_data import views_of

if TYPE_CHECKING:
    import duckdb

SCORES = ("duration_s", *(field.name for field in CLIPS if pa.types.is_float32(field.type)))
STATES = ("kept", "rejected", "undecided", "overruled", "pending")
MOST_OFFSET = 1_000_000_000

_CARDS = f"""
SELECT c.clip_id, c.source_id, c."index", c.start_s, c.end_s, c.end_s - c.start_s AS duration_s, c.n_frames, c.fps,
       c.width, c.height, c.camera, {", ".join(f"c.{name}" for name in SCORES if name != "duration_s")},
       c.transition_in, c.transition_out, c.embedding_model, c.score_errors,
       s.uri, s.caption AS source_caption, s.size_bytes,
       d.keep, d.reason, d.reasons, d.duplicate_of, d.cluster, d.weight, d.override,
       h.shard, h.bucket, h.mp4_offset, h.mp4_size, h.cut_id
FROM {{clips}} c
LEFT JOIN (SELECT DISTINCT ON (source_id) * FROM {{sources}} WHERE duplicate_of IS NULL) s USING (source_id)
LEFT JOIN {{decisions}} d USING (clip_id)
LEFT JOIN (SELECT * FROM {{shards}} WHERE shard IS NOT NULL) h USING (clip_id)
ORDER BY c.clip_id
"""

# What filters and orders read; `words` holds what people say, by row.
_NARROW = f"""
CREATE TABLE shown AS
SELECT (row_number() OVER ())::INTEGER - 1 AS row, keep, lower(uri) AS uri, source_id, coalesce(camera, '') AS camera,
       override IS NOT NULL AS was_overruled,
       list_transform(coalesce(reasons, []), lambda r: split_part(r, ' ', 1)) AS reasons,
       {", ".join(f"if(isnan({name}), NULL, {name}) AS {name}" for name in SCORES)}
FROM cards
"""

# `pending`: the word of a person, or its taking back, that decisions/ does not follow yet.
_STATE = {
    "kept": "keep",
    "rejected": "NOT keep",
    "undecided": "keep IS NULL",
    "overruled": "word IS NOT NULL",
    "pending": "word IS DISTINCT FROM keep AND word IS NOT NULL OR word IS NULL AND was_overruled",
}


@dataclass(frozen=True)
class Wanted:
    """Which clips to show, and in which order; None and "" ask for nothing.

    Attributes:
        state: kept, rejected or undecided by decisions/; overruled by a person; or pending, where decisions/ does not
            follow the person yet.
        reason: name of a filter that failed.
        score: score that must lie in [least, most]; nulls do not.
        least: least value of `score`.
        most: greatest value of `score`.
        camera: camera motion.
        source: text in the uri of the source, or a source_id.
        sort: score to sort by, nulls last.
        descending: from the greatest down.
        offset: clips before the page.
        limit: clips on the page.
    """

    state: str = ""
    reason: str = ""
    score: str = ""
    least: float | None = None
    most: float | None = None
    camera: str = ""
    source: str = ""
    sort: str = ""
    descending: bool = False
    offset: int = 0
    limit: int = 50

    def __post_init__(self) -> None:
        for name, known in (("state", STATES), ("score", SCORES), ("sort", SCORES)):
            value = getattr(self, name)
            if value and value not in known:
                raise BadInput(f"{name}={value[:60]!r} is none of {', '.join(known)}.")
        if not 0 <= self.offset <= MOST_OFFSET or not 1 <= self.limit <= 200:
            raise BadInput("a page has 1 to 200 clips, and begins at 0 or later.")
        if (self.least is not None or self.most is not None) and not self.score:
            raise BadInput("bounds want the score that they are about.")


@dataclass(frozen=True)
class Found:
    """Rows of a page and how many clips there are in all; `values`: what the search gave them, by row."""

    total: int
    rows: list[int]
    values: dict[int, float]


class Rows:
    """The clips, in memory: about 1 KB each. Any thread may ask."""

    def __init__(self, tables: duckdb.DuckDBPyConnection) -> None:
        """Copy what pages need out of a connection of `pipelines.query.connect`."""
        import duckdb

        views = views_of(tables)
        names = {t: t if t in views else f"no_{t}" for t in ("clips", "sources", "decisions", "shards")}
        cards = tables.sql(_CARDS.format(**names)).to_arrow_table().combine_chunks()
        self._score_errors: pa.Array = _one(cards["score_errors"])
        self._cards: pa.Table = cards.drop_columns(["score_errors"])
        self.clip_ids: pa.Array = _one(self._cards["clip_id"])
        self._row_of = {clip_id: row for row, clip_id in enumerate(self.clip_ids.to_pylist())}
        self._narrow = duckdb.connect()
        # Several pages at once share the cores better so, and one is no slower.
        self._narrow.execute("SET threads = 1")
        self._narrow.register("cards", self._cards)
        self._narrow.execute(_NARROW)
        self._narrow.unregister("cards")
        self._narrow.execute("CREATE TABLE words (row INTEGER PRIMARY KEY, word BOOLEAN)")
        self.choices = self._choices()

    def __len__(self) -> int:
        return len(self._cards)

    def row_of(self, clip_id: str) -> int | None:
        """The row of a clip; None if there is no such clip."""
        return self._row_of.get(clip_id)

    def beginning_with(self, text: str) -> np.ndarray:
        """The rows whose clip id begins with `text`."""
        found: np.ndarray = np.flatnonzero(pc.starts_with(self.clip_ids, text).to_numpy(zero_copy_only=False))
        return found

    def cards(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """All that the tables say of some clips, but texts of captions, embeddings and hashes."""
        found: list[dict[str, Any]] = self._cards.take(pa.array(rows, pa.int32())).to_pylist()
        return found

    def score_errors(self, row: int) -> dict[str, str]:
        """Why scores of a clip are null, by score."""
        return {pair["key"]: pair["value"] for pair in self._score_errors[row].as_py() or ()}

    def say(self, words: Mapping[str, bool | None]) -> None:
        """Note what people say of clips; None where they took it back."""
        known = {row: word for clip_id, word in words.items() if (row := self.row_of(clip_id)) is not None}
        if not known:
            return
        cursor = self._narrow.cursor()
        cursor.register(
            "said",
            pa.table({"row": pa.array(known, pa.int32()), "word": pa.array(known.values(), pa.bool_())}),
        )
        cursor.execute("INSERT OR REPLACE INTO words FROM said")

    def find(self, wanted: Wanted, hits: tuple[np.ndarray, np.ndarray] | None = None) -> Found:
        """The page of clips that are wanted. The order is total, so that pages hold every clip once.

        `hits`: (rows, values) of a search; only these are found, in the order of their values from the greatest down
        unless a score sorts them.
        """
        where, values = _conditions(wanted)
        order = [f"{wanted.sort} {'DESC' if wanted.descending else 'ASC'} NULLS LAST"] if wanted.sort else []
        cursor = self._narrow.cursor()
        tables = "shown"
        if wanted.state in ("overruled", "pending"):
            tables += " LEFT JOIN words USING (row)"
        if hits is not None:
            cursor.register("hits", pa.table({"row": hits[0].astype(np.int32), "value": hits[1]}))
            tables += " JOIN hits USING (row)"
            order = order or ["value DESC"]
        clause = f"FROM {tables} WHERE {' AND '.join(where) or 'true'}"
        counted = cursor.execute(f"SELECT count(*) {clause}", values).fetchone()
        value = "value" if hits is not None else "NULL"
        page = cursor.execute(
            f"SELECT row, {value} {clause} ORDER BY {', '.join([*order, 'row'])} LIMIT ? OFFSET ?",
            [*values, wanted.limit, wanted.offset],
        ).fetchall()
        return Found(
            int(counted[0]) if counted else 0,
            [row for row, _ in page],
            {row: float(value) for row, value in page if value is not None},
        )

    def _choices(self) -> dict[str, Any]:
        """What filters can be set to: reasons and cameras with their counts, most first, and scores measured."""
        counted = ", ".join(f"count({name}) AS {name}" for name in SCORES)
        measured = rows_of(self._narrow, f"SELECT {counted} FROM shown")[0]
        return {
            "reasons": rows_of(
                self._narrow,
                "SELECT name, count(*) AS n FROM (SELECT unnest(list_distinct(reasons)) AS name FROM shown) "
                "GROUP BY name ORDER BY n DESC, name",
            ),
            "cameras": rows_of(
                self._narrow,
                "SELECT camera AS name, count(*) AS n FROM shown WHERE camera <> '' GROUP BY 1 ORDER BY n DESC, 1",
            ),
            "scores": [name for name in SCORES if measured[name]],
        }


def _conditions(wanted: Wanted) -> tuple[list[str], list[Any]]:
    """The SQL of a filter, and the values for its question marks. Names in it are ours, checked by Wanted."""
    where: list[str] = []
    values: list[Any] = []
    if wanted.state:
        where.append(f"({_STATE[wanted.state]})")
    if wanted.reason:
        where.append("list_contains(reasons, ?)")
        values.append(wanted.reason)
    if wanted.score:
        where.append(f"{wanted.score} IS NOT NULL")
    for sign, bound in ((">=", wanted.least), ("<=", wanted.most)):
        if bound is not None:
            # As the column can hold it: 0.1 stored as float32 is above the double 0.1.
            exact = bound if wanted.score == "duration_s" else float(np.float32(bound))
            where.append(f"{wanted.score} {sign} ?")
            values.append(exact)
    if wanted.camera:
        where.append("camera = ?")
        values.append(wanted.camera)
    if wanted.source:
        where.append("(contains(uri, ?) OR source_id = ?)")
        values += [wanted.source.lower(), wanted.source]
    return where, values


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks: Iterable[pa.Array] = column.chunks
    return pa.concat_arrays(list(chunks)) if column.num_chunks else pa.array([], column.type)
