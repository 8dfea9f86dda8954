"""Raw video to the trainer: clips out of shards/, decoded, and encoded by VAE and text encoder as they are read.

    data = RawShards("s3://films", OnTheFly())           # `reelmill train --raw`
    train(config, log, data)                             # as with the latents that `reelmill encode` writes

What is read is what `reelmill encode` with the same settings would have written, but for the last digit, which the
clips that go through a VAE together decide. So a run may go on with cached latents, and the other way round.
"""

from __future__ import annotations

import io
import json
import os
import threading
import time
from typing import Any

import torch
from av.error import FFmpegError
from safetensors.torch import load
from torch import Tensor

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.isolate import ChildFailed, Isolated
from curate.stage import Resources
from pipelines.encode import about_latents, caption_words, check, models
from pipelines.encode_frames import Shape
from pipelines.encode_plan import plan
from pipelines.encode_stages import READ_AGAIN_S, EncodeClips
from pipelines.train_raw_config import OnTheFly
from train.blend import captions_of
from train.data import ClipEntry, DamagedClip, Given, LatentDataset

#: Seconds after which a decoder is taken to hang.
DECODE_S = 120.0
#: Records that are asked for together, of a store that answers many at once.
JSON_AT_ONCE = 1000


class RawShards(LatentDataset):
    """The clips of the video shards, as if they were encoded; in the order of their ids.

    May be read from several threads at once: each has a process that decodes for it, which may hang or crash without
    harm to the training; the models are used by one at a time, on a GPU in a stream of their own.

    Attributes:
        about: what latents.json would tell.
        clips: every clip in a shard; `latent` and `text` are the places of KEY.mp4 and KEY.json, sizes are those that
            the latents are going to have.
    """

    def __init__(
        self, dataset: str, encode: OnTheFly, device: str = "auto", vae_id: str | None = None
    ) -> None:
        """`device` is cpu, cuda or auto; `vae_id` what the VAE must be, if not null. Raises BadInput."""
        config = encode.of(dataset)
        check(config)
        shards = Dataset(dataset)
        if not shards.has("shards"):
            raise BadInput(
                f"{dataset} has no shards, which --raw reads. Run `reelmill shard --dataset {dataset}` first, or leave "
                "--raw out to train on its latents."
            )
        self.about = about_latents(config) | caption_words(shards)
        if vae_id not in (None, self.about["vae_id"]):
            raise BadInput(
                f"--vae_id={vae_id}, but the VAE {encode.vae} is {self.about['vae_id']}: give that one by "
                "--encode.vae, or leave --vae_id out."
            )
        planned = [
            (unit.shard, clip)
            for unit in plan(shards, encode.frames, self.about)
            for part in unit.parts
            for clip in part["clips"]
        ]
        self._fs, self.root = shards.fs, shards.path("shards")
        self._planned = {clip["clip_id"]: clip for _, clip in planned}
        where = _device(device)
        self._lock, self._decoders = threading.Lock(), threading.local()
        # Beside the trainer's: it waits for no kernel of the step that is computed.
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._encoder = EncodeClips(
            dataset,
            *models(config),
            Resources(gpus=float(where.type == "cuda")),
            encode.frames,
            encode.tile,
            encode.batch_mb,
        )
        with torch.cuda.stream(self._stream):
            self._encoder.setup()
        kinds = _kinds(shards, planned)
        self.clips = sorted(
            (self._entry(shard, clip, kinds[clip["clip_id"]]) for shard, clip in planned),
            key=lambda entry: entry.clip_id,
        )

    def _entry(self, shard: str, clip: dict[str, Any], kinds: tuple[str, ...]) -> ClipEntry:
        told = self._encoder.foretold(clip)
        return ClipEntry(
            clip_id=clip["clip_id"],
            shard=shard,
            latent=(clip["mp4_offset"], clip["mp4_size"]),
            text=(clip["json_offset"], clip["json_size"]),
            size=(told["t"], told["h"], told["w"]),
            fps=told["fps"],
            kinds=kinds,
            keyframe_at=told["keyframe_at"],
            suffix=told["suffix"],
        )

    def read_given(self, number: int) -> tuple[Tensor, dict[str, Tensor], Given]:
        """Latents, features and what is given of a clip, made now.

        Raises DamagedClip if it cannot be read, decoded or encoded.
        """
        clip = self.clips[number]
        decoded = self._decoded(clip)
        with self._lock, torch.cuda.stream(self._stream):
            (row,) = self._encoder.encode([decoded])
        if row["error"] is not None:
            raise self._damaged(clip, row["error"])
        found, texts = load(row["latent"]), load(row["text"])
        # Told here, where the clip is known: in the loss it would look like a run that diverges.
        if bad := sorted(name for name, x in {**found, **texts}.items() if not x.isfinite().all()):
            raise self._damaged(clip, f"encoding it gives numbers that are not finite in {', '.join(bad)}")
        latent = found["latent"].float()
        none = latent[:, :0]
        given = Given(
            found.get("keyframes", none).float(),
            tuple(found["keyframe_at"].tolist()) if "keyframe_at" in found else (),
            found.get("suffix", none).float(),
        )
        made = tuple(latent.shape[1:]), given.keyframe_at, given.suffix.shape[1]
        if made != (told := (clip.size, clip.keyframe_at, clip.suffix)):
            raise self._damaged(clip, f"its latents have (size, keyframes at, suffix) = {made}, not {told}")
        return latent, {name: x.float() if x.is_floating_point() else x for name, x in texts.items()}, given

    def _decoded(self, clip: ClipEntry) -> dict[str, Any]:
        """The row that the encoder takes. Raises DamagedClip."""
        planned = self._planned[clip.clip_id]
        shape = Shape(planned["frames"], planned["encoded_height"], planned["encoded_width"])
        try:
            mp4, record = self._members(clip)
            if (kinds := _kinds_in(record)) != clip.kinds:
                raise ValueError(f"it has captions {kinds}, and had {clip.kinds} when the run began")
            pixels = self._decoder().call(
                "pipelines.encode_frames:read_clip",
                io.BytesIO(mp4),
                shape,
                planned["encoded_fps"],
                deadline_s=DECODE_S,
            )
        # A decoder's error that cannot be sent between processes comes as a RuntimeError.
        except (BadInput, ChildFailed, FFmpegError, OSError, ValueError, RuntimeError) as error:
            raise self._damaged(clip, f"{type(error).__name__}: {error}") from error
        return {
            "clip_id": clip.clip_id,
            "json": record,
            "pixels": pixels.data.cast("B"),
            "fps": planned["encoded_fps"],
            **vars(shape),
            "error": None,
        }

    def _members(self, clip: ClipEntry) -> tuple[bytes, bytes]:
        """KEY.mp4 and KEY.json. They are neighbours in the tar: one read, which object stores want, gets both."""
        assert clip.text is not None
        places = (clip.latent, clip.text)
        start = min(at for at, _ in places)
        data = self._bytes(clip.shard, (start, max(at + size for at, size in places) - start))
        mp4, record = (data[at - start : at - start + size] for at, size in places)
        return mp4, record

    def _decoder(self) -> Isolated:
        """The process that decodes for this thread; it ends with the thread."""
        if not hasattr(self._decoders, "process"):
            self._decoders.process = Isolated(threads=1)
        process: Isolated = self._decoders.process
        return process

    def _damaged(self, clip: ClipEntry, why: str) -> DamagedClip:
        return DamagedClip(
            f"clip {clip.clip_id} in {self.root}/{clip.shard} cannot be used ({why}). Cut it again (`reelmill shard`), "
            "or decide against it."
        )


