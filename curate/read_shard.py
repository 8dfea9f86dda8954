"""One clip out of the shards, by its bytes: its mp4 and its record, in one range request.

mp4, record = read_clip(Dataset("s3://bucket/films"), clip_id)

shards = ShardReader(dataset)                  # for many clips: reads the index once
for clip_id in wanted: mp4, record = shards.read(clip_id)
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.errors import BadInput

_COLUMNS = ["clip_id", "shard", "mp4_offset", "mp4_size", "json_offset", "json_size", "error"]


def read_clip(dataset: Dataset, clip_id: str) -> tuple[bytes, dict[str, Any]]:
    """(mp4 bytes, KEY.json as a dict) of one clip. Of the index, only the row group that holds it is read.

    Raises BadInput when the dataset has no shards, or they do not hold the clip.
    """
    if not dataset.exists("shards", "index.parquet"):
        raise BadInput(f"{dataset.uri} has no shards. Run `reelmill shard --dataset URI` first.")
    with dataset.open("shards", "index.parquet") as file:
        rows = pq.read_table(file, columns=_COLUMNS, filters=[("clip_id", "=", clip_id)]).to_pylist()
    return _read(dataset, clip_id, rows[0] if rows else None)


class ShardReader:
    """Random access to the clips of a dataset's shards; the index stays in memory (about 200 bytes a clip)."""

    def __init__(self, dataset: Dataset) -> None:
        """Raises BadInput when the dataset has no shards."""
        self._dataset = dataset
        self._index = dataset.read("shards", _COLUMNS)
        self._rows = {clip_id: row for row, clip_id in enumerate(self._index["clip_id"].to_pylist())}

    def read(self, clip_id: str) -> tuple[bytes, dict[str, Any]]:
        """(mp4 bytes, KEY.json as a dict). Raises BadInput when the shards do not hold the clip."""
        row = self._rows.get(clip_id)
        found = None if row is None else self._index.slice(row, 1).to_pylist()[0]
        return _read(self._dataset, clip_id, found)


def _read(dataset: Dataset, clip_id: str, row: dict[str, Any] | None) -> tuple[bytes, dict[str, Any]]:
    if row is None or row["shard"] is None:
        why = f"it could not be cut: {row['error']}" if row else "it is not in shards/index.parquet"
        raise BadInput(f"{dataset.uri} holds no clip {clip_id!r} in its shards: {why}.")
    # Its two members lie side by side, with a tar header between them.
    start = min(row["mp4_offset"], row["json_offset"])
    end = max(row["mp4_offset"] + row["mp4_size"], row["json_offset"] + row["json_size"])
    data = dataset.read_bytes("shards", *row["shard"].split("/"), start=start, end=end)
    mp4 = data[row["mp4_offset"] - start :][: row["mp4_size"]]
    return mp4, json.loads(data[row["json_offset"] - start :][: row["json_size"]])
