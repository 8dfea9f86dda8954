"""What `shard` has to do: the kept clips with their texts, the cuts and the tars still missing, the index.

Everything is a pure function of the tables and the configuration. A cut unit is named by its source, its
spans and the encoder settings; a tar by its members, their texts and their cuts. What exists under its name
is done. A tar is never overwritten: a changed one gets another name, and the old one goes when the new index
is written.
"""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.cut import CutConfig
from curate.dataset import Dataset, config_hash
from curate.errors import BadInput
from curate.shard_stages import CUTS, INDEX
from curate.shards import ShardConfig, plan_shards, to_json
from curate.tables import CAPTIONS, CLIPS, SHARDS

_FACTS = [name for name in CLIPS.names if name not in ("embedding", "score_errors", "config_hash")]


@dataclass(frozen=True)
class Kept:
    """The clips that `decide` kept.

    Attributes:
        clips: clip_id -> row of clips/ with weight, source uri and captions.
        uris: source_id -> uri.
    """

    clips: dict[str, dict]
    uris: dict[str, str]


def kept_clips(dataset: Dataset) -> Kept:
    """Read the tables. Raises BadInput when there are none, or nothing was kept."""
    decisions = dataset.read("decisions", ["clip_id", "keep", "weight"])
    weights = {row["clip_id"]: row["weight"] for row in decisions.filter(decisions["keep"]).to_pylist()}
    if not weights:
        raise BadInput(
            f"{dataset.uri} has no kept clip. See why with `reelmill report`, and loosen `reelmill decide`."
        )
    uris = {
        row["source_id"]: row["uri"]
        for row in dataset.read("sources", ["source_id", "uri", "duplicate_of"]).to_pylist()
        if row["source_id"] and row["duplicate_of"] is None
    }
    clips = {
        row["clip_id"]: row | {"weight": weights[row["clip_id"]], "captions": []}
        for row in dataset.read("clips", _FACTS).to_pylist()
        if row["clip_id"] in weights
    }
    if dataset.has("captions"):
        columns = ["caption_id", "clip_id", "kind", "text", "captioner", "model", "flags", "status"]
        assert set(columns) <= set(CAPTIONS.names)
        for row in dataset.read("captions", columns).to_pylist():
            if row["clip_id"] in clips and row["text"] and row["status"] in ("ok", "truncated"):
                clips[row["clip_id"]]["captions"].append(
                    {k: v for k, v in row.items() if k not in ("clip_id", "status")}
                )
    for clip in clips.values():
        clip["captions"].sort(key=lambda c: (c["kind"], c["caption_id"]))
    return Kept(clips, uris)


def cut_units(kept: Kept, config: CutConfig) -> list[dict]:
    """One row of CUT_INPUT per source that has kept clips."""
    spans: dict[str, list[dict]] = defaultdict(list)
    for clip in kept.clips.values():
        crop = clip["crop"] or {"x": 0, "y": 0, "w": clip["width"], "h": clip["height"]}
        spans[clip["source_id"]].append(
            {name: clip[name] for name in ("clip_id", "start_s", "end_s", "n_frames")} | crop
        )
    return [
        {
            "unit": f"{source}-{config_hash([spans[source], config.__dict__])}",
            "uri": kept.uris[source],
            "spans": spans[source],
        }
        for source in sorted(spans)
    ]


