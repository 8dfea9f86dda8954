"""From a plan to a row of the captions table: what is asked, its identity, and what came back.

    plan = plan_caption(clip, "dense", identity, n_frames=8, frame_height=144, seed=0)
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

from curate.frames import even_times
from curate.tables import CAPTIONS
from recaption.captioner import CaptionerIdentity, CaptionResult
from recaption.clean import CLEANER_VERSION, clean, normalise
from recaption.prompts import Prompt

USABLE = ("ok", "truncated")


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
        kind: short or dense.
        identity: who makes it.
        prompt: what is asked.
        times_s: the moments asked for, in seconds of the source, ascending.
        frame_height: largest height of a frame in pixels.
        seed: of the sampling.
    """

    clip: ClipSpan
    kind: str
    identity: CaptionerIdentity
    prompt: Prompt
    times_s: tuple[float, ...]
    frame_height: int
    seed: int

    @property
    def caption_id(self) -> str:
        """32 hex digits of the hash of everything that produces the caption."""
        return _hash(
            [
                asdict(self.clip),
                self.kind,
                [
                    self.identity.captioner,
                    self.identity.model,
                    self.identity.revision,
                    self.identity.sampling,
                ],
                self.prompt.text,
                [round(t, 6) for t in self.times_s],
                self.frame_height,
                self.seed,
            ]
        )


def plan_caption(
    clip: ClipSpan,
    kind: str,
    identity: CaptionerIdentity,
    prompt: Prompt,
    *,
    n_frames: int,
    frame_height: int,
    seed: int,
) -> Plan:
    """Plan a caption of the whole clip (one window) from `n_frames` frames at the centres of equal parts."""
    times = tuple(even_times(clip.start_s, clip.end_s, n_frames))
    return Plan(clip, kind, identity, prompt, times, frame_height, seed)


def caption_row(
    plan: Plan, result: CaptionResult, *, frame_times_s: list[float], run_id: str
) -> dict[str, Any]:
    """A row of `curate.tables.CAPTIONS`. Raises ValueError if `result` belongs to another clip or kind."""
    if (result.clip_id, result.kind) != (plan.clip.clip_id, plan.kind):
        raise ValueError(
            f"result of {result.clip_id}/{result.kind} offered for {plan.clip.clip_id}/{plan.kind}: "
            "a caption must not move to another clip"
        )
    text, status, error, flags = None, result.status, result.error, list(plan.identity.flags)
    if result.status in USABLE:
        cleaned = clean(result.text_raw or "", truncated=result.status == "truncated")
        text, status, error = cleaned.text, cleaned.status, cleaned.error  # type: ignore[assignment]
        flags += cleaned.flags
    return _row(
        caption_id=plan.caption_id,
        clip_id=plan.clip.clip_id,
        start_s=plan.clip.start_s,
        end_s=plan.clip.end_s,
        frame_times_s=list(frame_times_s),
        kind=plan.kind,
        lang="en",
        text=text,
        text_raw=result.text_raw,
        status=status,
        error=error,
        flags=flags,
        captioner=plan.identity.captioner,
        model=plan.identity.model,
        revision=plan.identity.revision,
        prompt_id=plan.prompt.prompt_id,
        prompt_hash=plan.prompt.prompt_hash,
        sampling=json.dumps(plan.identity.sampling, sort_keys=True),
        seed=plan.seed,
        n_frames=len(frame_times_s),
        tokens_in=result.tokens_in,
        tokens_out=result.tokens_out,
        latency_ms=result.latency_ms,
        retries=result.retries,
        run_id=run_id,
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
