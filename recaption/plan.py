"""Which captions a dataset should have: kept clips x kinds, as plans whose caption_id is known beforehand.

clips = kept_clips(dataset)
plans = recipe.plans(clips[0].span)          # one per kind
"""

from __future__ import annotations

from dataclasses import dataclass

from curate.dataset import Dataset
from recaption.captioner import CaptionerIdentity
from recaption.prompts import PromptTemplate
from recaption.rows import ClipSpan, Plan, plan_caption


@dataclass(frozen=True)
class KeptClip:
    """A clip that the decisions keep.

    Attributes:
        span: what captions are about.
        uri: the file that it is cut from.
        height: picture height in pixels as displayed.
        sidecar: the source's own caption, if it has one.
    """

    span: ClipSpan
    uri: str
    height: int
    sidecar: str | None


@dataclass(frozen=True)
class Recipe:
    """How captions are made; everything in it reaches the caption_id. Complete in itself: workers read no file.

    Attributes:
        identity: the captioner.
        prompts: captions wanted of each clip: kind -> what is asked.
        n_frames: frames per clip.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        seed: of the sampling.
    """

    identity: CaptionerIdentity
    prompts: dict[str, PromptTemplate]
    n_frames: int
    frame_height: int
    seed: int = 0

    def plans(self, clip: ClipSpan) -> list[Plan]:
        """One plan per kind."""
        return [
            plan_caption(
                clip,
                kind,
                self.identity,
                template.render(n_frames=self.n_frames, duration_s=clip.end_s - clip.start_s),
                n_frames=self.n_frames,
                frame_height=self.frame_height,
                seed=self.seed,
            )
            for kind, template in self.prompts.items()
        ]


def kept_clips(dataset: Dataset) -> list[KeptClip]:
    """Kept clips in order of their source and start. Raises BadInput if the dataset is not curated yet."""
    decisions = dataset.read("decisions", ["clip_id", "keep"])
    keep = {row["clip_id"] for row in decisions.to_pylist() if row["keep"]}
    sources = {
        row["source_id"]: row
        for row in dataset.read("sources", ["source_id", "uri", "caption", "duplicate_of"]).to_pylist()
        if row["source_id"] is not None and row["duplicate_of"] is None
    }
    columns = ["clip_id", "source_id", "start_s", "end_s", "height", "crop"]
    rows = [row for row in dataset.read("clips", columns).to_pylist() if row["clip_id"] in keep]
    rows.sort(key=lambda row: (sources[row["source_id"]]["uri"], row["start_s"], row["clip_id"]))
    return [
        KeptClip(
            ClipSpan(row["clip_id"], row["start_s"], row["end_s"], _crop(row["crop"])),
            sources[row["source_id"]]["uri"],
            row["height"],
            sources[row["source_id"]]["caption"],
        )
        for row in rows
    ]


def _crop(crop: dict | None) -> tuple[int, int, int, int] | None:
    return None if crop is None else (crop["x"], crop["y"], crop["w"], crop["h"])