class CutStore:
    """Cut clips: those lying in `_state/cuts/`, and those inside the shards of the last complete run."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._files = set(dataset.files(CUTS))
        self._sharded: dict[str, dict] = {}
        if dataset.has("shards"):
            index = dataset.read("shards", ["clip_id", "shard", "mp4_offset", "mp4_size"]).to_pylist()
            present = {f"{name}" for name in dataset.files("shards", ".tar")}
            self._sharded = {row["clip_id"]: row for row in index if row["shard"] in present}

    def place(self, unit: str, clip_id: str) -> dict | None:
        """Where the mp4 of a clip lies: path below the dataset, first byte and end; None if nowhere."""
        name = f"{unit}/{clip_id}.mp4"
        if name in self._files:
            return {"path": f"{CUTS}/{name}", "start": None, "end": None}
        row = self._sharded.get(clip_id)
        if row is None:
            return None
        end = row["mp4_offset"] + row["mp4_size"]
        return {"path": f"shards/{row['shard']}", "start": row["mp4_offset"], "end": end}

    def facts(self, unit: dict) -> list[dict] | None:
        """What cutting a unit gave, each clip with the `place` of its mp4; None if it must be cut (again)."""
        if f"{unit['unit']}.parquet" not in self._files:
            return None
        with self.dataset.open(CUTS, f"{unit['unit']}.parquet") as file:
            rows = pq.read_table(file).to_pylist()
        for row in rows:
            if row["error"] is None:
                row["place"] = self.place(unit["unit"], row["clip_id"])
                if row["place"] is None:
                    return None
        return rows

    def forget_all_but(self, units: list[dict]) -> None:
        """Drop the facts of other runs, so that a later run cannot take its clips for these."""
        wanted = {unit["unit"] for unit in units}
        for name in {name.split("/")[0] for name in self._files}:
            if name.removesuffix(".parquet") not in wanted:
                self.dataset.remove(CUTS, name)

    def drop_clips(self) -> None:
        """The shards hold the clips now."""
        for unit in {name.split("/")[0] for name in self.dataset.files(CUTS, ".mp4")}:
            self.dataset.remove(CUTS, unit)


def pack_units(kept: Kept, cuts: list[dict], config: ShardConfig, made_by: str) -> list[dict]:
    """One row of PACK_INPUT per shard, from what cutting (with the settings hashed in `made_by`) gave."""
    good = {cut["clip_id"]: cut for cut in cuts if cut["error"] is None}
    packs = []
    for path, keys in plan_shards(list(good.values()), config).items():
        members: list[dict[str, Any]] = [
            {"clip_id": key, "json": to_json(_record(kept.clips[key], good[key])), "cut": good[key]}
            for key in keys
        ]
        content = config_hash([path, made_by, [m["json"].decode() for m in members]])
        packs.append(
            {"shard": path.replace(".tar", f"-{content[:8]}.tar"), "content": content, "members": members}
        )
    return packs


def _record(clip: dict, cut: dict) -> dict:
    """KEY.json: facts and captions of a clip, the picture's size and rate as encoded."""
    encoded = {name: cut[name] for name in ("width", "height", "fps", "n_frames", "bucket")}
    return clip | encoded


def packed(dataset: Dataset, packs: list[dict]) -> list[bool]:
    """For each shard, whether it is written already."""
    parts = set(dataset.files(INDEX))
    tars = set(dataset.files("shards", ".tar"))
    return [f"{pack['content']}.parquet" in parts and pack["shard"] in tars for pack in packs]


def write_index(dataset: Dataset, packs: list[dict], cuts: list[dict]) -> int:
    """shards/index.parquet from the parts that the packers committed, clips that failed included."""
    tables = [
        pq.read_table(io.BytesIO(dataset.read_bytes(INDEX, f"{pack['content']}.parquet"))) for pack in packs
    ]
    failed: list[dict[str, Any]] = [
        {"clip_id": cut["clip_id"], "error": cut["error"]} for cut in cuts if cut["error"] is not None
    ]
    tables.append(pa.Table.from_pylist(failed, schema=SHARDS))
    return dataset.write("shards", pa.concat_tables(tables).sort_by("clip_id"))


def drop_stale(dataset: Dataset, packs: list[dict]) -> None:
    """Remove tars and index parts that the index just written does not name."""
    tars = {pack["shard"] for pack in packs}
    parts = {f"{pack['content']}.parquet" for pack in packs}
    for name in dataset.files("shards", ".tar"):
        if name not in tars:
            dataset.remove("shards", *name.split("/"))
    for name in dataset.files(INDEX):
        if name not in parts:
            dataset.remove(INDEX, name)
