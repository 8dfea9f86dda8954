"""What people say against the rules: keep this clip, reject that one. `decide` obeys it and never writes it.

    put(dataset, clip_id, keep=False, author="ann", note="a watermark the rules cannot see")
    latest(dataset)                            # clip_id -> the newest word on it

overrides/ only grows: every word is a small file of its own, and taking one back is a word too, with keep null.
`reelmill compact` merges the files.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curate.errors import BadInput
from curate.one_writer import alone
from curate.table_files import write_parquet
from curate.tables import OVERRIDES

if TYPE_CHECKING:
    from curate.dataset import Dataset

LONGEST_NOTE = 2_000
LONGEST_AUTHOR = 100


def put(
    dataset: Dataset, clip_id: str, *, keep: bool | None, author: str, note: str | None = None
) -> dict[str, Any]:
    """Add one word on a clip and return its row; `keep=None` takes back what was said.

    Runs of white space become one space. Raises BadInput for an author that is empty or has over 100 characters, and
    for a note of over 2,000.
    """
    author, note = " ".join(author.split()), " ".join((note or "").split()) or None
    if not 0 < len(author) <= LONGEST_AUTHOR:
        raise BadInput(f"an author has 1 to {LONGEST_AUTHOR} characters, not {len(author)}.")
    if note is not None and len(note) > LONGEST_NOTE:
        raise BadInput(f"a note has at most {LONGEST_NOTE:,} characters, not {len(note):,}.")
    row: dict[str, Any] = {
        "override_id": uuid.uuid4().hex,
        "clip_id": clip_id,
        "keep": keep,
        "note": note,
        "author": author,
    }
    with alone(dataset, "overrides"):  # `compact` replaces the folder; and the clock is read in order
        row["created_at"] = datetime.now(UTC)
        table = pa.Table.from_pylist([row], schema=OVERRIDES)
        with dataset.atomic_writer("overrides", f"part-{row['override_id']}.parquet") as file:
            write_parquet(file, OVERRIDES, [table])
    return row


def latest(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The newest word on each clip that anybody spoke of, those taken back (keep null) too."""
    if not dataset.has("overrides"):
        return {}
    rows = dataset.read("overrides").sort_by([("created_at", "ascending"), ("override_id", "ascending")])
    return {row["clip_id"]: row for row in rows.to_pylist()}
