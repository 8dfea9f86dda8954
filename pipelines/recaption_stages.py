"""The stages of `reelmill recaption`: decode the frames of kept clips, caption them, commit the rows.

Stages know no scheduler: `list(run_in_process(items, [ReadFrames(...), WriteCaptions(...), ...]))`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
import pyarrow as pa

from curate.errors import BadInput
from curate.isolate import ChildFailed, Isolated
from curate.sources import local_copy
from curate.stage import Resources
from curate.tables import CAPTIONS
from pipelines.recaption_pictures import crop_to
from recaption.asking import Job, ask
from recaption.captioner import Captioner
from recaption.hints import ClipFacts
from recaption.plan import KeptClip, Recipe
from recaption.rows import ClipSpan, Plan

_CLIP = [
    ("clip_id", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("height", pa.int32()),
    ("crop", pa.list_(pa.int32())),
    ("camera", pa.string()),
    ("motion", pa.float64()),
    ("text_area", pa.float64()),
    ("wanted", pa.list_(pa.string())),
    ("texts", pa.map_(pa.string(), pa.string())),
    ("tries", pa.map_(pa.string(), pa.int32())),
]
_VIEW = [
    ("times_s", pa.list_(pa.float64())),
    ("frames", pa.large_binary()),  # one clip of many windows may exceed the 2 GiB of the small one
    ("shape", pa.list_(pa.int32())),
    ("error", pa.string()),
]
WORK = pa.schema([("uri", pa.string()), ("clips", pa.list_(pa.struct(_CLIP)))])
# read_bytes: size of the file that was taken for an item, with its first clip; 0 with the others.
FRAMES = pa.schema([*_CLIP, ("views", pa.list_(pa.struct(_VIEW))), ("read_bytes", pa.int64())])
COMMITTED = pa.schema([("caption_id", pa.string()), ("status", pa.string()), ("error", pa.string())])
CLIPS_PER_ITEM = 32
#: Most bytes of decoded pictures of an item, by plan: a worker holds those of one item.
BYTES_PER_ITEM = 256 << 20
DEADLINE_S = 120.0


def work_items(
    wanted: list[tuple[KeptClip, list[Plan]]],
    texts: Mapping[str, str] | None = None,
    loops: Mapping[str, int] | None = None,
) -> list[dict]:
    """Clips with the captions still to make, together by source (in that order).

    An item has at most CLIPS_PER_ITEM clips, and BYTES_PER_ITEM of pictures unless one clip alone has more.
    `texts`: caption_id -> text of captions that are there and that others are made from. `loops`: caption_id ->
    answers that fell into a loop in earlier runs.
    """
    items: list[dict] = []
    for uri, group in groupby(wanted, key=lambda pair: pair[0].uri):
        clips: list[dict] = []
        size = 0
        for clip, plans in group:
            more = picture_bytes(clip, plans)
            if not clips or len(clips) == CLIPS_PER_ITEM or size + more > BYTES_PER_ITEM:
                clips, size = [], 0
                items.append({"uri": uri, "clips": clips})
            clips.append(_clip_row(clip, plans, texts or {}, loops or {}))
            size += more
    return items


def picture_bytes(clip: KeptClip, plans: list[Plan]) -> int:
    """Bytes of the decoded pictures that `plans` need of a clip; keyframes are counted as if all were there."""
    total = 0
    for plan in views(plans):
        height = min(plan.frame_height, clip.height)
        width = height * (clip.width / clip.height if clip.width else 16 / 9)
        count = len(plan.times_s) if plan.keyframes is None else plan.keyframes + bool(plan.before)
        total += count * height * round(width) * 3
    return total


def _clip_row(clip: KeptClip, wanted: list[Plan], texts: Mapping[str, str], loops: Mapping[str, int]) -> dict:
    span = clip.span
    parents = {parent for plan in wanted for parent in plan.parents}
    return {
        "clip_id": span.clip_id,
        "start_s": span.start_s,
        "end_s": span.end_s,
        "height": clip.height,
        "crop": None if span.crop is None else list(span.crop),
        "camera": clip.facts.camera,
        "motion": clip.facts.motion,
        "text_area": clip.facts.text_area,
        "wanted": [plan.caption_id for plan in wanted],
        "texts": {parent: texts[parent] for parent in parents if parent in texts},
        "tries": {plan.caption_id: loops[plan.caption_id] for plan in wanted if plan.caption_id in loops},
    }


def _kept(row: dict, uri: str = "") -> KeptClip:
    crop = None if row["crop"] is None else tuple(row["crop"])
    span = ClipSpan(row["clip_id"], row["start_s"], row["end_s"], crop)  # type: ignore[arg-type]
    facts = ClipFacts(row["camera"], row["motion"], row["text_area"])
    return KeptClip(span, uri, row["height"], facts=facts)


def plans_wanted(recipe: Recipe, row: dict) -> list[Plan]:
    """The plans of a clip whose captions are still to be made."""
    wanted = set(row["wanted"])
    return [plan for plan in recipe.plans(_kept(row)) if plan.caption_id in wanted]


def views(plans: list[Plan]) -> list[Plan]:
    """One plan for each different set of frames that `plans` need, in order."""
    return list({_view(plan): plan for plan in reversed(plans) if plan.times_s}.values())[::-1]


def _view(plan: Plan) -> tuple:
    return plan.times_s, plan.keyframes, plan.span


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
        clips = [_with_dicts(clip) | {"read_bytes": 0} for clip in row["clips"]]
        needed = [views(plans_wanted(self.recipe, clip)) for clip in clips]
        if not any(needed):  # captions made from text: the file is not even fetched
            return [clip | {"views": []} for clip in clips]
        try:
            with local_copy(row["uri"]) as path:
                clips[0]["read_bytes"] = os.path.getsize(path)
                return [
                    clip | {"views": [self._view(path, clip, plan) for plan in plans]}
                    for clip, plans in zip(clips, needed, strict=True)
                ]
        except (OSError, ValueError) as error:
            why = f"{row['uri']} could not be read: {type(error).__name__}: {error}"
            return [
                clip | {"views": [_no_view(why) for _ in plans]}
                for clip, plans in zip(clips, needed, strict=True)
            ]

    def _view(self, path: str, clip: dict, plan: Plan) -> dict:
        times = list(plan.times_s)
        height = min(self.recipe.frame_height, clip["height"])
        between = plan.span or (clip["start_s"], clip["end_s"])
        try:
            frames, found = self._child.call(
                "pipelines.recaption_pictures:read_pictures",
                path,
                times,
                height,
                (between, plan.before, plan.keyframes) if plan.keyframes else None,
                deadline_s=DEADLINE_S,
            )
        except (BadInput, ChildFailed, OSError, RuntimeError, MemoryError) as error:
            return _no_view(f"{type(error).__name__}: {error}")
        if not found:
            return _no_view(f"no frame could be decoded at {times} s")
        frames = crop_to(frames, clip["crop"], height / clip["height"])
        return {
            "times_s": found,
            "frames": np.ascontiguousarray(frames).tobytes(),
            "shape": list(frames.shape),
            "error": None,
        }


def _with_dicts(clip: dict) -> dict:
    """Arrow hands out maps as lists of pairs."""
    return clip | {name: dict(clip[name]) for name in ("texts", "tries")}


def _no_view(why: str) -> dict:
    return {"times_s": [], "frames": None, "shape": None, "error": why}


class WriteCaptions:
    """Rows of FRAMES to rows of the captions table, one per caption asked for."""

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
        threads: int = 1,
    ) -> None:
        """`load` makes the captioner, once per worker; with `threads` it is asked by so many at once."""
        self.load = load
        self.recipe = recipe
        self.run_id = run_id
        self.resources = Resources(cpus=0, gpus=gpus, actors=actors, batch_rows=batch_clips, threads=threads)

    def setup(self) -> None:
        self._captioner = self.load()

    def __call__(self, rows: list[dict]) -> list[dict]:
        jobs = [job for row in rows for job in jobs_of(self.recipe, row)]
        texts = {key: text for row in rows for key, text in dict(row["texts"]).items()}
        return ask(self._captioner, jobs, texts, self.run_id)


def jobs_of(recipe: Recipe, row: dict) -> list[Job]:
    """The captions to make of a row of FRAMES, each with its frames."""
    plans, tries = plans_wanted(recipe, row), dict(row["tries"])
    there = {_view(plan): view for plan, view in zip(views(plans), row["views"], strict=True)}
    jobs = []
    for plan in plans:
        view = there.get(_view(plan))
        if view is None:  # made from text
            jobs.append(Job(plan, tries=tries.get(plan.caption_id, 0)))
        elif view["error"] is not None:
            jobs.append(Job(plan, error=view["error"]))
        else:
            frames = np.frombuffer(view["frames"], np.uint8).reshape(view["shape"])
            times = tuple(view["times_s"])
            jobs.append(Job(plan, frames, times, tries=tries.get(plan.caption_id, 0)))
    return jobs


class CommitCaptions:
    """The sink: caption rows become a part of the dataset in the worker; ids and states come back."""

    output = COMMITTED

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
