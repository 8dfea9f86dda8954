"""What `encode` has to do: which clips in which parts, which parts and tars are still missing, the index.

Everything is a pure function of the shards' index and the configuration. A shard is encoded in parts, small
enough for any memory; a part lies in `_state/latents/VAE_ID/` until the tar of its shard is packed. Parts and
tars are named by a hash of what made them, so what exists under its name is done.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, config_hash, write_parquet
from curate.errors import BadInput
from curate.tables import LATENTS
from pipelines.encode_frames import FrameConfig, Shape, fit, timing

# Decoded pictures of a part travel from the decoder to the encoder in one row.
PART_BYTES = 48 << 20
PART_CLIPS = 64
#: Goes up when KEY.text holds something else for the same captions; 2: ends of sentences, fields.
TEXT_FORMAT = 2
#: Goes up when KEY.latent holds something else for the same pictures; 2: keyframes, suffix, size.
LATENT_FORMAT = 2


@dataclass(frozen=True)
class Unit:
    """A video shard and the latent shard that it becomes.

    Attributes:
        shard: path of the video tar, relative to shards/.
        content: hash of what makes the latents.
        parts: rows of DECODE_INPUT, in the order of the tar.
    """

    shard: str
    content: str
    parts: list[dict]

    @property
    def tar(self) -> str:
        """Name of the latent tar: bucket, number and content."""
        bucket, _, name = self.shard.removesuffix(".tar").rpartition("/")
        return "__".join([*bucket.split("/"), f"{name.split('-')[0]}-{self.content[:8]}.tar"])

    def pack_row(self) -> dict:
        return {"tar": self.tar, "content": self.content, "parts": [part["part"] for part in self.parts]}


def plan(dataset: Dataset, config: FrameConfig, about: dict[str, Any]) -> list[Unit]:
    """The shards of a dataset cut into parts. Raises BadInput when there are none, or sizes cannot be met."""
    multiple = about["spatial"] * 2
    if config.side % multiple or config.pixels < config.side**2:
        raise BadInput(
            f"frames.side {config.side} must be a multiple of {multiple} for this VAE, and frames.pixels "
            f"{config.pixels} at least its square."
        )
    if min(config.keyframes, config.suffix) < 0:
        raise BadInput("frames.keyframes and frames.suffix must not be negative; 0 leaves them out.")
    columns = ["clip_id", "shard", "mp4_offset", "mp4_size", "json_offset", "json_size"]
    rows = dataset.read("shards", [*columns, "width", "height", "fps", "n_frames"]).to_pylist()
    shards: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        if row["shard"] is not None:
            shards[row["shard"]].append(row)
    if not shards:
        raise BadInput(f"{dataset.uri} has no clip in shards/. Run `reelmill shard --dataset {dataset.uri}`.")
    units = []
    for shard in sorted(shards):
        # The name of a shard tells its contents, captions included. Names of models may change, ids not.
        made_by = [about["vae_id"], about["tile"], about["text_id"], config]
        content = config_hash([shard, *made_by, TEXT_FORMAT, LATENT_FORMAT])
        parts: list[list[dict]] = [[]]
        size = 0
        for row in sorted(shards[shard], key=lambda r: r["mp4_offset"]):
            width, height = fit(row["width"], row["height"], config)
            frames, fps = timing(row["n_frames"], row["fps"], config, about["frame_step"])
            clip_bytes = Shape(frames, height, width).size_bytes
            if parts[-1] and (len(parts[-1]) == PART_CLIPS or size + clip_bytes > PART_BYTES):
                parts.append([])
                size = 0
            size += clip_bytes
            taken = {"frames": frames, "encoded_height": height, "encoded_width": width, "encoded_fps": fps}
            parts[-1].append({name: row[name] for name in columns if name != "shard"} | taken)
        units.append(
            Unit(
                shard,
                content,
                [
                    {"part": f"{content}-{i:05d}", "shard": shard, "clips": clips}
                    for i, clips in enumerate(parts)
                ],
            )
        )
    return units


class LatentStore:
    """latents/VAE_ID/ and what leads to it."""

    def __init__(self, dataset: Dataset, about: dict[str, Any]) -> None:
        self.dataset, self.about = dataset, about
        self.folder = f"latents/{about['vae_id']}"
        self.state = state_folder(about["vae_id"])

    def check(self) -> None:
        """Raises BadInput if the folder holds latents of another VAE than its name says."""
        if self.dataset.exists(self.folder, "latents.json"):
            told = json.loads(self.dataset.read_bytes(self.folder, "latents.json")).get("vae_id")
            if told != self.about["vae_id"]:
                raise BadInput(
                    f"{self.dataset.path(self.folder)} holds latents of VAE {told}, not of "
                    f"{self.about['vae_id']}: latents of two VAEs do not mix. Rename or delete that folder."
                )

    def others(self) -> list[str]:
        """Ids of other VAEs that have latents of this dataset."""
        names = {name.split("/")[0] for name in self.dataset.files("latents", "/latents.json")}
        return sorted(names - {self.about["vae_id"]})

    def missing_tars(self, units: list[Unit]) -> list[Unit]:
        tars = set(self.dataset.files(self.folder, ".tar"))
        known = set(self.dataset.files(self.state, ".parquet"))
        return [unit for unit in units if unit.tar not in tars or f"{unit.content}.parquet" not in known]

    def missing_parts(self, units: list[Unit]) -> list[dict]:
        """Rows of DECODE_INPUT that are not encoded yet."""
        known = set(self.dataset.files(self.state, ".parquet"))
        return [part for unit in units for part in unit.parts if f"parts/{part['part']}.parquet" not in known]

    def finish(self, units: list[Unit]) -> dict[str, int]:
        """Write index.parquet and latents.json, drop what they do not name; returns counts."""
        names = [f"{unit.content}.parquet" for unit in units]
        tables = [pq.read_table(io.BytesIO(self.dataset.read_bytes(self.state, name))) for name in names]
        shards = self.dataset.read("shards", ["clip_id", "shard", "error"]).to_pylist()
        uncut = [
            {"clip_id": row["clip_id"], "error": f"not in any shard: {row['error']}"}
            for row in shards
            if row["shard"] is None
        ]
        index = pa.concat_tables([*tables, pa.Table.from_pylist(uncut, schema=LATENTS)]).sort_by("clip_id")
        with self.dataset.atomic_writer(self.folder, "index.parquet") as file:
            write_parquet(file, LATENTS, [index])
        about = json.dumps(self.about, indent=2, sort_keys=True) + "\n"
        self.dataset.write_bytes(about.encode(), self.folder, "latents.json")
        tars = {unit.tar for unit in units}
        for name in self.dataset.files(self.folder, ".tar"):
            if name not in tars:
                self.dataset.remove(self.folder, name)
        for name in self.dataset.files(self.state, ".parquet"):
            if name not in names:
                self.dataset.remove(self.state, *name.split("/"))
        failed = index["shard"].null_count
        return {
            "encoded": len(index) - failed,
            "failed": failed,
            "tars": len(tars),
            "tokens": sum(n or 0 for n in index["n_tokens"].to_pylist()),
        }


def state_folder(vae_id: str) -> str:
    return f"_state/latents/{vae_id}"


def fingerprint(name: str) -> str:
    """16 hex digits that change with the weights of a local model folder; the name itself for any other."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".model")
    ):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + file.read(4 << 20))
    return digest.hexdigest()
