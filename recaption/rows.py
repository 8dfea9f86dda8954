"""From a plan to a row of the captions table: what is asked, its identity, and what came back.

    plan = Plan(clip, "dense", identity, prompt, times_s=(0.25, 0.75), frame_height=144, seed=0)
    plan.caption_id                      # known before anything is decoded or generated
    row = caption_row(plan, result, frame_times_s=times, run_id=run_id)

The identity of a caption covers everything that may change its words: the clip's content and picture area, the
window, the frame times asked for, the prompt as rendered, the model and its revision, the sampling, the seed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from curate.tables import CAPTIONS
from recaption.captioner import CaptionerIdentity, CaptionResult, Key
from recaption.cleaning.clean import CLEANER_VERSION, normalise
from recaption.prompts import Prompt
from recaption.reading import PART, USABLE, read


@dataclass(frozen=True)
class ClipSpan:
    """The clip that a caption is about.

    Attributes:
        clip_id: identity of its content: source and span.
        start_s: first PTS in seconds of the source.
        end_s: end (exclusive) in seconds of the source.
        crop: (x, y, w, h) in pixels as displayed, the picture inside its borders; null is the whole picture.
    """

    clip_id: str
    start_s: float
    end_s: float
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """One caption to be made.

    Attributes:
        clip: what it is about.
        kind: short, dense, structured, merged or rewrite.
        identity: who makes it.
        prompt: what is asked; with `$captions` where the texts of `parents` will stand.
        times_s: the moments asked for, in seconds of the source, ascending; none for a caption made from text.
        frame_height: largest height of a frame in pixels.
        seed: of the sampling.
        window: number of the window within the clip.
        span: start and end of the window in seconds of the source; null is the whole clip.
        before: start and end of the window before it, whose last moment is the first of `times_s`.
        keyframes: at most this many keyframes of the span are taken, `times_s` only where it has none.
        parents: caption_ids of the captions that it is made from.
        suffix: measured facts to put behind the cleaned text; not part of the identity.
        camera: the measured camera, in words, that takes the captioner's place in a structured caption.
        lang: the language asked for, ISO 639-1.
    """

    clip: ClipSpan
    kind: str
    identity: CaptionerIdentity
    prompt: Prompt
    times_s: tuple[float, ...]
    frame_height: int
    seed: int
    window: int = 0
    span: tuple[float, float] | None = None
    before: tuple[float, float] | None = None
    keyframes: int | None = None
    parents: tuple[str, ...] = ()
    suffix: str = ""
    camera: str | None = None
    lang: str = "en"

    @property
    def caption_id(self) -> str:
        """32 hex digits of the hash of everything that produces the caption."""
        parts: list[Any] = [
            asdict(self.clip),
            self.kind,
            [self.identity.captioner, self.identity.model, self.identity.revision, self.identity.sampling],
            self.prompt.text,
            [round(t, 6) for t in self.times_s],
            self.frame_height,
            self.seed,
        ]
        # Captions that asked for keyframes before any was found were made of other frames: "index" parts them.
        keyframes = None if self.keyframes is None else ["index", self.keyframes]
        further = [self.window, self.span, keyframes, self.parents]
        # What most captions lack stays out of their hash: ids made before windows existed still hold.
        if further != [0, None, None, ()]:
            parts.append(further)
        if self.lang != "en":
            parts.append({"lang": self.lang})
        return _hash(parts)

    @property
    def key(self) -> Key:
        """(clip_id, kind, window), as in requests and results."""
        return self.clip.clip_id, self.kind, self.window

    @property
    def temperature(self) -> float:
        """Of the sampling; 0 is greedy."""
        return float(self.identity.sampling.get("temperature", 0.0))


def caption_row(
    plan: Plan,
    result: CaptionResult,
    *,
    frame_times_s: list[float],
    run_id: str,
    prompt: Prompt | None = None,
    seed: int | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """A row of `curate.tables.CAPTIONS`. Raises ValueError if `result` belongs to another clip, kind or window.

    `prompt`, `seed` and `temperature` are those really used, where they are not the plan's.
    """
    if result.key != plan.key:
        raise ValueError(
            f"result of {'/'.join(map(str, result.key))} offered for {'/'.join(map(str, plan.key))}: "
            "a caption must not move to another clip"
        )
    prompt = prompt or plan.prompt
    sampling = plan.identity.sampling | ({} if temperature is None else {"temperature": temperature})
    start_s, end_s = plan.span or (plan.clip.start_s, plan.clip.end_s)
    return _row(
        caption_id=plan.caption_id,
        clip_id=plan.clip.clip_id,
        window=plan.window,
        start_s=start_s,
        end_s=end_s,
        frame_times_s=list(frame_times_s),
        kind=plan.kind,
        lang=plan.lang,
        text_raw=result.text_raw,
        parent_id=plan.parents[0] if plan.parents else None,
        parent_ids=list(plan.parents) or None,
        captioner=plan.identity.captioner,
        model=plan.identity.model,
        revision=plan.identity.revision,
        prompt_id=prompt.prompt_id,
        prompt_hash=prompt.prompt_hash,
        sampling=json.dumps(sampling, sort_keys=True),
        seed=plan.seed if seed is None else seed,
        n_frames=len(frame_times_s),
        tokens_in=result.tokens_in,
        tokens_out=result.tokens_out,
        latency_ms=result.latency_ms,
        retries=result.retries,
        cost_usd=result.cost_usd,
        finish_reason=result.finish_reason,
        run_id=run_id,
        **_reading(plan, result),
    )


def _reading(plan: Plan, result: CaptionResult) -> dict[str, Any]:
    """text, structured, status, error and flags: what the raw answer comes to.

    What the captioner itself gave up is not cleaned, by no version of the rules: half a sentence before a content
    filter is no caption. Such rows have no `cleaner_version`.
    """
    flags = list(plan.identity.flags) + ([PART] if plan.span else [])
    if result.status not in USABLE:
        return {
            "status": result.status,
            "error": result.error,
            "flags": flags,
            "cleaner_version": None,
        }
    return read(
        plan.kind,
        result.text_raw or "",
        flags,
        truncated=result.status == "truncated",
        camera=plan.camera,
        suffix=plan.suffix,
        lang=plan.lang,
    )


def sidecar_row(clip: ClipSpan, caption: str, *, run_id: str) -> dict[str, Any]:
    """The `original` caption of a clip: that of its source's sidecar file, word for word."""
    text = " ".join(normalise(caption).split())
    return _row(
        caption_id=_hash([clip.clip_id, "original", "sidecar", caption]),
        clip_id=clip.clip_id,
        start_s=clip.start_s,
        end_s=clip.end_s,
        frame_times_s=[],
        kind="original",
        text=text or None,
        text_raw=caption,
        status="ok" if text else "error",
        error=None if text else "the sidecar's caption is empty",
        flags=[],
        captioner="sidecar",
        n_frames=0,
        retries=0,
        run_id=run_id,
    )


def _row(**values: Any) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    always = {"window": 0, "cleaner_version": CLEANER_VERSION, "created_at": now}
    return dict.fromkeys(CAPTIONS.names) | always | values


def _hash(parts: list[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
