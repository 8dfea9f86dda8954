"""The three stages of `encode`: decode the clips of a part, encode them, pack the parts of a shard into a tar.

A clip that cannot be decoded keeps its row, with the error. Parts and tars are committed in the workers.
"""

from __future__ import annotations

import io
import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.shards import TarWriter
from curate.stage import Resources
from curate.tables import LATENTS
from pipelines.encode_frames import FrameConfig, Shape, read_clip
from pipelines.encode_members import to_member
from pipelines.encode_plan import state_folder
from train.blend import captions_of

if TYPE_CHECKING:
    from torch import Tensor

_TO_DECODE = pa.struct(
    [("clip_id", pa.string())]
    + [(name, pa.int64()) for name in ("mp4_offset", "mp4_size", "json_offset", "json_size")]
    + [(name, pa.int32()) for name in ("frames", "encoded_height", "encoded_width")]
    + [("encoded_fps", pa.float64())]
)
_DECODED = pa.struct(
    [("clip_id", pa.string()), ("json", pa.binary()), ("pixels", pa.binary()), ("fps", pa.float64())]
    + [(name, pa.int32()) for name in ("frames", "height", "width")]
    + [("error", pa.string())]
)
DECODE_INPUT = pa.schema([("part", pa.string()), ("shard", pa.string()), ("clips", pa.list_(_TO_DECODE))])
PACK_INPUT = pa.schema([("tar", pa.string()), ("content", pa.string()), ("parts", pa.list_(pa.string()))])
_DONE = pa.schema([("name", pa.string()), ("clips", pa.int64()), ("failed", pa.int64())])
_TIMES = pa.schema([("busy_s", pa.float64()), ("waited_s", pa.float64())])
#: A clip as it lies in a part: its row of the index, and the bytes of its three members.
_ENCODED = pa.schema([*LATENTS, ("latent", pa.binary()), ("text", pa.binary()), ("json", pa.binary())])

