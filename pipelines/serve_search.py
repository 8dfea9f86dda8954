"""Full-text search over captions, in SQLite: ranked by bm25, with the words found marked.

    captions = Captions(connect(dataset), folder)      # copies the texts and indexes them: about 15 s per million
    found = captions.search('red "small disc" roll*')
    captions.of(["3fa2…", "77c0…"])                    # the captions of some clips, for their cards

Words must all be there, "words in quotes" side by side, and wor* begins a word. Whatever a person types is made of
such words; nothing of it reaches SQLite as syntax.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.errors import BadInput
from pipelines.report_data import views_of
from pipelines.serve_sql import Busy, TooLong

if TYPE_CHECKING:
    import duckdb

MOST_RANKED = 20_000  # captions; more than these are not worth ranking, and take long
MARKS = ("\x02", "\x03")  # around the words found, in a snippet
LONGEST = 500  # characters of a search
MOST_TERMS = 16  # of a search
SHORTEST_PREFIX = 2  # letters before a *: fewer begin too many words
DEADLINE_S = 5.0
AT_ONCE = 2  # searches; others wait so long:
WAIT_S = 2.0
BATCH = 20_000
_CACHED = 32
WITH_FILE = "with the file"  # the kind of a caption that came with its source, and is in no row of captions/
_WORD = re.compile(r'"([^"]*)"?|(\S+)')
_LETTERS = re.compile(r"[^\W_]+")
_CARD = ("clip_id", "kind", "text", "text_raw", "captioner", "status", "error", "chosen")

# Raw text is shown where there is no clean one. The caption that came with a file counts as one of its clips' too,
# where recaptioning has not copied it already.
_CAPTIONS = """
SELECT clip_id, kind, text, if(text IS NULL, text_raw, NULL) AS text_raw, captioner, status, error, chosen
FROM captions
"""
_WITH_FILE = f"""
SELECT clip_id, '{WITH_FILE}' AS kind, s.caption AS text, NULL AS text_raw, 'sidecar' AS captioner, 'ok' AS status,
       NULL AS error, NULL AS chosen
FROM clips JOIN (FROM sources WHERE duplicate_of IS NULL AND caption IS NOT NULL) s USING (source_id)
"""


@dataclass(frozen=True)
class Matches:
    """What a search found.

    Attributes:
        captions: numbers of the captions found, best first.
        total: how many there are; more than `captions` where they were not ranked.
        query: how SQLite was asked, for snippets.
    """

    captions: np.ndarray
    total: int
    query: str
    is_ranked: bool


class Captions:
    """The texts of the captions in a SQLite file, with a full-text index. Any thread may ask."""

    def __init__(
        self,
        tables: duckdb.DuckDBPyConnection,
        folder: Path,
        tell: Callable[[int], None] = lambda done: None,
        fts5: bool = True,
    ) -> None:
        """Index what a connection of `pipelines.query.connect` holds, in a file in `folder`.

        `tell` hears the captions done. Without `fts5`, or where SQLite lacks it, texts are searched one by one.
        """
        self._file = folder / "captions.sqlite"
        self._cache: OrderedDict[str, Matches] = OrderedDict()
        self._lock = Lock()
        self._turns = BoundedSemaphore(AT_ONCE)
        with closing(sqlite3.connect(self._file)) as file:
            self.has_index = fts5 and has_fts5(file)
            file.execute("PRAGMA journal_mode = OFF")
            file.execute("PRAGMA synchronous = OFF")
            file.execute(f"CREATE TABLE captions (id INTEGER PRIMARY KEY, {', '.join(_CARD)})")
            clip_ids: list[pa.Array] = []
            done = 0
            for batch in _batches(tables):
                clip_ids.append(batch["clip_id"].combine_chunks())
                columns = [batch[name].to_pylist() for name in _CARD]
                rows = zip(range(done, done + len(batch)), *columns, strict=True)
                marks = ", ".join("?" for _ in range(len(_CARD) + 1))
                file.executemany(f"INSERT INTO captions VALUES ({marks})", rows)
                done += len(batch)
                tell(done)
            file.execute("CREATE INDEX of_clip ON captions (clip_id)")
            if self.has_index:
                file.execute(
                    "CREATE VIRTUAL TABLE texts USING fts5 "
                    "(text, content='captions', content_rowid='id', tokenize='unicode61 remove_diacritics 2', "
                    "prefix='2 3')"
                )
                file.execute("INSERT INTO texts (texts) VALUES ('rebuild')")
            file.commit()
        self.clip_ids: pa.ChunkedArray = pa.chunked_array(clip_ids, pa.string())

    def search(self, words: str) -> Matches:
        """The captions that hold `words`.

        Raises BadInput where there is no word in them or too many, TooLong after DEADLINE_S, and Busy where AT_ONCE
        others are being searched for.
        """
        with self._lock:
            if words in self._cache:
                self._cache.move_to_end(words)
                return self._cache[words]
        terms = terms_of(words)
        if not self._turns.acquire(timeout=WAIT_S):
            raise Busy(f"{AT_ONCE} searches are being answered already; ask again when one is done.")
        try:
            found = self._search(terms)
        finally:
            self._turns.release()
        with self._lock:
            self._cache[words] = found
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found

    def of(self, clip_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The captions of clips as their cards show them, chosen ones first within a kind."""
        marks = ", ".join("?" for _ in clip_ids)
        sql = (
            f"SELECT {', '.join(_CARD)} FROM captions WHERE clip_id IN ({marks}) AND kind <> '{WITH_FILE}' "
            "ORDER BY kind, coalesce(chosen, 0) DESC, id"
        )
        found: dict[str, list[dict[str, Any]]] = {}
        with self._open() as file:
            for row in file.execute(sql, list(clip_ids)):
                caption = dict(zip(_CARD, row, strict=True))
                caption["chosen"] = None if caption["chosen"] is None else bool(caption["chosen"])
                found.setdefault(str(caption.pop("clip_id")), []).append(caption)
        return found

    def snippets(self, matches: Matches, captions: Sequence[int]) -> dict[int, str]:
        """Some words around what was found in some captions, found ones between MARKS; none without an index."""
        if not self.has_index:
            return {}
        sql = "SELECT snippet(texts, 0, ?, ?, '…', 24) FROM texts WHERE texts MATCH ? AND rowid = ?"
        with self._open() as file:
            rows = {
                number: file.execute(sql, [*MARKS, matches.query, number]).fetchone() for number in captions
            }
        return {number: row[0] for number, row in rows.items() if row}

    def _search(self, terms: list[tuple[str, bool]]) -> Matches:
        with self._open() as file:
            if not self.has_index:
                where, values = _likes(terms)
                rows = file.execute(f"SELECT id FROM captions WHERE {where} ORDER BY id", values).fetchall()
                return Matches(np.array([row[0] for row in rows], np.int64), len(rows), "", False)
            query = " AND ".join(_quoted(term) for term in terms)
            some = f"SELECT 1 FROM texts WHERE texts MATCH ? LIMIT {MOST_RANKED + 1}"
            (counted,) = file.execute(f"SELECT count(*) FROM ({some})", [query]).fetchone()
            is_ranked = counted <= MOST_RANKED
            order = "ORDER BY rank, rowid" if is_ranked else ""
            rows = file.execute(f"SELECT rowid FROM texts WHERE texts MATCH ? {order}", [query]).fetchall()
        return Matches(np.array([row[0] for row in rows], np.int64), len(rows), query, is_ranked)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        until = time.monotonic() + DEADLINE_S
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as file:
            file.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            try:
                yield file
            except sqlite3.OperationalError as error:
                if time.monotonic() <= until:
                    raise
                raise TooLong(
                    f"stopped after {DEADLINE_S:g} seconds; search for fewer or longer words."
                ) from error


