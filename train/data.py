"""Reads cached latents and text features: latents/VAE_ID/ of a dataset, by byte ranges from its index.

    data = LatentDataset("demo-run/dataset")             # or s3://bucket/films
    data.clips[0]                                        # ClipEntry: id, size, tokens, kinds of caption
    latent, texts = data.read(0)                         # (C, t, h, w) float32, {"dense": (L, D) float32, ...}
    latent, texts, given = data.read_given(0)            # also pictures and the ending as a sampler is given them

The tars are WebDataset's (KEY.latent, KEY.text, KEY.json), so plain `webdataset` reads them too; the index lets
any clip be read by itself, which the packing plan needs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from model.errors import BadInput
from train.caption_features import ends_fit, outline
from train.store import as_os_error

#: KEY.latent and KEY.text are read by one request where no more bytes lie between them.
_GAP = 4096


class DamagedClip(BadInput):
    """One clip of a dataset cannot be used; the others may be."""


@dataclass(frozen=True)
class ClipEntry:
    """Where one clip lies and what it is like.

    Attributes:
        clip_id: key of the clip.
        shard: path of the tar, relative to the latents folder.
        latent: first byte and bytes of KEY.latent.
        text: first byte and bytes of KEY.text, or null.
        size: latent frames, rows and columns.
        fps: frames per second of the video; 0 for a picture.
        kinds: kinds of caption with features.
        keyframe_at: latent frames whose last picture is also there by itself, ascending.
        suffix: latent frames at the end that are also there as a clip of their own.
    """

    clip_id: str
    shard: str
    latent: tuple[int, int]
    text: tuple[int, int] | None
    size: tuple[int, int, int]
    fps: float
    kinds: tuple[str, ...]
    keyframe_at: tuple[int, ...] = ()
    suffix: int = 0


@dataclass(frozen=True)
class Given:
    """Latents of what can be given to a sampler without all that comes before it in the clip.

    A causal VAE makes others of the same pictures where they are part of a clip. Those of the beginning are the same;
    not so of VAEs that normalize over time (HunyuanVideo, CogVideoX), whose first picture is among the keyframes.

    Attributes:
        keyframes: (C, K, h, w) float32, each the last picture of a latent frame, encoded by itself.
        keyframe_at: these latent frames, ascending; the last one of the clip is among them.
        suffix: (C, s, h, w) float32, the last pictures encoded as a clip, for the last s latent frames.
    """

    keyframes: Tensor
    keyframe_at: tuple[int, ...]
    suffix: Tensor


class LatentDataset:
    """The cached latents of a dataset, in the order of their ids.

    Attributes:
        about: latents.json: vae_id, channels, text encoder and text width, and what else encode told.
        clips: every clip that was encoded without error.
    """

    def __init__(self, dataset: str, vae_id: str | None = None) -> None:
        """`vae_id` names the folder below latents/; null if there is but one. Raises BadInput."""
        try:
            self._fs, root = fsspec.core.url_to_fs(dataset)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"cannot open dataset {dataset!r}: {error}. Give a local path, or install the driver of its scheme."
            ) from error
        self.root = self._find(f"{root.rstrip('/')}/latents", dataset, vae_id)
        try:
            self.about: dict[str, Any] = json.loads(self._fs.cat_file(f"{self.root}/latents.json"))
            with self._fs.open(f"{self.root}/index.parquet", "rb") as file:
                rows = pq.read_table(file).to_pylist()
        except FileNotFoundError as error:
            raise BadInput(
                f"{self.root} is not finished: {error.args[-1]} is missing. Run `reelmill encode --dataset "
                f"{dataset}` to its end."
            ) from error
        if self.about["vae_id"] != (name := self.root.rsplit("/", 1)[-1]):
            raise BadInput(
                f"{self.root} holds latents of VAE {self.about['vae_id']}, not of {name}: latents of two VAEs do not "
                "mix. Delete that folder and encode the dataset again."
            )
        self.clips = [
            _entry(row) for row in sorted(rows, key=lambda r: r["clip_id"]) if row["shard"] is not None
        ]

    def _find(self, latents: str, dataset: str, vae_id: str | None) -> str:
        self._fs.invalidate_cache()
        there = self._fs.ls(latents, detail=True) if self._fs.exists(latents) else []
        names = sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in there if e["type"] == "directory")
        if not names:
            raise BadInput(f"{dataset} has no latents. Run `reelmill encode --dataset {dataset}` first.")
        if vae_id is None:  # those that are still being made are no choice, unless there is nothing else
            names = [name for name in names if self._fs.exists(f"{latents}/{name}/latents.json")] or names
        if vae_id is None and len(names) > 1:
            raise BadInput(
                f"{dataset} has latents of several VAEs: choose one of {', '.join(names)} by --vae_id."
            )
        if vae_id is not None and vae_id not in names:
            raise BadInput(f"{dataset} has no latents of {vae_id!r}; there are: {', '.join(names)}.")
        return f"{latents}/{vae_id or names[0]}"

    def typical(self) -> tuple[tuple[int, int, int], float]:
        """The latent size (t, h, w) of clips that most tokens belong to, and the commonest frame rate of that size.

        Pictures count where there is nothing else; their rate is 0.
        """
        clips = [clip for clip in self.clips if clip.size[0] > 1] or self.clips
        tokens: Counter[tuple[int, int, int]] = Counter()
        for clip in clips:
            tokens[clip.size] += math.prod(clip.size)
        size = min(tokens, key=lambda size: (-tokens[size], size))
        rates = Counter(round(clip.fps, 3) for clip in clips if clip.size == size and clip.fps)
        return size, min(rates, key=lambda rate: (-rates[rate], rate), default=0.0)

    def only(self, kind: Literal["pictures", "clips"] | None) -> LatentDataset:
        """The dataset with its pictures alone, or its clips; null is all of it. Raises BadInput if it has none."""
        if kind is None:
            return self
        found = [clip for clip in self.clips if (clip.size[0] == 1) == (kind == "pictures")]
        if not found:
            raise BadInput(f"{self.root} holds no {kind}: leave --only out.")
        return self._with(found)

    def held_back(self, count: int) -> tuple[LatentDataset, LatentDataset]:
        """The dataset without `count` clips, and these, which their ids alone decide."""
        order = sorted(range(len(self.clips)), key=lambda i: _hash(self.clips[i].clip_id))
        held = set(order[:count])
        return (
            self._with([clip for i, clip in enumerate(self.clips) if i not in held]),
            self._with([self.clips[i] for i in order[:count]]),
        )

    def _with(self, clips: list[ClipEntry]) -> LatentDataset:
        other = copy.copy(self)
        other.clips = clips
        return other

    def digest(self) -> str:
        """Changes with the clips, and with all that decides how many tokens each becomes; not with their place."""
        told = [(clip.clip_id, clip.size, clip.keyframe_at, clip.suffix) for clip in self.clips]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()

    def read(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Latent (C, t, h, w), and what KEY.text holds (train/caption_features.py); float32 where not whole numbers.

        Raises DamagedClip if damaged, or of another VAE.
        """
        latent, texts, _ = self.read_given(number)
        return latent, texts

    def read_given(self, number: int) -> tuple[Tensor, dict[str, Tensor], Given]:
        """As `read`, and what of the clip is there encoded by itself; empty where encode was told to leave it out.

        Raises DamagedClip.
        """
        clip = self.clips[number]
        try:
            data, features = self._members(clip)
            found = load(data)
            latent = found["latent"].float()
            texts = load(features) if clip.text else {}
        except (OSError, SafetensorError, KeyError) as error:
            raise DamagedClip(
                f"clip {clip.clip_id} in {self.root}/{clip.shard} cannot be read ({type(error).__name__}: {error}). "
                "Encode the dataset again."
            ) from error
        if (made_by := _metadata(data).get("vae_id", self.about["vae_id"])) != self.about["vae_id"]:
            raise DamagedClip(
                f"clip {clip.clip_id} in {self.root}/{clip.shard} is a latent of VAE {made_by}, not of "
                f"{self.about['vae_id']}: latents of two VAEs do not mix. Delete that shard and encode the dataset "
                "again."
            )
        # Told here, where the clip is known: in the loss it would look like a run that diverges.
        if bad := sorted(name for name, x in {**found, **texts}.items() if not _is_finite(x)):
            raise DamagedClip(
                f"clip {clip.clip_id} in {self.root}/{clip.shard} has numbers that are not finite in {', '.join(bad)}. "
                "Encode the dataset again without that clip, or in full precision."
            )
        none = latent[:, :0]
        given = Given(
            found.get("keyframes", none).float(),
            tuple(found["keyframe_at"].tolist()) if "keyframe_at" in found else (),
            found.get("suffix", none).float(),
        )
        self._check_texts(clip, latent, texts)
        there = tuple(latent.shape[1:]), given.keyframe_at, given.suffix.shape[1]
        if there != (told := (clip.size, clip.keyframe_at, clip.suffix)):
            raise DamagedClip(
                f"clip {clip.clip_id} in {self.root}/{clip.shard} has latents of (size, keyframes at, suffix) = "
                f"{there}, its index says {told}. Encode the dataset again."
            )
        return latent, {name: x.float() if x.is_floating_point() else x for name, x in texts.items()}, given

    def _check_texts(self, clip: ClipEntry, latent: Tensor, texts: dict[str, Tensor]) -> None:
        """Raise DamagedClip for what the transformer, or the counts of captions, would trip over."""
        amiss = None
        if len(latent) != self.about["channels"]:
            amiss = f"{len(latent)} channels, not {self.about['channels']}"
        elif tuple(sorted(outline(texts))) != tuple(sorted(clip.kinds)):
            amiss = f"captions {sorted(outline(texts))}, its index says {sorted(clip.kinds)}"
        for name, x in texts.items():
            if x.is_floating_point() and (x.ndim != 2 or x.shape[1] != self.about["text_width"]):
                amiss = f"{name} of shape {tuple(x.shape)}, not (tokens, {self.about['text_width']})"
            if name.endswith(".ends") and not ends_fit(texts, name.removesuffix(".ends")):
                amiss = f"{name} that do not fit its caption"
        if amiss:
            raise DamagedClip(
                f"clip {clip.clip_id} in {self.root}/{clip.shard} has {amiss}. Encode the dataset again."
            )

    def _members(self, clip: ClipEntry) -> tuple[bytes, bytes]:
        """KEY.latent, and KEY.text or nothing."""
        start, size = clip.latent
        if clip.text is None:
            return self._bytes(clip.shard, clip.latent), b""
        text_start, text_size = clip.text
        if not 0 <= text_start - (start + size) <= _GAP:
            return self._bytes(clip.shard, clip.latent), self._bytes(clip.shard, clip.text)
        both = self._bytes(clip.shard, (start, text_start + text_size - start))
        return both[:size], both[text_start - start :]

    def _bytes(self, shard: str, span: tuple[int, int]) -> bytes:
        start, size = span
        with as_os_error():
            found = bytes(self._fs.cat_file(f"{self.root}/{shard}", start=start, end=start + size))
        if len(found) < size:  # a store may have been cut off: worth another try
            raise OSError(f"{len(found)} of {size} bytes from {start} on")
        return found


def _is_finite(x: Tensor) -> bool:
    """Whether all numbers are: a sum is not where one is not, and costs far less than looking at each.

    Only where the sum of large ones overflows must each be looked at.
    """
    return bool(x.sum(dtype=torch.float32).isfinite()) or bool(x.isfinite().all())


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _entry(row: dict[str, Any]) -> ClipEntry:
    kinds = tuple(row["caption_kinds"] or ())
    return ClipEntry(
        clip_id=row["clip_id"],
        shard=row["shard"],
        latent=(row["latent_offset"], row["latent_size"]),
        text=(row["text_offset"], row["text_size"]) if kinds else None,
        size=(row["t"], row["h"], row["w"]),
        fps=row["fps"] or 0.0,
        kinds=kinds,
        keyframe_at=tuple(row.get("keyframe_at") or ()),
        suffix=row.get("suffix") or 0,
    )


def _metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file tells beside its tensors."""
    size = int.from_bytes(data[:8], "little")
    told: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return told
