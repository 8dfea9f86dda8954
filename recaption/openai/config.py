"""Settings of the `openai` backend, apart from its code: `--help` reads this without loading an HTTP client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from curate.errors import BadInput
from recaption.captioner import CaptionerIdentity

FramesAs = Literal["image_url", "video_jpeg", "video_mp4"]
#: Fields of a request that `extra` cannot change, and those that it can only take away.
FIXED = ("model", "messages", "stream", "n")
SET_ELSEWHERE = ("max_tokens", "temperature", "seed", "response_format")


@dataclass(frozen=True)
class RateLimits:
    """How often all workers together ask at most; each has an equal share. Null sets no limit.

    Attributes:
        requests_per_minute: most requests, retries included; they are spread evenly over the minute.
        tokens_per_minute: most tokens of prompts and answers together, estimated before and corrected after.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        _positive(
            "limits", requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute
        )

    def share(self, workers: int) -> RateLimits:
        """The limits of one of so many workers."""
        return RateLimits(
            _part(self.requests_per_minute, workers),
            _part(self.tokens_per_minute, workers),
        )


@dataclass(frozen=True)
class Budget:
    """What a run may use up; then no further request is sent and the rest of the rows say so. Null is no limit.

    Each worker has an equal share, and a worker that is started again has it anew.

    Attributes:
        max_tokens_total: tokens of prompts and answers together.
        max_cost_usd: US dollars; needs both prices.
        usd_per_million_in: price of a million prompt tokens; with it and the next, rows tell what they cost.
        usd_per_million_out: price of a million generated tokens.
    """

    max_tokens_total: int | None = None
    max_cost_usd: float | None = None
    usd_per_million_in: float | None = None
    usd_per_million_out: float | None = None

    def __post_init__(self) -> None:
        _positive("budget", max_tokens_total=self.max_tokens_total, max_cost_usd=self.max_cost_usd)
        prices = (self.usd_per_million_in, self.usd_per_million_out)
        if any(price is not None and not price >= 0 for price in prices):
            raise BadInput(
                "openai.budget: a price (usd_per_million_in, usd_per_million_out) must not be negative."
            )
        if (prices[0] is None) != (prices[1] is None) or (
            self.max_cost_usd is not None and prices[0] is None
        ):
            raise BadInput(
                "openai.budget counts dollars by two prices: give both usd_per_million_in and usd_per_million_out."
            )

    @property
    def is_limited(self) -> bool:
        """False if there are prices at most."""
        return self.max_tokens_total is not None or self.max_cost_usd is not None

    def share(self, workers: int) -> Budget:
        """The budget of one of so many workers."""
        tokens = self.max_tokens_total
        return replace(
            self,
            max_tokens_total=None if tokens is None else max(1, tokens // workers),
            max_cost_usd=_part(self.max_cost_usd, workers),
        )


@dataclass(frozen=True)
class Breaker:
    """When the server seems to be down, all requests wait and one at a time tries it.

    Attributes:
        failures: requests that must fail in a row (no connection, no answer, 5xx) for that.
        pause_s: pause before the first trial, in seconds; doubles up to backoff_max_s.
    """

    failures: int = 10
    pause_s: float = 5.0

    def __post_init__(self) -> None:
        _positive("breaker", failures=self.failures, pause_s=self.pause_s)


@dataclass(frozen=True)
class OpenAIConfig:
    """Where the server is and how it is asked. The key comes from REELMILL_API_KEY or OPENAI_API_KEY alone.

    Attributes:
        base_url: address up to and with /v1.
        model: the model's name, as the server knows it.
        revision: revision of that model; part of a caption's identity.
        in_flight: most requests at once, over all batches of a worker.
        timeout_s: longest silence of the server while an answer is awaited, in seconds.
        connect_timeout_s: longest wait for a connection, in seconds.
        deadline_s: longest time for one caption with all its tries and pauses, in seconds; waiting for the rate
            limit or the budget does not count. A server that is down or busy (429) for so long, or that asks to be
            left alone for longer, fails the rows that follow.
        retries: most tries after the first; what a server refuses that is busy (429) or down is not counted.
        backoff_s: pause before the first retry; doubles each time, with jitter.
        backoff_max_s: longest pause of our own choice; what Retry-After asks for is waited in full, by everyone.
        max_tokens: longest answer in tokens.
        temperature: of the sampling; 0 takes the likeliest token.
        frames: frames sent of each clip.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        frames_as: image_url sends one JPEG per frame, which every server takes; video_jpeg sends them as one
            video_url (vLLM alone; it drops frames after the 32nd unless it was started with a higher
            --media-io-kwargs num_frames); video_mp4 sends one video_url with an H.264 file (vLLM, SGLang).
        jpeg_quality: of the frames sent, 1 to 100.
        extra: fields to add to the body of every request, and with null fields to leave out, where a model asks for
            it: {max_tokens: null, max_completion_tokens: 2048, temperature: null} or
            {chat_template_kwargs: {enable_thinking: false}}. Part of a caption's identity.
        cache: folder or URI that keeps every good answer under a hash of its request, so that none is paid twice;
            null keeps none.
        limits: how often the server is asked.
        budget: how many tokens and dollars may be used.
        breaker: what happens while the server is down.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    revision: str | None = None
    in_flight: int = 16
    timeout_s: float = 120.0
    connect_timeout_s: float = 10.0
    deadline_s: float = 600.0
    retries: int = 5
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    max_tokens: int = 512
    temperature: float = 0.0
    frames: int = 8
    frame_height: int = 480
    frames_as: FramesAs = "image_url"
    jpeg_quality: int = 90
    extra: dict[str, Any] = field(default_factory=dict)
    cache: str | None = None
    limits: RateLimits = field(default_factory=RateLimits)
    budget: Budget = field(default_factory=Budget)
    breaker: Breaker = field(default_factory=Breaker)

    def __post_init__(self) -> None:
        _positive(
            None,
            in_flight=self.in_flight,
            timeout_s=self.timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            deadline_s=self.deadline_s,
            max_tokens=self.max_tokens,
            frames=self.frames,
            frame_height=self.frame_height,
        )
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise BadInput(
                f"openai.base_url={self.base_url!r} is no address: write it as http://HOST:PORT/v1, or with https."
            )
        if self.retries < 0 or self.backoff_s < 0 or self.backoff_max_s < 0:
            raise BadInput("openai.retries, openai.backoff_s and openai.backoff_max_s must not be negative.")
        if not 1 <= self.jpeg_quality <= 100:
            raise BadInput(f"openai.jpeg_quality={self.jpeg_quality} must be from 1 to 100.")
        _check_extra(self.extra)

    @property
    def answer_tokens(self) -> int:
        """The longest answer in tokens, by whichever field says so."""
        told = self.extra.get("max_completion_tokens")
        return self.max_tokens if told is None else int(told)

    def share(self, workers: int) -> OpenAIConfig:
        """The configuration of one of so many workers, which together keep to these limits and this budget."""
        return replace(self, limits=self.limits.share(workers), budget=self.budget.share(workers))

    def identity(self) -> CaptionerIdentity:
        """What a caption_id knows of this backend: what may change the words, so neither address nor limits."""
        if not self.model:
            raise BadInput("--captioner.openai.model must name the model that the server offers.")
        sampling: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "jpeg_quality": self.jpeg_quality,
        }
        # What is as it always was is not told: captions made before there was a choice stay valid.
        if self.frames_as != "image_url":
            sampling["frames_as"] = self.frames_as
        if self.extra:
            left_out = self.extra.keys() & SET_ELSEWHERE
            sampling = {name: value for name, value in sampling.items() if name not in left_out}
            sampling["extra"] = self.extra
        return CaptionerIdentity("openai", self.model, self.revision, sampling)


def _check_extra(extra: dict[str, Any]) -> None:
    """Raise BadInput for fields that cannot be sent, or that another setting is for."""
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"openai.extra={extra} cannot be sent as JSON: {error}.") from error
    for name, value in extra.items():
        if name in FIXED:
            raise BadInput(f"openai.extra must not hold {name!r}: what is sent and read here depends on it.")
        if name in SET_ELSEWHERE and value is not None:
            raise BadInput(
                f"openai.extra can only leave {name!r} out ({name}: null): its value comes from elsewhere."
            )
    limit = extra.get("max_completion_tokens")
    if limit is not None and not (type(limit) is int and limit > 0):
        raise BadInput(f"openai.extra: max_completion_tokens={limit!r} must be a whole number above 0.")


def _part(amount: float | None, workers: int) -> float | None:
    return None if amount is None else amount / workers


def _positive(group: str | None, **values: float | None) -> None:
    """Raise BadInput for a value that is given and not above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise BadInput(f"openai.{f'{group}.' if group else ''}{name}={value} must be above 0.")