def has_fts5(file: sqlite3.Connection) -> bool:
    """True if this Python's SQLite was built with full-text search."""
    return any(row[0] == "ENABLE_FTS5" for row in file.execute("PRAGMA compile_options"))


def terms_of(words: str) -> list[tuple[str, bool]]:
    """What a person typed, as [(word or phrase, whether it only begins a word)], each once.

    Raises BadInput if it holds none, more than MOST_TERMS, or a beginning shorter than SHORTEST_PREFIX.
    """
    if len(words) > LONGEST:
        raise BadInput(f"a search has at most {LONGEST} characters.")
    plain = "".join(sign if sign.isprintable() else " " for sign in words)
    terms = []
    for phrase, word in _WORD.findall(plain):
        term = phrase or word
        begins = not phrase and term.endswith("*")
        term = term.rstrip("*").replace('"', " ") if begins else term.replace('"', " ")
        if any(sign.isalnum() for sign in term):
            terms.append((" ".join(term.split()), begins))
    terms = list(dict.fromkeys(terms))
    if not terms:
        raise BadInput("there is no word in the search.")
    if len(terms) > MOST_TERMS:
        raise BadInput(f"a search has at most {MOST_TERMS} words; this has {len(terms)}.")
    for term, begins in terms:
        if begins and len(_LETTERS.findall(term)[-1]) < SHORTEST_PREFIX:
            raise BadInput(
                f"{term}* begins too many words; give {SHORTEST_PREFIX} letters or more before the *."
            )
    return terms


def _quoted(term: tuple[str, bool]) -> str:
    word, begins = term
    return f'"{word}"' + (" *" if begins else "")


def _likes(terms: list[tuple[str, bool]]) -> tuple[str, list[str]]:
    """The same without an index: the terms as parts of the text, in either case."""
    escaped = [re.sub(r"([\\%_])", r"\\\1", word) for word, _ in terms]
    where = " AND ".join(r"text LIKE ? ESCAPE '\'" for _ in terms)
    return where, [f"%{word}%" for word in escaped]


def _batches(tables: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    views = views_of(tables)
    has_captions, has_clips = "captions" in views, {"clips", "sources"} <= views
    with_file = _WITH_FILE
    if has_captions:
        with_file += " WHERE clip_id NOT IN (SELECT clip_id FROM captions WHERE kind = 'original')"
    parts = [sql for sql, is_there in ((_CAPTIONS, has_captions), (with_file, has_clips)) if is_there]
    for sql in parts:
        for batch in tables.sql(sql).fetch_arrow_reader(BATCH):
            if len(batch):
                yield pa.Table.from_batches([batch])
