"""What a captioner is: requests in, exactly one result per request out, each bound to its `clip_id`.

    results = captioner.caption([CaptionRequest(clip_id="9f3c", kind="dense", frames=frames, ...), ...])
    by_key = {result.key: result for result in results}

A captioner never raises for a request: what went wrong is a result with its status and the full error text.
The place in the list decides nothing, so batches may complete in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["short", "dense", "structured", "rewrite", "merged"]
Key = tuple[str, str, int]
Status = Literal["ok", "truncated", "refused", "repetitive", "wrong_lang", "bad_json", "error"]
#: Largest count of a result; those of two answers are added up in a column of 32 bits.
COUNT_MAX = 2**30 - 1


@dataclass(frozen=True, eq=False)
class CaptionRequest:
    """One caption asked for.

    Attributes:
        clip_id: the clip; the result carries it back.
        kind: short, dense, structured, rewrite or merged.
        frames: (T, H, W, 3) uint8 RGB in order of time; T = 0 asks about the prompt's text alone.
        frame_times_s: PTS in seconds of the source of each frame.
        prompt: the rendered prompt; captioners that take no words choose by `kind`.
        seed: of the sampling, where the captioner samples.
        window: number of the window within the clip.
        schema: JSON schema of the answer, for backends with guided decoding; null asks for prose.
        temperature: of the sampling; null takes the captioner's own.
        lang: the language that the prompt asks for, ISO 639-1.
    """

    clip_id: str
    kind: str
    frames: np.ndarray
    frame_times_s: tuple[float, ...]
    prompt: str = ""
    seed: int = 0
    window: int = 0
    schema: dict[str, Any] | None = None
    temperature: float | None = None
    lang: str = "en"

    @property
    def key(self) -> Key:
        """(clip_id, kind, window): what binds a result to its request."""
        return self.clip_id, self.kind, self.window


@dataclass(frozen=True)
class CaptionResult:
    """What came back for one request.

    Whatever a backend puts in, a row of the captions table can hold what stands here: a value that it cannot hold
    becomes null, and the result an error that names it.

    Attributes:
        clip_id: that of the request.
        kind: that of the request.
        window: that of the request.
        status: ok, truncated (stopped by the length limit), refused, error, ...
        text_raw: what the captioner returned, unchanged but for halves of characters, which UTF-8 cannot hold and
            U+FFFD stands for; null if nothing came.
        error: full error text when status is error.
        finish_reason: why generation stopped, in the backend's words.
        tokens_in: prompt tokens, if the backend tells.
        tokens_out: generated tokens, if the backend tells.
        latency_ms: milliseconds from sending the request to its answer, retries included; of captions that are
            made in one batch, each has its share. Null if nobody was asked: the answer was kept in a cache.
        retries: tries after the first.
        cost_usd: what the answer cost in US dollars, if prices are configured.
    """

    clip_id: str
    kind: str
    status: Status
    text_raw: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency_ms: float | None = None
    retries: int = 0
    cost_usd: float | None = None
    window: int = 0

    def __post_init__(self) -> None:
        odd = []
        for name, fits in _FITS.items():
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, whole(value))
            if value is not None and not fits(value):
                odd.append(f"{name}={value!r:.200}")
                object.__setattr__(self, name, 0 if name == "retries" else None)
        if odd:
            why = f"the captioner returned what no row can hold: {whole(', '.join(odd))}"
            object.__setattr__(self, "status", "error")
            object.__setattr__(self, "error", f"{self.error}\n{why}" if self.error else why)

    @property
    def key(self) -> Key:
        """(clip_id, kind, window) of its request."""
        return self.clip_id, self.kind, self.window


def whole(text: str) -> str:
    """`text` with U+FFFD for each half of a character (a lone surrogate: an emoji that was cut in two)."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= COUNT_MAX


def _is_amount(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


_FITS = {
    **dict.fromkeys(("text_raw", "error", "finish_reason"), _is_text),
    **dict.fromkeys(("tokens_in", "tokens_out", "retries"), _is_count),
    **dict.fromkeys(("latency_ms", "cost_usd"), _is_amount),
}


@dataclass(frozen=True)
class CaptionerIdentity:
    """What a caption_id must know of the captioner: anything that may change its words.

    Attributes:
        captioner: the backend: coca, openai, ...
        model: the model's name, or a hash of its weights.
        revision: revision of the model, if it has one.
        sampling: temperature, length limit and the like.
        flags: remarks that every caption of it carries, such as world_captioner.
    """

    captioner: str
    model: str
    revision: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


class Captioner(Protocol):
    """A backend."""

    identity: CaptionerIdentity

    def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        """One result per request, in any order. Raises only when nothing can ever work (model missing)."""
        ...
