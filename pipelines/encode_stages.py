"""The three stages of `encode`: decode the clips of a part, encode them, pack the parts of a shard into a tar.

A clip that cannot be decoded keeps its row, with the error. Parts and tars are committed in the workers.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.shards import TarWriter
from curate.stage import Resources
from curate.tables import LATENTS
from pipelines.encode_frames import Shape, read_clip
from pipelines.encode_plan import state_folder
from train.blend import captions_of

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
#: A clip as it lies in a part: its row of the index, and the bytes of its three members.
_ENCODED = pa.schema([*LATENTS, ("latent", pa.binary()), ("text", pa.binary()), ("json", pa.binary())])

BATCH_BYTES = 8 << 20  # decoded pictures that go through the VAE together


class DecodeClips:
    """One part: read the clips out of their tar and decode the frames that are wanted."""

    output = pa.schema([("part", pa.string()), ("clips", pa.list_(_DECODED))])

    def __init__(self, dataset_uri: str) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources()

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
                row["pixels"] = read_clip(io.BytesIO(mp4), shape, clip["encoded_fps"]).tobytes()
            except (BadInput, OSError, ValueError) as error:  # PyAV's errors are OSErrors or ValueErrors
                row["error"] = f"{type(error).__name__}: {error}"
            found.append(row)
        return found


class EncodeClips:
    """One part: latents of its clips, batched by shape, and features of their captions. Commits the part."""

    output = _DONE

    def __init__(self, dataset_uri: str, vae: str, text: str, resources: Resources) -> None:
        self.dataset_uri, self.vae, self.text = dataset_uri, vae, text
        self.resources = resources

    def setup(self) -> None:
        import torch

        from model.any_vae import any_vae_id, load_any_vae
        from model.text import load_text_encoder

        self._dataset = Dataset(self.dataset_uri)
        self._device = "cuda" if self.resources.gpus and torch.cuda.is_available() else "cpu"
        self._vae = load_any_vae(self.vae).to(self._device)
        self._vae_id = any_vae_id(self._vae)
        self._text = load_text_encoder(self.text, self._device)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._encode(row["part"], row["clips"]) for row in rows]

    def _encode(self, part: str, clips: list[dict]) -> dict:
        from pipelines.encode_text import caption_features

        rows: list[dict[str, Any]] = [
            {"clip_id": clip["clip_id"], "error": clip["error"], "json": clip["json"]} for clip in clips
        ]
        good = [i for i, clip in enumerate(clips) if clip["error"] is None]
        for i, latent in self._latents(clips, good):
            rows[i] |= self._latent_member(clips[i], latent)
        captions = [captions_of(json.loads(clips[i]["json"])) for i in good]
        for i, kinds, features in zip(good, captions, caption_features(self._text, captions), strict=True):
            rows[i] |= self._text_member(features) | {"caption_kinds": sorted(kinds)}
        with self._dataset.atomic_writer(state_folder(self._vae_id), "parts", f"{part}.parquet") as out:
            pq.write_table(pa.Table.from_pylist(rows, schema=_ENCODED), out)
        return {"name": part, "clips": len(good), "failed": len(clips) - len(good)}

    def _latents(self, clips: list[dict], good: list[int]):  # type: ignore[no-untyped-def]
        """(number of the clip, latent (C, t, h, w)) for each of `good`, batched by shape."""
        import torch

        from model.vae import from_pixels

        by_shape: dict[Shape, list[int]] = defaultdict(list)
        for i in good:
            by_shape[Shape(*(clips[i][name] for name in ("frames", "height", "width")))].append(i)
        for shape, members in by_shape.items():
            size = max(1, BATCH_BYTES // shape.size_bytes)
            for batch in (members[k : k + size] for k in range(0, len(members), size)):
                pixels = torch.stack(
                    [torch.frombuffer(bytearray(clips[i]["pixels"]), dtype=torch.uint8) for i in batch]
                )
                frames = pixels.view(len(batch), shape.frames, shape.height, shape.width, 3)
                with torch.inference_mode():
                    z = self._vae.encode_latents(from_pixels(frames.to(self._device)))
                yield from zip(batch, z.cpu(), strict=True)

    def _latent_member(self, clip: dict, latent) -> dict:  # type: ignore[no-untyped-def]
        import torch
        from safetensors.torch import save

        _, t, h, w = latent.shape
        fps = clip["fps"] if clip["frames"] > 1 else 0.0  # a picture has no rate
        metadata = {"fps": repr(fps), "n_frames": str(clip["frames"]), "vae_id": self._vae_id}
        data = _canonical(save({"latent": latent.to(torch.bfloat16).contiguous()}, metadata=metadata))
        n_tokens = t * ((h + 1) // 2) * ((w + 1) // 2)
        return {"latent": data, "t": t, "h": h, "w": w, "n_tokens": n_tokens, "fps": fps}

    def _text_member(self, features: dict) -> dict:
        import torch
        from safetensors.torch import save

        stored = {name: x.to(torch.bfloat16) if x.is_floating_point() else x for name, x in features.items()}
        return {"text": _canonical(save({name: stored[name].contiguous() for name in sorted(stored)}))}


def _canonical(data: bytes) -> bytes:
    """A safetensors file with its header in sorted order: `save` orders metadata anew each time."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


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
