"""What `encode` has to do: which clips, of which size, in which parts.

Everything is a pure function of the shards' index and the configuration. A shard is encoded in parts, small
enough for any memory; a part lies in `_state/latents/VAE_ID/` until the tar of its shard is packed. Parts and
tars are named by a hash of what made them, so what exists under its name is done.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate.dataset import Dataset, config_hash
from curate.errors import BadInput
from pipelines.encode_frames import FrameConfig, Shape, fit, timing

#: Decoded pictures of a part, which travel from the decoder to the encoder in one row; more if a batch is larger.
PART_BYTES = 48 << 20
#: The longest clip, decoded. Rows of more than 2 GiB cannot be sent, and each core holds one.
CLIP_BYTES = 1 << 30
PART_CLIPS = 64
#: Goes up when KEY.text holds something else for the same captions; 2: ends of sentences, fields.
TEXT_FORMAT = 2
#: Goes up when KEY.latent holds something else for the same pictures; 2: keyframes, suffix, size; 3: first picture.
LATENT_FORMAT = 3


@dataclass(frozen=True)
class Unit:
    """A video shard and the latent shard that it becomes.

    Attributes:
        shard: path of the video tar, relative to shards/.
        content: hash of what makes the latents.
        parts: rows of DECODE_INPUT, in the order of the tar.
        stills: clips of several pictures too few for one step of the VAE: only their first picture is encoded.
        is_again: the parts are of clips that failed before, to be put among those that are packed.
    """

    shard: str
    content: str
    parts: list[dict]
    stills: int = 0
    is_again: bool = False

    @property
    def tar(self) -> str:
        """Name of the latent tar if no clip of it fails: bucket, number and content."""
        bucket, _, name = self.shard.removesuffix(".tar").rpartition("/")
        return "__".join([*bucket.split("/"), f"{name.split('-')[0]}-{self.content[:8]}.tar"])

    def pack_row(self) -> dict:
        """Of PACK_INPUT."""
        parts = [part["part"] for part in self.parts]
        return {"tar": self.tar, "content": self.content, "parts": parts, "is_again": self.is_again}

    def again(self, failed: set[str]) -> Unit:
        """The clips with these ids alone, to be tried once more and put among the others."""
        clips = [clip for part in self.parts for clip in part["clips"] if clip["clip_id"] in failed]
        parts = _parts(f"{self.content}-again", self.shard, clips, PART_BYTES)
        return replace(self, parts=parts, is_again=True)


def plan(dataset: Dataset, config: FrameConfig, about: dict[str, Any]) -> list[Unit]:
    """The shards of a dataset cut into parts. Raises BadInput when there are none, or sizes cannot be met."""
    config.check()
    if config.side % (multiple := about["spatial"] * 2):
        raise BadInput(f"frames.side {config.side} must be a multiple of {multiple} for this VAE.")
    columns = ["clip_id", "shard", "mp4_offset", "mp4_size", "json_offset", "json_size"]
    rows = dataset.read("shards", [*columns, "width", "height", "fps", "n_frames"]).to_pylist()
    shards: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        if row["shard"] is not None:
            shards[row["shard"]].append(row)
    if not shards:
        raise BadInput(f"{dataset.uri} has no clip in shards/. Run `reelmill shard --dataset {dataset.uri}`.")
    return [_unit(shard, shards[shard], config, about) for shard in sorted(shards)]


def _unit(shard: str, rows: list[dict], config: FrameConfig, about: dict[str, Any]) -> Unit:
    clips, shapes, stills = [], [], 0
    for row in sorted(rows, key=lambda r: r["mp4_offset"]):
        width, height = fit(row["width"], row["height"], config)
        frames, fps = timing(row["n_frames"], row["fps"], config, about["frame_step"])
        if (size := Shape(frames, height, width).size_bytes) > CLIP_BYTES:
            raise BadInput(
                f"clip {row['clip_id']} has {size / 2**30:.2f} GiB of decoded pictures ({frames} of {width} x "
                f"{height}); a clip may have {CLIP_BYTES >> 30} GiB. Lower --frames.max_frames or --frames.pixels."
            )
        stills += frames == 1 < row["n_frames"]
        taken = {"frames": frames, "encoded_height": height, "encoded_width": width, "encoded_fps": fps}
        places = {name: row[name] for name in ("mp4_offset", "mp4_size", "json_offset", "json_size")}
        clips.append({"clip_id": row["clip_id"], **places, **taken})
        shapes.append([row["clip_id"], *taken.values()])
    # The name of a shard tells its contents, captions included. Names of models may change, ids not; of the settings
    # counts what they come to.
    made_by = [about[name] for name in ("vae_id", "text_id", "tile", "batch_mb")]
    made_by += [config.keyframes, config.suffix, TEXT_FORMAT, LATENT_FORMAT]
    content = config_hash([shard, *made_by, shapes])
    parts = _parts(content, shard, clips, max(PART_BYTES, about["batch_mb"] << 20))
    return Unit(shard, content, parts, stills)


def _parts(name: str, shard: str, clips: list[dict], most_bytes: int) -> list[dict]:
    """Clips in rows of DECODE_INPUT, each of so many bytes of pictures or of one clip."""
    parts: list[list[dict]] = [[]]
    size = 0
    for clip in clips:
        added = Shape(clip["frames"], clip["encoded_height"], clip["encoded_width"]).size_bytes
        if parts[-1] and (len(parts[-1]) == PART_CLIPS or size + added > most_bytes):
            parts.append([])
            size = 0
        size += added
        parts[-1].append(clip)
    return [{"part": f"{name}-{i:05d}", "shard": shard, "clips": found} for i, found in enumerate(parts)]


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
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while block := file.read(4 << 20):
                digest.update(block)
    return digest.hexdigest()
