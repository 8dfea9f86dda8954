"""Which captions a dataset should have: kept clips x windows x kinds, as plans whose caption_id is known beforehand.

clips = kept_clips(dataset)
plans = recipe.plans(clips[0])       # one per kind; of a long clip one per window, and their merging
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from curate.dataset import Dataset
from recaption.captioner import CaptionerIdentity
from recaption.hints import FACTS, ClipFacts, camera_words, hints, suffix
from recaption.moments import FrameChoice, windows
from recaption.prompts import CAPTIONS_HERE, PromptTemplate
from recaption.rows import ClipSpan, Plan

#: Kinds made from the text of other captions, without frames.
FROM_TEXT = ("merged", "rewrite")
FactsUse = Literal["none", "hint", "suffix", "both"]


@dataclass(frozen=True)
class KeptClip:
    """A clip that the decisions keep.

    Attributes:
        span: what captions are about.
        uri: the file that it is cut from.
        height: picture height in pixels as displayed.
        sidecar: the source's own caption, if it has one.
        facts: what was measured.
        width: picture width in pixels as displayed, if known.
    """

    span: ClipSpan
    uri: str
    height: int
    sidecar: str | None = None
    facts: ClipFacts = field(default_factory=ClipFacts)
    width: int | None = None


@dataclass(frozen=True)
class Recipe:
    """How captions are made; what changes their words reaches the caption_id. Workers need nothing else.

    Attributes:
        identity: the captioner.
        prompts: captions wanted of each clip: kind -> what is asked. For clips in windows also `window` (what is
            asked of a window after the first) and `merged`.
        frames: which frames are shown.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        seed: of the sampling.
        window_s: dense captions of longer clips are made in windows of at most this length, then merged; null
            takes every clip whole.
        facts: whether measured camera, motion and text are hints in the prompt, a suffix of the caption, or both.
        lang: the language that the prompts ask for, ISO 639-1.
    """

    identity: CaptionerIdentity
    prompts: dict[str, PromptTemplate]
    frames: FrameChoice
    frame_height: int
    seed: int = 0
    window_s: float | None = None
    facts: FactsUse = "hint"
    lang: str = "en"

    def plans(self, clip: KeptClip) -> list[Plan]:
        """Every caption of the clip; those made from others' text come after them."""
        found = []
        for kind, template in self.prompts.items():
            if kind == "dense":
                found += self._dense(clip, template)
            elif kind in ("short", "structured"):
                found.append(self._from_frames(clip, kind, template))
        if "rewrite" in self.prompts:
            whole = [plan for plan in found if plan.kind == "merged"] or [
                p for p in found if p.kind == "dense"
            ]
            found.append(self._from_text(clip, "rewrite", whole[:1]))
        return found

    def _dense(self, clip: KeptClip, template: PromptTemplate) -> list[Plan]:
        spans = windows(clip.span.start_s, clip.span.end_s, self.window_s)
        if len(spans) == 1:
            return [self._from_frames(clip, "dense", template)]
        parts = [
            self._from_frames(clip, "dense", self.prompts["window"] if number else template, number, spans)
            for number in range(len(spans))
        ]
        return [*parts, self._from_text(clip, "merged", parts)]

    def _from_frames(
        self,
        clip: KeptClip,
        kind: str,
        template: PromptTemplate,
        number: int = 0,
        spans: list[tuple[float, float]] | None = None,
    ) -> Plan:
        start_s, end_s = spans[number] if spans else (clip.span.start_s, clip.span.end_s)
        times = self.frames.times(start_s, end_s)
        before = spans[number - 1] if spans and number else None
        if before:  # where that window stopped
            times = (self.frames.times(*before)[-1], *times)
        by_key = self.frames.by == "keyframe"
        prompt = template.render(
            n_frames=None if by_key else len(times),
            duration_s=end_s - start_s,
            facts=self._hints(clip, template, end_s - start_s),
            window=number + 1,
            n_windows=len(spans or [0]),
        )
        return Plan(
            clip.span,
            kind,
            self.identity,
            prompt,
            times,
            self.frame_height,
            self.seed,
            window=number,
            span=(start_s, end_s) if spans else None,
            before=before,
            keyframes=self.frames.most if by_key else None,
            suffix="" if spans else self._suffix(clip),
            camera=camera_words(clip.facts, self.lang),
            lang=self.lang,
        )

    def _from_text(self, clip: KeptClip, kind: str, parents: list[Plan]) -> Plan:
        template = self.prompts[kind]
        duration_s = clip.span.end_s - clip.span.start_s
        prompt = template.render(
            n_frames=0,
            duration_s=duration_s,
            facts=self._hints(clip, template, duration_s),
            n_windows=len(parents),
            captions=CAPTIONS_HERE,
        )
        return Plan(
            clip.span,
            kind,
            self.identity,
            prompt,
            (),
            self.frame_height,
            self.seed,
            parents=tuple(parent.caption_id for parent in parents),
            suffix=self._suffix(clip),
            lang=self.lang,
        )

    def _hints(self, clip: KeptClip, template: PromptTemplate, duration_s: float) -> str:
        if self.facts not in ("hint", "both"):
            return ""
        return hints(clip.facts, duration_s=None if template.tells_duration else duration_s)

    def _suffix(self, clip: KeptClip) -> str:
        return suffix(clip.facts) if self.facts in ("suffix", "both") else ""


def kept_clips(dataset: Dataset) -> list[KeptClip]:
    """Kept clips in order of their source and start. Raises BadInput if the dataset is not curated yet."""
    decisions = dataset.read("decisions", ["clip_id", "keep"])
    keep = {row["clip_id"] for row in decisions.to_pylist() if row["keep"]}
    sources = {
        row["source_id"]: row
        for row in dataset.read("sources", ["source_id", "uri", "caption", "duplicate_of"]).to_pylist()
        if row["source_id"] is not None and row["duplicate_of"] is None
    }
    columns = ["clip_id", "source_id", "start_s", "end_s", "width", "height", "crop", *FACTS]
    rows = [row for row in dataset.read("clips", columns).to_pylist() if row["clip_id"] in keep]
    rows.sort(key=lambda row: (sources[row["source_id"]]["uri"], row["start_s"], row["clip_id"]))
    return [
        KeptClip(
            ClipSpan(row["clip_id"], row["start_s"], row["end_s"], _crop(row["crop"])),
            sources[row["source_id"]]["uri"],
            row["height"],
            sources[row["source_id"]]["caption"],
            ClipFacts(*(row[name] for name in FACTS)),
            row["width"],
        )
        for row in rows
    ]


def _crop(crop: dict | None) -> tuple[int, int, int, int] | None:
    return None if crop is None else (crop["x"], crop["y"], crop["w"], crop["h"])
