"""What people say against the rules: keep this clip, reject that one. `decide` obeys it and never writes it.

    put(dataset, clip_id, keep=False, author="ann", note="a watermark the rules cannot see")
    put_many(dataset, [Word(clip_id, keep=None, author="ben"), ...])  # all of them, or none
    latest(dataset)                            # clip_id -> the newest word on it

overrides/ only grows: what is said at once is a small file of its own, and taking one back is a word too, with keep
null. From time to time the files are merged, as `reelmill compact` does.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.compact import compact
from curate.errors import BadInput
from curate.one_writer import alone
from curate.table_files import write_parquet
from curate.tables import OVERRIDES, order_of

if TYPE_CHECKING:
    from curate.dataset import Dataset

LONGEST_NOTE = 2_000
LONGEST_AUTHOR = 100
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # Unicode's bidirectional controls
MOST_FILES = 16  # beyond, reading them all one by one would be felt, on an object store above all


@dataclass(frozen=True)
class Word:
    """What somebody says of a clip: `keep` it, reject it (False), or take back what was said (None)."""

    clip_id: str
    keep: bool | None
    author: str
    note: str | None = None


def put(
    dataset: Dataset, clip_id: str, *, keep: bool | None, author: str, note: str | None = None
) -> dict[str, Any]:
    """Add one word on a clip and return its row; raises BadInput as `put_many` does."""
    return put_many(dataset, [Word(clip_id, keep, author, note)])[0]


def put_many(dataset: Dataset, words: Sequence[Word]) -> list[dict[str, Any]]:
    """Add words, all in one file, and return their rows in the order given, which is their order in time too.

    Runs of white space and control characters become one space. Raises BadInput, and writes nothing, for a clip that
    clips/ lacks, an author that is empty or has over 100 characters, and a note of over 2,000.
    """
    said = [_checked(word) for word in words]
    clips = _clips(dataset, [word.clip_id for word in said])
    rows: list[dict[str, Any]] = [
        {"override_id": uuid.uuid4().hex, "keep": word.keep, "note": word.note, "author": word.author}
        | clips[word.clip_id]
        for word in said
    ]
    if not rows:
        return []
    with alone(dataset, "overrides"):  # `compact` replaces the folder
        now = _now(dataset)
        for place, row in enumerate(rows):
            row["created_at"] = now + timedelta(microseconds=place)
        table = pa.Table.from_pylist(sorted(rows, key=_order), schema=OVERRIDES)
        with dataset.atomic_writer("overrides", f"part-{rows[0]['override_id']}.parquet") as file:
            write_parquet(file, OVERRIDES, [table])
        if len(dataset.files("overrides", ".parquet")) > MOST_FILES:
            compact(dataset, "overrides")
    return [{name: row[name] for name in OVERRIDES.names} for row in rows]


def waiting(dataset: Dataset) -> list[str]:
    """Clips on which the newest word is not what decisions/ says yet: until somebody decides again."""
    said = latest(dataset)
    if not said or not dataset.has("decisions"):
        return []
    decisions = dataset.read("decisions", ["clip_id", "keep", "override"])
    spoken_of = decisions.filter(pc.is_in(decisions["clip_id"], value_set=pa.array(said, pa.string())))
    return [
        row["clip_id"] for row in spoken_of.to_pylist() if not is_followed(said[row["clip_id"]]["keep"], row)
    ]


def is_followed(keep: bool | None, decision: Mapping[str, Any]) -> bool:
    """Whether a row of decisions/ is what the newest word on its clip asks for."""
    return decision["override"] is None if keep is None else keep == decision["keep"]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in order_of(OVERRIDES))


def latest(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The newest word on each clip that anybody spoke of, those taken back (keep null) too."""
    if not dataset.has("overrides"):
        return {}
    rows = dataset.read("overrides").sort_by([("created_at", "ascending"), ("override_id", "ascending")])
    return {row["clip_id"]: row for row in rows.to_pylist()}


def _checked(word: Word) -> Word:
    author, note = _written(word.author), _written(word.note or "") or None
    if not 0 < len(author) <= LONGEST_AUTHOR:
        raise BadInput(f"an author has 1 to {LONGEST_AUTHOR} characters, not {len(author)}.")
    if note is not None and len(note) > LONGEST_NOTE:
        raise BadInput(f"a note has at most {LONGEST_NOTE:,} characters, not {len(note):,}.")
    return Word(word.clip_id, word.keep, author, note)


def _written(text: str) -> str:
    return " ".join("".join(" " if _is_control(sign) else sign for sign in text).split())


def _is_control(sign: str) -> bool:
    """What is no writing: it would move a terminal's cursor, or turn its line around (`decide --explain`)."""
    return unicodedata.category(sign) == "Cc" or unicodedata.bidirectional(sign) in _TURNS


def _clips(dataset: Dataset, clip_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Where the clips lie in their films, by clip_id."""
    clips = dataset.read("clips", ["clip_id", "source_id", "start_s", "end_s"])
    found = clips.filter(pc.is_in(clips["clip_id"], value_set=pa.array(clip_ids, pa.string()))).to_pylist()
    by_id = {row["clip_id"]: row for row in found}
    unknown = [clip_id for clip_id in clip_ids if clip_id not in by_id]
    if unknown:
        more = f" (nor {len(unknown) - 1:,} others that were named)" if len(unknown) > 1 else ""
        raise BadInput(f"there is no clip {unknown[0]!r} in {dataset.uri}{more}.")
    return by_id


def _now(dataset: Dataset) -> datetime:
    """The time, but later than every word before, though a clock may have been set back or differ from another's."""
    now = datetime.now(UTC)
    if dataset.has("overrides"):
        newest = pc.max(dataset.read("overrides", ["created_at"])["created_at"]).as_py()
        return now if newest is None else max(now, newest + timedelta(microseconds=1))
    return now