def _device(name: str) -> torch.device:
    """Where this process encodes: the GPU that it trains on, if any (train/ranks.py)."""
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _kinds(shards: Dataset, planned: list[tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """clip_id -> kinds of its captions, from the records alone; none of a clip whose record cannot be read.

    Raises BadInput where a store does not answer: ranks must not differ in what they know.
    """
    found = {}
    for first in range(0, len(planned), JSON_AT_ONCE):
        some = planned[first : first + JSON_AT_ONCE]
        for (_, clip), record in zip(some, _records(shards, some), strict=True):
            try:
                found[clip["clip_id"]] = _kinds_in(record)
            except ValueError:  # the clip is damaged, which is told when it is read
                found[clip["clip_id"]] = ()
    return found


def _records(shards: Dataset, some: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    """KEY.json of clips; empty of a tar that is not there."""
    records: dict[int, bytes] = {}
    for wait_s in (*READ_AGAIN_S, None):
        left = [number for number in range(len(some)) if number not in records]
        answers = shards.fs.cat_ranges(
            [shards.path("shards", some[number][0]) for number in left],
            [some[number][1]["json_offset"] for number in left],
            [some[number][1]["json_offset"] + some[number][1]["json_size"] for number in left],
            on_error="return",
        )
        failures = []
        for number, answer in zip(left, answers, strict=True):
            if isinstance(answer, FileNotFoundError):
                records[number] = b""
            elif isinstance(answer, Exception):
                failures.append((some[number][0], answer))
            else:
                records[number] = bytes(answer)
        if not failures:
            return [records[number] for number in range(len(some))]
        if wait_s is not None:
            time.sleep(wait_s)
    shard, error = failures[0]
    raise BadInput(
        f"the captions in {shards.path('shards', shard)} cannot be read: {type(error).__name__}: {error}. Try again "
        "when the store answers."
    ) from error


def _kinds_in(record: bytes) -> tuple[str, ...]:
    """Kinds of the captions in a KEY.json; ValueError if it is none."""
    return tuple(sorted(captions_of(json.loads(record))))
