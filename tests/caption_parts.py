"""The captions of a dataset in several small files, for the tests of `compact`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from curate.dataset import Dataset, write_parquet
from curate.tables import CAPTIONS

N_PARTS, PART_ROWS = 3, 40


def caption(i: int) -> dict[str, Any]:
    """Row i; its clip sorts apart from where it stands in the files."""
    return {
        "caption_id": f"{i:032x}", "clip_id": f"{i * 7919 % 1000:024x}", "kind": ("short", "dense")[i % 2],
        "text": f"caption {i}", "flags": ["a", None] if i % 3 else None, "frame_times_s": [i / 10, 0.1],
        "created_at": datetime(2026, 11, 22, tzinfo=UTC),
    }  # fmt: skip


ROWS = sorted(
    (caption(i) for i in range(N_PARTS * PART_ROWS)), key=lambda r: (r["clip_id"], r["kind"], r["caption_id"])
)
IDS = [row["caption_id"] for row in ROWS]


def small_parts(dataset: Dataset, table: str = "captions") -> Dataset:
    """The captions in N_PARTS files, each sorted."""
    for part in range(N_PARTS):
        mine = {f"{i:032x}" for i in range(part * PART_ROWS, (part + 1) * PART_ROWS)}
        rows = pa.Table.from_pylist([row for row in ROWS if row["caption_id"] in mine], schema=CAPTIONS)
        with dataset.atomic_writer(table, f"part-{part:05}.parquet") as file:
            write_parquet(file, dataset.schema_with_notes(table, {"made": "in parts"}), [rows])
    return dataset


def ids(dataset: Dataset) -> list[str]:
    return sorted(dataset.read("captions", ["caption_id"])["caption_id"].to_pylist())


def listed(dataset: Dataset) -> list[str]:
    """What a reader finds that knows nothing of us and lists the folder."""
    found: list[str] = (
        ds.dataset(dataset.path("captions")).to_table(columns=["caption_id"])["caption_id"].to_pylist()
    )
    return sorted(found)
