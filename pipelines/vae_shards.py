"""What the VAE learns from in a dataset: crops out of the clips of its WebDataset shards, decoded on the fly.

    shards = ShardCrops("films.reel", CropConfig(), batch=8, seed=0)
    shards(120)                            # the clips of step 120, the same ones each time
    shards.validation(48), shards.typical(100)

Clips are read by byte range out of the tars, so that no step reads what it does not use. Which clips a step shows,
and where it cuts them in space and time, is a function of the shards, the seed and the step.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines.captioner_examples import held_out
from pipelines.clip_frames import nearest_frames
from pipelines.vae_windows import CropConfig, Span, Window, draw_window, frames_at, middle_window

if TYPE_CHECKING:
    from torch import Tensor

    from train.vae_batches import Clips

#: So many clips in a row that cannot be decoded are no accident.
MOST_FAILURES = 16

log = logging.getLogger(__name__)


class ShardCrops:
    """The clips of each step; call it with the number of the step.

    Attributes:
        learnt: clips that training shows.
        kept_back: clips of the sources held out.
        failed: clip_id -> why it could not be decoded, of those met so far.
    """

    def __init__(self, uri: str, config: CropConfig, *, batch: int, seed: int) -> None:
        """Raises BadInput where there are no shards, or nothing to learn from."""
        self.config, self.batch, self.seed = config, batch, seed
        self._dataset = Dataset(uri)
        columns = ["clip_id", "shard", "mp4_offset", "mp4_size", "width", "height", "fps", "n_frames"]
        rows = [row for row in self._dataset.read("shards", columns).to_pylist() if row["shard"] is not None]
        spans = [Span(*row.values()) for row in sorted(rows, key=lambda row: row["clip_id"])]
        kept_back = held_out(self._sources(spans), config.held_out)
        self.learnt = [span for span in spans if span.clip_id not in kept_back]
        self.kept_back = [span for span in spans if span.clip_id in kept_back]
        # A clip is read at as high a rate as it needs, so that also short ones have frames enough.
        self._videos = [span for span in self.learnt if frames_at(span, config.fps[1]) >= config.frames]
        self.failed: dict[str, str] = {}
        if not self.learnt or (config.image_share < 1.0 and not self._videos):
            raise BadInput(
                f"{uri} has {len(spans)} clips in its shards, {len(self.learnt)} of them to learn from and "
                f"{len(self._videos)} with {config.frames} frames at {config.fps[1]} frames/s. Lower --crops.frames, "
                "raise --crops.fps, or learn from pictures alone: --crops.image_share=1."
            )
        if config.held_out > 0 and not self.kept_back:
            raise BadInput(
                f"{uri} has {len(spans)} clips of a single source, and none of them falls to the share held out for "
                f"validation: raise --crops.held_out from {config.held_out}, or set it to 0 for no validation."
            )

    def about(self) -> dict[str, Any]:
        """What decides which crops a number stands for."""
        clips = hashlib.blake2b(digest_size=8)
        for span in self.learnt:
            clips.update(f"{span.clip_id}:{span.n_frames};".encode())
        return {"crops": asdict(self.config), "batch": self.batch, "clips": clips.hexdigest()}

    def told(self) -> str:
        """What is learnt from, in a line."""
        return (
            f"learning from {len(self.learnt)} clips, {len(self._videos)} of them with {self.config.frames} frames; "
            f"{len(self.kept_back)} held out"
        )

    def __call__(self, number: int) -> Clips:
        """The crops of batch `number`. A clip that cannot be decoded is passed over.

        Raises BadInput if many in a row fail.
        """
        import torch

        from train.vae_batches import Clips

        rng = np.random.default_rng((self.seed, number))
        is_pictures = rng.random() < self.config.image_share
        spans = self.learnt if is_pictures else self._videos
        count = self.batch * (4 if is_pictures else 1)
        crops, names, failures = list[np.ndarray](), list[str](), 0
        while len(crops) < count:
            span = spans[rng.integers(len(spans))]
            window = draw_window(span, self.config, rng, frames=1 if is_pictures else self.config.frames)
            found = self._read(span, window)
            if found is None:
                failures += 1
                if failures == MOST_FAILURES:
                    raise BadInput(
                        f"batch {number}: {failures} clips in a row could not be decoded, the last one {span.clip_id} "
                        f"in {span.shard} ({self.failed[span.clip_id]}). Make the shards again: `reelmill shard`."
                    )
                continue
            failures = 0
            crops.append(found)
            names.append(f"{span.clip_id} at {window.start_s:.2f} s")
        return Clips(torch.from_numpy(np.stack(crops)), tuple(names))

    def validation(self, clips: int) -> list[Tensor]:
        """The middle of so many clips held out, whole pictures at half of the largest size and the highest rate."""
        return list(self._middles(self.kept_back, clips))

    def typical(self, clips: int) -> Iterator[Tensor]:
        """The same of clips learnt from, for the statistics of the latents."""
        order = np.random.default_rng(self.seed).permutation(len(self.learnt))
        yield from self._middles([self.learnt[i] for i in order], clips)

    def _middles(self, spans: list[Span], clips: int) -> Iterator[Tensor]:
        import torch

        found = 0
        for span in spans:
            if found == clips:
                return
            frames = max(1, min(self.config.frames, frames_at(span, self.config.fps[1])))
            video = self._read(span, middle_window(span, self.config, frames))
            if video is not None:
                found += 1
                yield torch.from_numpy(video[None])

    def _read(self, span: Span, window: Window) -> np.ndarray | None:
        """The window of a clip, or None if it cannot be decoded, which is told once."""
        place, end = span.shard.split("/"), span.offset + span.size
        try:
            return read_window(self._dataset.read_bytes("shards", *place, start=span.offset, end=end), window)
        except (BadInput, OSError, ValueError) as error:  # PyAV's errors are OSErrors or ValueErrors
            if span.clip_id not in self.failed:
                self.failed[span.clip_id] = f"{type(error).__name__}: {error}"
                log.warning("clip %s in %s is left out: %s", span.clip_id, span.shard, error)
            return None

    def _sources(self, spans: list[Span]) -> dict[str, str]:
        """clip_id -> source_id; a dataset without a clips table is taken for one source."""
        if not self._dataset.has("clips"):
            return {span.clip_id: "" for span in spans}
        table = self._dataset.read("clips", ["clip_id", "source_id"]).to_pylist()
        source_of = {row["clip_id"]: row["source_id"] for row in table}
        return {span.clip_id: source_of.get(span.clip_id, "") for span in spans}


def read_window(mp4: bytes, window: Window) -> np.ndarray:
    """The frames of a window, (T, H, W, 3) uint8 RGB.

    Raises BadInput, OSError or ValueError when they cannot be decoded.
    """
    width, height = window.crop
    frames = [
        frame.picture(height=window.height, width=window.width)[
            window.y : window.y + height, window.x : window.x + width
        ]
        for frame in nearest_frames(io.BytesIO(mp4), window.frames, window.fps, window.start_s)
    ]
    return np.stack(frames)
