"""Two stages of `encode`: decode the clips of a part, and encode them. The parts are committed in the workers.

A clip that cannot be read, decoded or encoded keeps its row, with the error; so does one that kills its worker.
"""

from __future__ import annotations

import io
import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.error import FFmpegError

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.stage import Resources
from curate.tables import LATENTS
from pipelines.encode_frames import FrameConfig, Shape, read_clip
from pipelines.encode_members import to_member
from pipelines.encode_plan import state_folder
from pipelines.encode_tries import Tries
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
DONE = pa.schema(
    [("name", pa.string())] + [(name, pa.int64()) for name in ("clips", "failed", "written_bytes")]
)
_TIMES = pa.schema([("worker", pa.string()), ("busy_s", pa.float64()), ("waited_s", pa.float64())])
#: A clip as it lies in a part: its row of the index, and the bytes of its three members.
_ENCODED = pa.schema([*LATENTS, ("latent", pa.binary()), ("text", pa.binary()), ("json", pa.binary())])

#: Parts that are decoded ahead of the encoder in one process; each is of PART_BYTES, or of one longer clip.
AHEAD = max(2, min(8, (os.cpu_count() or 1) // 2))
#: Seconds between tries to read a tar: disks and stores over a network fail now and then.
READ_AGAIN_S = (0.5, 2.0)


class DecodeClips:
    """One part: read the clips out of their tar and decode the frames that are wanted."""

    output = pa.schema([("part", pa.string()), ("clips", pa.list_(_DECODED))])

    def __init__(self, dataset_uri: str) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources(ahead=AHEAD)

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [{"part": row["part"], "clips": self._part(row)} for row in rows]

    def _part(self, row: dict) -> list[dict]:
        tries = Tries(self._dataset, f"{row['part']}-decode")
        found = tries.run(row["clips"], lambda clips: self._decode(row["shard"], clips))
        tries.clear()
        return found

    def _decode(self, shard: str, clips: list[dict]) -> list[dict]:
        # Neighbours in the tar: one read, which object stores want, gets them all.
        start = min(clip["mp4_offset"] for clip in clips)
        end = max(clip["json_offset"] + clip["json_size"] for clip in clips)
        try:
            data = self._read(shard, start, end)
        except OSError as error:
            why = f"shards/{shard} cannot be read: {type(error).__name__}: {error}"
            return [{"clip_id": clip["clip_id"], "error": why} for clip in clips]
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
                json.loads(record)
            except (BadInput, FFmpegError, OSError, ValueError) as error:
                row["error"] = f"{type(error).__name__}: {error}"
            found.append(row)
        return found

    def _read(self, shard: str, start: int, end: int) -> bytes:
        for wait_s in READ_AGAIN_S:
            try:
                return self._dataset.read_bytes("shards", *shard.split("/"), start=start, end=end)
            except FileNotFoundError:
                raise
            except OSError:
                time.sleep(wait_s)
        return self._dataset.read_bytes("shards", *shard.split("/"), start=start, end=end)


class EncodeClips:
    """One part: latents of its clips, batched by shape, and features of their captions. Commits the part.

    Its rows tell how long the call took, and how long the worker had nothing to do before, since it was ready.
    """

    output = pa.schema([*DONE, *_TIMES])

    def __init__(
        self,
        dataset_uri: str,
        vae: str,
        text: str,
        resources: Resources,
        frames: FrameConfig | None = None,
        tile: int | None = None,
        batch_mb: int = 8,
        ids: tuple[str, str] | None = None,
    ) -> None:
        """`frames` tells how many keyframes and how long a suffix; `tile` as in `VideoVAE.encode`.

        `batch_mb`: MiB of pictures that the VAE sees at once. `ids`: what VAE and text encoder must be.
        """
        self.dataset_uri, self.vae, self.text = dataset_uri, vae, text
        self.resources = resources
        self.frames, self.tile = frames or FrameConfig(), tile
        self.batch_mb, self.ids = batch_mb, ids

    def setup(self) -> None:
        import torch

        from model.any_vae import any_vae_id, load_any_vae
        from model.text import load_text_encoder
        from pipelines.text_place import text_id

        self._dataset = Dataset(self.dataset_uri)
        if self.resources.gpus and not torch.cuda.is_available():
            raise BadInput(
                "PyTorch finds no GPU where the encoder runs. Install its CUDA build, or give --gpus=0."
            )
        device = "cuda" if self.resources.gpus else "cpu"
        self._vae = load_any_vae(self.vae).to(device)
        self._vae_id = any_vae_id(self._vae)
        if self.ids and (found := (self._vae_id, text_id(self.text))) != self.ids:
            raise BadInput(
                f"a worker finds VAE and text encoder {found} at {self.vae} and {self.text}, where the job began with "
                f"{self.ids}. Put the same files on all machines."
            )
        self._text = load_text_encoder(self.text, device)
        self._worker, self._ended_s = uuid.uuid4().hex, time.perf_counter()

    def __call__(self, rows: list[dict]) -> list[dict]:
        found = []
        for row in rows:
            began_s = time.perf_counter()
            waited_s = began_s - self._ended_s
            found.append(self._part(row["part"], row["clips"]))
            self._ended_s = time.perf_counter()
            found[-1] |= {"worker": self._worker, "busy_s": self._ended_s - began_s, "waited_s": waited_s}
        return found

    def _part(self, part: str, clips: list[dict]) -> dict:
        tries = Tries(self._dataset, f"{part}-encode")
        rows = tries.run(clips, self.encode)
        with self._dataset.atomic_writer(state_folder(self._vae_id), "parts", f"{part}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(rows, schema=_ENCODED), out)
            size = out.tell()
        tries.clear()
        failed = sum(row["error"] is not None for row in rows)
        return {"name": part, "clips": len(rows) - failed, "failed": failed, "written_bytes": size}

    def encode(self, clips: list[dict]) -> list[dict]:
        """A row of _ENCODED for each clip, a row of _DECODED."""
        made = iter(self._members([clip for clip in clips if clip["error"] is None]))
        return [next(made) if clip["error"] is None else clip for clip in clips]

    def foretold(self, clip: dict) -> dict[str, Any]:
        """What the index will tell of the latents of a clip that is still to be decoded, a row of _TO_DECODE."""
        from pipelines.encode_latents import encoded_apart

        vae = self._vae.config
        t = (clip["frames"] - 1) // vae.temporal + 1
        at, suffix = encoded_apart(self._vae, t, self.frames)
        return {
            "t": t,
            "h": clip["encoded_height"] // vae.spatial,
            "w": clip["encoded_width"] // vae.spatial,
            "fps": _rate(clip["frames"], clip["encoded_fps"]),
            "keyframe_at": at,
            "suffix": suffix,
        }

    def _members(self, clips: list[dict]) -> list[dict]:
        """The same of clips that were decoded. Where the GPU has not memory enough for all, one by one."""
        import torch

        try:
            return self._at_once(clips)
        except torch.OutOfMemoryError:
            pass  # what was on the GPU is free when the error is
        torch.cuda.empty_cache()
        if len(clips) > 1:
            return [row for clip in clips for row in self._members([clip])]
        why = "out of GPU memory: encode it in tiles (--tile), or with fewer --frames.pixels or --frames.max_frames"
        return [{"clip_id": clip["clip_id"], "json": clip["json"], "error": why} for clip in clips]

    def _at_once(self, clips: list[dict]) -> list[dict]:
        from pipelines.encode_latents import latents_of
        from pipelines.encode_text import caption_features

        videos = [_video(clip) for clip in clips]
        made = latents_of(self._vae, videos, self.frames, self.tile, self.batch_mb << 20)
        captions = [captions_of(json.loads(clip["json"])) for clip in clips]
        features = caption_features(self._text, captions)
        return [
            {
                "clip_id": clip["clip_id"],
                "json": clip["json"],
                "error": None,
                **self._latent_member(clip, latents),
                "text": to_member(members),
                "caption_kinds": sorted(kinds),
            }
            for clip, latents, kinds, members in zip(clips, made, captions, features, strict=True)
        ]

    def _latent_member(self, clip: dict, made: dict[str, Tensor]) -> dict[str, Any]:
        """KEY.latent of a clip, and what the index tells of it."""
        size = dict(zip("thw", made["latent"].shape[1:], strict=True))
        fps = _rate(clip["frames"], clip["fps"])
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


def _rate(frames: int, fps: float) -> float:
    """Frames per second that are told of a clip: a picture has none."""
    return fps if frames > 1 else 0.0


def _video(clip: dict) -> np.ndarray:
    """(T, H, W, 3) uint8, as `DecodeClips` gave it."""
    return np.frombuffer(clip["pixels"], np.uint8).reshape(clip["frames"], clip["height"], clip["width"], 3)
