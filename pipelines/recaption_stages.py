"""The stages of `reelmill recaption`: decode the frames of kept clips, caption them, commit the rows.

Stages know no scheduler: `list(run_in_process(items, [ReadFrames(...), WriteCaptions(...), ...]))`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import BadInput
from curate.isolate import ChildFailed, Isolated
from curate.sources import local_copy
from curate.stage import Resources
from curate.tables import CAPTIONS
from recaption.captioner import Captioner, CaptionRequest, CaptionResult
from recaption.plan import KeptClip, Recipe
from recaption.rows import ClipSpan, caption_row

_CLIP = [
    ("clip_id", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("height", pa.int32()),
    ("crop", pa.list_(pa.int32())),
    ("kinds", pa.list_(pa.string())),
]
WORK = pa.schema([("uri", pa.string()), ("clips", pa.list_(pa.struct(_CLIP)))])
FRAMES = pa.schema(
    [
        *_CLIP,
        ("times_s", pa.list_(pa.float64())),
        ("frames", pa.binary()),
        ("shape", pa.list_(pa.int32())),
        ("error", pa.string()),
    ]
)
CLIPS_PER_ITEM = 32
DEADLINE_S = 120.0


def work_items(wanted: list[tuple[KeptClip, list[str]]]) -> list[dict]:
    """Clips with the kinds still to make, together by source (in that order), at most 32 to an item."""
    items: list[dict] = []
    for uri, group in groupby(wanted, key=lambda pair: pair[0].uri):
        clips = [
            {
                "clip_id": clip.span.clip_id,
                "start_s": clip.span.start_s,
                "end_s": clip.span.end_s,
                "height": clip.height,
                "crop": None if clip.span.crop is None else list(clip.span.crop),
                "kinds": kinds,
            }
            for clip, kinds in group
        ]
        items += [
            {"uri": uri, "clips": clips[place : place + CLIPS_PER_ITEM]}
            for place in range(0, len(clips), CLIPS_PER_ITEM)
        ]
    return items


class ReadFrames:
    """Items of WORK to one row of FRAMES per clip: pictures at the planned times, inside the borders."""

    output = FRAMES

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.resources = Resources()

    def setup(self) -> None:
        self._child = Isolated(memory_gib=8.0)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [read for row in rows for read in self._source(row)]

    def _source(self, row: dict) -> list[dict]:
        try:
            with local_copy(row["uri"]) as path:
                return [self._clip(path, clip) for clip in row["clips"]]
        except (OSError, ValueError) as error:
            why = f"{row['uri']} could not be read: {type(error).__name__}: {error}"
            return [_without_frames(clip, why) for clip in row["clips"]]

    def _clip(self, path: str, clip: dict) -> dict:
        times = list(self.recipe.plans(_span(clip))[0].times_s)
        height = min(self.recipe.frame_height, clip["height"])
        try:
            frames, found = self._child.call(
                "pipelines.recaption_stages:read_pictures", path, times, height, deadline_s=DEADLINE_S
            )
        except (BadInput, ChildFailed, OSError, RuntimeError, MemoryError) as error:
            return _without_frames(clip, f"{type(error).__name__}: {error}")
        if not found:
            return _without_frames(clip, f"no frame could be decoded at {times} s")
        frames = crop_to(frames, clip["crop"], height / clip["height"])
        return clip | {
            "times_s": found,
            "frames": np.ascontiguousarray(frames).tobytes(),
            "shape": list(frames.shape),
            "error": None,
        }


def read_pictures(path: str, times_s: list[float], height: int) -> tuple[np.ndarray, list[float]]:
    """Frames (T, H, W, 3) uint8 RGB shown at `times_s`, and their PTS; runs in a process that can be killed."""
    from curate.frames import read_frames

    pictures, found = read_frames(path, times_s, height=height)
    return np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), np.uint8), found


def crop_to(frames: np.ndarray, crop: list[int] | None, scale: float) -> np.ndarray:
    """The part of frames (T, H, W, 3) that `crop` (x, y, w, h at full size) covers after scaling by `scale`."""
    if crop is None:
        return frames
    x, y, w, h = (round(side * scale) for side in crop)
    return frames[:, y : y + max(1, h), x : x + max(1, w)]


class WriteCaptions:
    """Rows of FRAMES to rows of the captions table, one per kind asked for."""

    output = CAPTIONS

    def __init__(
        self,
        load: Callable[[], Captioner],
        recipe: Recipe,
        run_id: str,
        *,
        gpus: float = 0.0,
        actors: int = 1,
        batch_clips: int = 16,
    ) -> None:
        """`load` makes the captioner, once per worker."""
        self.load = load
        self.recipe = recipe
        self.run_id = run_id
        self.resources = Resources(cpus=0, gpus=gpus, actors=actors, batch_rows=batch_clips)

    def setup(self) -> None:
        self._captioner = self.load()

    def __call__(self, rows: list[dict]) -> list[dict]:
        plans = {
            (row["clip_id"], plan.kind): (row, plan)
            for row in rows
            for plan in self.recipe.plans(_span(row))
            if plan.kind in row["kinds"]
        }
        requests = [
            CaptionRequest(
                clip_id=row["clip_id"],
                kind=plan.kind,
                frames=np.frombuffer(row["frames"], np.uint8).reshape(row["shape"]),
                frame_times_s=tuple(row["times_s"]),
                prompt=plan.prompt.text,
                seed=plan.seed,
            )
            for row, plan in plans.values()
            if row["error"] is None
        ]
        results = {(r.clip_id, r.kind): r for r in self._captioner.caption(requests)} if requests else {}
        done: list[dict[str, Any]] = []
        for (clip_id, kind), (row, plan) in plans.items():
            why = row["error"] or "the captioner returned no result for this clip"
            result = results.get((clip_id, kind)) or CaptionResult(clip_id, kind, "error", error=why)
            times = row["times_s"] or []
            done.append(caption_row(plan, result, frame_times_s=times, run_id=self.run_id))
        return done


class CommitCaptions:
    """The sink: caption rows become a part of the dataset in the worker; ids and states come back."""

    output = pa.schema([("caption_id", pa.string()), ("status", pa.string()), ("error", pa.string())])

    def __init__(self, dataset_uri: str, rows_per_part: int) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources(cpus=0.1, batch_rows=rows_per_part)

    def setup(self) -> None:
        from curate.dataset import Dataset

        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        from recaption.table import commit

        commit(self._dataset, rows)
        return [{name: row[name] for name in self.output.names} for row in rows]


def _span(clip: dict) -> ClipSpan:
    crop = None if clip["crop"] is None else tuple(clip["crop"])
    return ClipSpan(clip["clip_id"], clip["start_s"], clip["end_s"], crop)  # type: ignore[arg-type]


def _without_frames(clip: dict, why: str) -> dict:
    return clip | {"times_s": [], "frames": None, "shape": None, "error": why}