#: Parts that are decoded ahead of the encoder in one process; each is of PART_BYTES, or of one longer clip.
AHEAD = max(2, min(8, (os.cpu_count() or 1) // 2))


class DecodeClips:
    """One part: read the clips out of their tar and decode the frames that are wanted."""

    output = pa.schema([("part", pa.string()), ("clips", pa.list_(_DECODED))])

    def __init__(self, dataset_uri: str) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources(ahead=AHEAD)

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [{"part": row["part"], "clips": self._decode(row["shard"], row["clips"])} for row in rows]

    def _decode(self, shard: str, clips: list[dict]) -> list[dict]:
        # Neighbours in the tar: one read, which object stores want, gets them all.
        start = min(clip["mp4_offset"] for clip in clips)
        end = max(clip["json_offset"] + clip["json_size"] for clip in clips)
        data = self._dataset.read_bytes("shards", *shard.split("/"), start=start, end=end)
        found = []
        for clip in clips:
            mp4, record = (
                data[clip[f"{kind}_offset"] - start : clip[f"{kind}_offset"] - start + clip[f"{kind}_size"]]
                for kind in ("mp4", "json")
            )
            shape = Shape(clip["frames"], clip["encoded_height"], clip["encoded_width"])
            row = {"clip_id": clip["clip_id"], "json": record, "fps": clip["encoded_fps"], **vars(shape)}
            row |= {"pixels": None, "error": None}
            try:
                # Not a copy of them, which would double the memory of a long clip.
                row["pixels"] = read_clip(io.BytesIO(mp4), shape, clip["encoded_fps"]).data.cast("B")
            except (BadInput, OSError, ValueError) as error:  # PyAV's errors are OSErrors or ValueErrors
                row["error"] = f"{type(error).__name__}: {error}"
            found.append(row)
        return found


class EncodeClips:
    """One part: latents of its clips, batched by shape, and features of their captions. Commits the part.

    Its rows tell how long the call took, and how long the worker had nothing to do since the call before.
    """

    output = pa.schema([*_DONE, *_TIMES])

    def __init__(
        self,
        dataset_uri: str,
        vae: str,
        text: str,
        resources: Resources,
        frames: FrameConfig | None = None,
        tile: int | None = None,
    ) -> None:
        """`frames` tells how many keyframes and how long a suffix; `tile` as in `VideoVAE.encode`."""
        self.dataset_uri, self.vae, self.text = dataset_uri, vae, text
        self.resources = resources
        self.frames, self.tile = frames or FrameConfig(), tile

    def setup(self) -> None:
        import torch

        from model.any_vae import any_vae_id, load_any_vae
        from model.text import load_text_encoder

        self._dataset = Dataset(self.dataset_uri)
        device = "cuda" if self.resources.gpus and torch.cuda.is_available() else "cpu"
        self._vae = load_any_vae(self.vae).to(device)
        self._vae_id = any_vae_id(self._vae)
        self._text = load_text_encoder(self.text, device)
        self._ended_s: float | None = None

    def __call__(self, rows: list[dict]) -> list[dict]:
        found = []
        for row in rows:
            began_s = time.perf_counter()
            # Before its first part a worker waits for the start of all others.
            waited_s = 0.0 if self._ended_s is None else began_s - self._ended_s
            found.append(self._encode(row["part"], row["clips"]))
            self._ended_s = time.perf_counter()
            found[-1] |= {"busy_s": self._ended_s - began_s, "waited_s": waited_s}
        return found

    def _encode(self, part: str, clips: list[dict]) -> dict:
        from pipelines.encode_latents import latents_of
        from pipelines.encode_text import caption_features

        rows: list[dict[str, Any]] = [
            {"clip_id": clip["clip_id"], "error": clip["error"], "json": clip["json"]} for clip in clips
        ]
        good = [i for i, clip in enumerate(clips) if clip["error"] is None]
        videos = [_video(clips[i]) for i in good]
        for i, made in zip(good, latents_of(self._vae, videos, self.frames, self.tile), strict=True):
            rows[i] |= self._latent_member(clips[i], made)
        captions = [captions_of(json.loads(clips[i]["json"])) for i in good]
        for i, kinds, features in zip(good, captions, caption_features(self._text, captions), strict=True):
            rows[i] |= {"text": to_member(features), "caption_kinds": sorted(kinds)}
        with self._dataset.atomic_writer(state_folder(self._vae_id), "parts", f"{part}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(rows, schema=_ENCODED), out)
        return {"name": part, "clips": len(good), "failed": len(clips) - len(good)}

    def _latent_member(self, clip: dict, made: dict[str, Tensor]) -> dict[str, Any]:
        """KEY.latent of a clip, and what the index tells of it."""
        size = dict(zip("thw", made["latent"].shape[1:], strict=True))
        fps = clip["fps"] if clip["frames"] > 1 else 0.0  # a picture has no rate
        told = {**size, "fps": fps, "n_frames": clip["frames"]}
        metadata = {"vae_id": self._vae_id} | {name: repr(value) for name, value in told.items()}
        return {
            "latent": to_member(made, metadata),
            **size,
            "n_tokens": size["t"] * ((size["h"] + 1) // 2) * ((size["w"] + 1) // 2),
            "fps": fps,
            "keyframe_at": made["keyframe_at"].tolist() if "keyframe_at" in made else [],
            "suffix": made["suffix"].shape[1] if "suffix" in made else 0,
        }


def _video(clip: dict) -> np.ndarray:
    """(T, H, W, 3) uint8, as `DecodeClips` gave it."""
    return np.frombuffer(clip["pixels"], np.uint8).reshape(clip["frames"], clip["height"], clip["width"], 3)


class PackLatents:
    """One shard: write its tar from its parts, and the part of the index that describes it."""

    output = _DONE

    def __init__(self, dataset_uri: str, vae_id: str) -> None:
        self.dataset_uri, self.vae_id = dataset_uri, vae_id
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._pack(row) for row in rows]

    def _pack(self, row: dict) -> dict:
        state = state_folder(self.vae_id)
        index: list[dict[str, Any]] = []
        with self._dataset.atomic_writer("latents", self.vae_id, row["tar"]) as file:
            tar = TarWriter(file)
            for part in row["parts"]:
                data = self._dataset.read_bytes(state, "parts", f"{part}.parquet")
                for clip in pq.read_table(io.BytesIO(data)).to_pylist():
                    index.append({name: clip[name] for name in LATENTS.names})
                    if clip["error"] is not None:
                        continue
                    for member in ("latent", "text", "json"):
                        offset, size = tar.add(clip["clip_id"], member, clip[member])
                        if member != "json":
                            index[-1] |= {f"{member}_offset": offset, f"{member}_size": size}
                    index[-1]["shard"] = row["tar"]
            tar.close()
        with self._dataset.atomic_writer(state, f"{row['content']}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(index, schema=LATENTS), out)
        failed = sum(clip["error"] is not None for clip in index)
        return {"name": row["tar"], "clips": len(index) - failed, "failed": failed}
