"""The two stages of `shard`: cut the kept clips of each source, then pack cut clips into tars.

Both commit in the worker. What is cut lies in `_state/cuts/` until every shard is written, so a killed job
cuts nothing twice; a shard whose members and texts have not changed is not written again.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

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
    [
        ("cut_id", pa.string()),
        ("clip_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("n_frames", pa.int32()),
        *[(side, pa.int32()) for side in "xywh"],
    ]
)
CUT_INPUT = pa.schema(
    [
        ("unit", pa.string()),
        ("uri", pa.string()),
        ("duration_s", pa.float64()),
        ("spans", pa.list_(SPAN)),
    ]
)
_ENCODED = (
    "clip_id",
    "cut_id",
    "width",
    "height",
    "fps",
    "n_frames",
    "duration_s",
    "copied",
    "has_audio",
    "audio_error",
    "error",
)
CUT = pa.schema(
    [SHARDS.field(name) for name in _ENCODED]
    + [pa.field("mp4_size", pa.int64()), pa.field("bucket", pa.string())]
)
# How much a call read and wrote is told of while the job runs (pipelines.metrics_stages), never stored.
_DONE = pa.schema(
    [("name", pa.string())]
    + [(name, pa.int64()) for name in ("clips", "failed", "read_bytes", "written_bytes")]
)
_CUT_DONE = _DONE.append(pa.field("encoded_s", pa.float64())).append(pa.field("n_decoded", pa.int64()))


class CutClips:
    """One source: cut its kept clips in one pass. Commits `_state/cuts/UNIT.parquet` when all are there."""

    output = _CUT_DONE

    def __init__(self, dataset_uri: str, config: CutConfig) -> None:
        self.dataset_uri = dataset_uri
        self.config = config
        # More would leave a machine with fewer cores waiting for ever; the threads share what there is.
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)
        self._child = Isolated()
        self._child.tell("curate.cut:CutConfig")  # imports it
        pa.array([None])  # pyarrow's first conversion imports pandas; better now than when all is cut

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._cut(row) for row in rows]

    def _cut(self, row: dict) -> dict:
        ids = {span["clip_id"]: span["cut_id"] for span in row["spans"]}
        spans = [
            Span(**{name: value for name, value in span.items() if name != "cut_id"}) for span in row["spans"]
        ]
        deadline_s = self.config.deadline_base_s + self.config.deadline_factor * (row["duration_s"] or 0.0)
        read_bytes = written_bytes = 0
        with tempfile.TemporaryDirectory() as folder:
            try:
                with local_copy(row["uri"]) as path:
                    read_bytes = os.path.getsize(path)
                    cuts = self._in_child(path, spans, folder, deadline_s)
            except (BadInput, OSError, RuntimeError) as error:
                cuts = [{"clip_id": span.clip_id, "error": str(error)} for span in spans]
            # What it cost depends on what else was cut in this run: told, never stored.
            encoded_s = sum(cut.pop("encoded_s", 0.0) for cut in cuts)
            n_decoded = sum(cut.pop("n_decoded", 0) for cut in cuts)
            for cut in cuts:
                cut["cut_id"] = ids[cut["clip_id"]]
                if cut["error"] is None:
                    cut["bucket"] = bucket(cut["width"], cut["height"], cut["duration_s"])
                    data = Path(folder, f"{cut['clip_id']}.mp4").read_bytes()
                    self._dataset.write_bytes(data, CUTS, row["unit"], f"{cut['cut_id']}.mp4")
                    written_bytes += len(data)
                else:
                    cut["error"] = f"{row['uri']}: {cut['error']}"
        table = pa.Table.from_pylist([*self._cut_before(row["unit"], ids), *cuts], schema=CUT)
        with self._dataset.atomic_writer(CUTS, f"{row['unit']}.parquet") as out:
            pq.write_table(table, out)
        failed = sum(cut["error"] is not None for cut in cuts)
        return {
            "name": row["unit"],
            "clips": len(cuts) - failed,
            "failed": failed,
            "read_bytes": read_bytes,
            "written_bytes": written_bytes,
            "encoded_s": encoded_s,
            "n_decoded": n_decoded,
        }

    def _cut_before(self, unit: str, again: dict[str, str]) -> list[dict]:
        """Facts of clips of this source that an interrupted run cut and that are not cut again now."""
        if not self._dataset.exists(CUTS, f"{unit}.parquet"):
            return []
        table = pq.read_table(io.BytesIO(self._dataset.read_bytes(CUTS, f"{unit}.parquet")))
        return [row for row in table.to_pylist() if row["clip_id"] not in again]

    def _in_child(self, path: str, spans: list[Span], folder: str, deadline_s: float) -> list[dict]:
        """Cut all spans in one call; should the child die or hang, what it left unfinished one by one."""
        try:
            return self._call(path, spans, folder, self.config, deadline_s)
        except ChildFailed:
            cuts = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]
        finished = {cut["clip_id"] for cut in cuts}
        until = time.monotonic() + deadline_s
        left = [span for span in spans if span.clip_id not in finished]
        return cuts + [self._alone(path, span, folder, until) for span in left]

    def _alone(self, path: str, span: Span, folder: str, until: float) -> dict:
        """One clip by itself; without its sound, if that is what kills the child."""
        tries = [self.config]
        if self.config.audio == "keep":
            tries.append(replace(self.config, audio="drop"))
        reason = ""
        for config in tries:
            left_s = until - time.monotonic()
            if left_s <= 0:
                reason = reason or "no time was left within the source's deadline"
                break
            try:
                (cut,) = self._call(path, [span], folder, config, left_s)
            except ChildFailed as error:
                reason = str(error)
                continue
            return cut | ({"audio_error": f"with audio: {reason}"} if reason else {})
        return {"clip_id": span.clip_id, "error": reason}

    def _call(
        self, path: str, spans: list[Span], folder: str, config: CutConfig, deadline_s: float
    ) -> list[dict]:
        cuts: list[dict] = self._child.call(
            "curate.cut:cut_clips", path, spans, folder, config, deadline_s=deadline_s
        )
        return cuts


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
        read_bytes = 0
        with self._dataset.atomic_writer("shards", *row["shard"].split("/")) as file:
            tar = TarWriter(file)
            for member in row["members"]:
                key = member["clip_id"]
                place = member["cut"].pop("place")
                data = self._dataset.read_bytes(place["path"], start=place["start"], end=place["end"])
                read_bytes += len(data)
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
            written_bytes = file.tell()
        with self._dataset.atomic_writer(INDEX, f"{row['content']}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(index, schema=SHARDS), out)
        return {
            "name": row["shard"],
            "clips": len(index),
            "failed": 0,
            "read_bytes": read_bytes,
            "written_bytes": written_bytes,
        }
