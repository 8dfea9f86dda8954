"""What `shard` has to do: the kept clips with their texts, the cuts and the tars still missing, the index.

Everything is a pure function of the tables and the configuration. A cut is named by its clip, its span and
the encoder's settings (`cut_id`); a tar by its members, their texts and their cuts. What exists under its name
is done; a cut that failed is not, and is tried again by the next run. A tar is never overwritten: a changed
one gets another name, and the old one goes when the new index is written.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.cut import CutConfig
from curate.dataset import Dataset, config_hash
from curate.errors import BadInput
from curate.shard_stages import CUT, CUTS, INDEX
from curate.shards import ShardConfig, plan_shards, to_json
from curate.tables import CAPTIONS, CLIPS, SHARDS

_FACTS = [name for name in CLIPS.names if name not in ("embedding", "score_errors", "config_hash")]


@dataclass(frozen=True)
class Kept:
    """The clips that `decide` kept.

    Attributes:
        clips: clip_id -> row of clips/ with weight, source uri and captions.
        sources: source_id -> row of sources/ with uri and duration_s.
    """

    clips: dict[str, dict]
    sources: dict[str, dict]

    @property
    def seconds(self) -> float:
        """Length of all kept clips together."""
        return float(sum(clip["end_s"] - clip["start_s"] for clip in self.clips.values()))


def kept_clips(dataset: Dataset) -> Kept:
    """Read the tables. Raises BadInput when there are none, or nothing was kept."""
    decisions = dataset.read("decisions", ["clip_id", "keep", "weight"])
    weights = {row["clip_id"]: row["weight"] for row in decisions.filter(decisions["keep"]).to_pylist()}
    if not weights:
        raise BadInput(
            f"{dataset.uri} has no kept clip. See why with `reelmill report`, and loosen `reelmill decide`."
        )
    sources = {
        row["source_id"]: row
        for row in dataset.read("sources", ["source_id", "uri", "duration_s", "duplicate_of"]).to_pylist()
        if row["source_id"] and row["duplicate_of"] is None
    }
    clips = {
        row["clip_id"]: row | {"weight": weights[row["clip_id"]], "captions": []}
        for row in dataset.read("clips", _FACTS).to_pylist()
        if row["clip_id"] in weights
    }
    if dataset.has("captions"):
        columns = [*_CAPTION, "clip_id", "structured", "status", "chosen"]
        assert set(columns) <= set(CAPTIONS.names)
        rows = dataset.read("captions", columns).to_pylist()
        # Readers take the first of a kind. Where none could be trusted, none is there; null: nobody has chosen yet.
        for row in sorted(rows, key=lambda r: (r["kind"], not r["chosen"], r["caption_id"])):
            if row["clip_id"] in clips and row["chosen"] is not False and (caption := _caption(row)):
                clips[row["clip_id"]]["captions"].append(caption)
    return Kept(clips, sources)


_CAPTION = ["caption_id", "kind", "text", "captioner", "model", "flags"]


def _caption(row: dict) -> dict[str, Any] | None:
    """A caption as KEY.json holds it, a structured one with its fields in `structured`; null if it is not usable."""
    if row["status"] not in ("ok", "truncated"):
        return None
    caption = {name: row[name] for name in _CAPTION}
    if row["kind"] == "structured" and row["status"] == "ok" and row["structured"]:
        caption["structured"] = json.loads(row["structured"])
    return caption if caption["text"] or "structured" in caption else None


def cut_units(kept: Kept, config: CutConfig) -> list[dict]:
    """One row of CUT_INPUT per source that has kept clips, by source_id."""
    spans: dict[str, list[dict]] = defaultdict(list)
    recipe = config.recipe()
    for clip in kept.clips.values():
        crop = clip["crop"] or {"x": 0, "y": 0, "w": clip["width"], "h": clip["height"]}
        span = {name: clip[name] for name in ("clip_id", "start_s", "end_s", "n_frames")} | crop
        spans[clip["source_id"]].append(span | {"cut_id": config_hash([span, recipe])})
    return [
        {
            "unit": source,
            "uri": kept.sources[source]["uri"],
            "duration_s": kept.sources[source]["duration_s"],
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
            columns = ["shard", "mp4_offset", "mp4_size", "bucket", *CUT.names]
            present = set(dataset.files("shards", ".tar"))
            self._sharded = {
                row["cut_id"]: row
                for row in dataset.read("shards", list(dict.fromkeys(columns))).to_pylist()
                if row["cut_id"] and row["shard"] in present
            }

    def facts(self, unit: dict) -> dict[str, dict]:
        """cut_id -> what cutting gave, with the `place` of the mp4 or else its error; missing if never cut."""
        found: dict[str, dict] = {}
        if f"{unit['unit']}.parquet" in self._files:
            with self.dataset.open(CUTS, f"{unit['unit']}.parquet") as file:
                found = {row["cut_id"]: row for row in pq.read_table(file).to_pylist()}
        facts = {}
        for span in unit["spans"]:
            cut_id = span["cut_id"]
            name = f"{unit['unit']}/{cut_id}.mp4"
            cut = found.get(cut_id)
            if cut is not None and cut["error"] is None and name in self._files:
                facts[cut_id] = cut | {"place": {"path": f"{CUTS}/{name}", "start": None, "end": None}}
            elif (row := self._sharded.get(cut_id)) is not None:
                start, end = row["mp4_offset"], row["mp4_offset"] + row["mp4_size"]
                place = {"path": f"shards/{row['shard']}", "start": start, "end": end}
                facts[cut_id] = {name: row[name] for name in CUT.names} | {"place": place}
            elif cut is not None and cut["error"] is not None:
                facts[cut_id] = cut
        return facts

    def missing(self, units: list[dict]) -> list[dict]:
        """The units reduced to the spans that must be cut: for the first time, or again after a failure."""
        todo = []
        for unit in units:
            facts = self.facts(unit)
            spans = [s for s in unit["spans"] if facts.get(s["cut_id"], {"error": ""})["error"] is not None]
            if spans:
                todo.append(unit | {"spans": spans})
        return todo

    def drop(self) -> None:
        """The shards and their index hold everything now."""
        for name in {name.split("/")[0] for name in self.dataset.files(CUTS)}:
            self.dataset.remove(CUTS, name)


def pack_units(kept: Kept, cuts: list[dict], config: ShardConfig) -> list[dict]:
    """One row of PACK_INPUT per shard, from what cutting gave."""
    good = {
        cut["clip_id"]: cut | {"source_id": kept.clips[cut["clip_id"]]["source_id"]}
        for cut in cuts
        if cut["error"] is None
    }
    packs = []
    for path, keys in plan_shards(list(good.values()), config).items():
        members: list[dict[str, Any]] = [
            {"clip_id": key, "json": to_json(_record(kept.clips[key], good[key])), "cut": good[key]}
            for key in keys
        ]
        content = config_hash([path, [[m["cut"]["cut_id"], m["json"].decode()] for m in members]])
        packs.append(
            {"shard": path.replace(".tar", f"-{content[:8]}.tar"), "content": content, "members": members}
        )
    return packs


def _record(clip: dict, cut: dict) -> dict:
    """KEY.json: facts and captions of a clip, the picture's size and rate as encoded."""
    encoded = {name: cut[name] for name in ("width", "height", "fps", "n_frames", "bucket", "has_audio")}
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
        {name: cut[name] for name in ("clip_id", "cut_id", "error")}
        for cut in cuts
        if cut["error"] is not None
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
