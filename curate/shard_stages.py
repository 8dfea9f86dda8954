"""The two stages of `shard`: cut the kept clips of each source, then pack cut clips into tars.

Both commit in the worker. What is cut lies in `_state/cuts/` until every shard is written, so a killed job
cuts nothing twice; a shard whose members and texts have not changed is not written again.
"""

from __future__ import annotations

import os
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

from curate.cut import CutConfig, Span
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.isolate import ChildFailed, Isolated
from curate.shards import TarWriter, bucket
from curate.sources import local_copy
from curate.stage import Resources
from curate.tables import SHARDS

CUTS = "_state/cuts"
INDEX = "_state/shards"

SPAN = pa.struct(
    [("clip_id", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()), ("n_frames", pa.int32())]
    + [(side, pa.int32()) for side in "xywh"]
)
CUT_INPUT = pa.schema([("unit", pa.string()), ("uri", pa.string()), ("spans", pa.list_(SPAN))])
CUT = pa.schema(
    [SHARDS.field(name) for name in ("clip_id", "width", "height", "fps", "n_frames", "duration_s", "error")]
    + [pa.field("mp4_size", pa.int64()), pa.field("bucket", pa.string())]
)
_DONE = pa.schema([("name", pa.string()), ("clips", pa.int64()), ("failed", pa.int64())])


class CutClips:
    """One source: cut all its kept clips in one pass. Commits `_state/cuts/UNIT.parquet` when all are there."""

    output = _DONE

    def __init__(self, dataset_uri: str, config: CutConfig, deadline_s: float = 3600.0) -> None:
        self.dataset_uri = dataset_uri
        self.config = config
        self.deadline_s = deadline_s
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)
        self._child = Isolated()

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._cut(row) for row in rows]

    def _cut(self, row: dict) -> dict:
        spans = [Span(**span) for span in row["spans"]]
        with tempfile.TemporaryDirectory() as folder:
            try:
                with local_copy(row["uri"]) as path:
                    cuts = self._child.call(
                        "curate.cut:cut_clips", path, spans, folder, self.config, deadline_s=self.deadline_s
                    )
            except (BadInput, ChildFailed, OSError, RuntimeError) as error:
                cuts = [{"clip_id": span.clip_id, "error": f"{row['uri']}: {error}"} for span in spans]
            for cut in cuts:
                if cut["error"] is None:
                    cut["bucket"] = bucket(cut["width"], cut["height"], cut["duration_s"])
                    with open(os.path.join(folder, f"{cut['clip_id']}.mp4"), "rb") as file:
                        self._dataset.write_bytes(file.read(), CUTS, row["unit"], f"{cut['clip_id']}.mp4")
        with self._dataset.atomic_writer(CUTS, f"{row['unit']}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(cuts, schema=CUT), out)
        failed = sum(cut["error"] is not None for cut in cuts)
        return {"name": row["unit"], "clips": len(cuts) - failed, "failed": failed}


_PLACE = pa.struct([("path", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
_MEMBER = pa.struct(
    [
        ("clip_id", pa.string()),
        ("json", pa.binary()),
        ("cut", pa.struct([*CUT, pa.field("place", _PLACE)])),
    ]
)
PACK_INPUT = pa.schema(
    [
        ("shard", pa.string()),
        ("content", pa.string()),
        ("members", pa.list_(_MEMBER)),
    ]
)


class PackShards:
    """One shard: write its tar from cut clips and texts, and the part of the index that describes it."""

    output = _DONE

    def __init__(self, dataset_uri: str) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._pack(row) for row in rows]

    def _pack(self, row: dict) -> dict:
        index = []
        with self._dataset.atomic_writer("shards", *row["shard"].split("/")) as file:
            tar = TarWriter(file)
            for member in row["members"]:
                key = member["clip_id"]
                place = member["cut"].pop("place")
                data = self._dataset.read_bytes(place["path"], start=place["start"], end=place["end"])
                mp4 = tar.add(key, "mp4", data)
                text = tar.add(key, "json", member["json"])
                index.append(
                    member["cut"]
                    | {"shard": row["shard"]}
                    | dict(
                        zip(("mp4_offset", "mp4_size", "json_offset", "json_size"), mp4 + text, strict=True)
                    )
                )
            tar.close()
        with self._dataset.atomic_writer(INDEX, f"{row['content']}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(index, schema=SHARDS), out)
        return {"name": row["shard"], "clips": len(index), "failed": 0}
