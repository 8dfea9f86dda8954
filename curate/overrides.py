"""What people say against the rules: keep this clip, reject that one. `decide` obeys it and never writes it.

    put(dataset, clip_id, keep=False, author="ann", note="a watermark the rules cannot see")
    latest(dataset)                            # clip_id -> the newest word on it

overrides/ only grows: every word is a small file of its own, and taking one back is a word too, with keep null. From
time to time the files are merged, as `reelmill compact` does.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.compact import compact
from curate.errors import BadInput
from curate.one_writer import alone
from curate.table_files import write_parquet
from curate.tables import OVERRIDES

if TYPE_CHECKING:
    from curate.dataset import Dataset

LONGEST_NOTE = 2_000
LONGEST_AUTHOR = 100
MOST_FILES = 16  # beyond, reading them all one by one would be felt, on an object store above all


def put(
    dataset: Dataset, clip_id: str, *, keep: bool | None, author: str, note: str | None = None
) -> dict[str, Any]:
    """Add one word on a clip and return its row; `keep=None` takes back what was said.

    Runs of white space become one space. Raises BadInput for a clip that clips/ lacks, an author that is empty or has
    over 100 characters, and a note of over 2,000.
    """
    author, note = " ".join(author.split()), " ".join((note or "").split()) or None
    if not 0 < len(author) <= LONGEST_AUTHOR:
        raise BadInput(f"an author has 1 to {LONGEST_AUTHOR} characters, not {len(author)}.")
    if note is not None and len(note) > LONGEST_NOTE:
        raise BadInput(f"a note has at most {LONGEST_NOTE:,} characters, not {len(note):,}.")
    row = _clip(dataset, clip_id)
    row |= {"override_id": uuid.uuid4().hex, "keep": keep, "note": note, "author": author}
    with alone(dataset, "overrides"):  # `compact` replaces the folder
        row["created_at"] = _now(dataset)
        table = pa.Table.from_pylist([row], schema=OVERRIDES)
        with dataset.atomic_writer("overrides", f"part-{row['override_id']}.parquet") as file:
            write_parquet(file, OVERRIDES, [table])
        if len(dataset.files("overrides", ".parquet")) > MOST_FILES:
            compact(dataset, "overrides")
    return {name: row[name] for name in OVERRIDES.names}


def latest(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The newest word on each clip that anybody spoke of, those taken back (keep null) too."""
    if not dataset.has("overrides"):
        return {}
    rows = dataset.read("overrides").sort_by([("created_at", "ascending"), ("override_id", "ascending")])
    return {row["clip_id"]: row for row in rows.to_pylist()}


def _clip(dataset: Dataset, clip_id: str) -> dict[str, Any]:
    clips = dataset.read("clips", ["clip_id", "source_id", "start_s", "end_s"])
    found = clips.filter(pc.equal(clips["clip_id"], clip_id)).to_pylist()
    if not found:
        raise BadInput(f"there is no clip {clip_id!r} in {dataset.uri}.")
    return dict(found[0])


def _now(dataset: Dataset) -> datetime:
    """The time, but later than every word before, though a clock may have been set back or differ from another's."""
    now = datetime.now(UTC)
    if dataset.has("overrides"):
        newest = pc.max(dataset.read("overrides", ["created_at"])["created_at"]).as_py()
        return now if newest is None else max(now, newest + timedelta(microseconds=1))
    return now
