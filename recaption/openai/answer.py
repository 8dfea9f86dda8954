"""From an HTTP response to an answer, or to what kind of failure it is.

    answer = read_answer(response, max_tokens=512)      # raises Passing for what another try may mend

429, 5xx and answers that cannot be read pass; another status is an answer with its full text as error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from recaption.captioner import COUNT_MAX, Status, whole
from recaption.openai.budget import Usage

PASSING = (408, 409, 425, 429)
#: Ways to say that the length limit stopped the answer.
CUT_OFF = ("length", "max_tokens", "model_length")


@dataclass(frozen=True)
class Answer:
    """What a server made of a request; fields as in CaptionResult.

    Attributes:
        status: ok, truncated, refused or error.
        text: what was generated, or said in refusal.
        error: full text of the error.
        finish_reason: why generation stopped.
        tokens_in: prompt tokens, if told.
        tokens_out: generated tokens, if told.
        http_status: the status it came with.
    """

    status: Status
    text: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    http_status: int = 200

    @property
    def usage(self) -> Usage | None:
        """Its tokens, none for an HTTP error; null unless the server told both."""
        if self.http_status != 200:
            return Usage()
        if self.tokens_in is None or self.tokens_out is None:
            return None
        return Usage(self.tokens_in, self.tokens_out)


class Passing(Exception):
    """A failure that another try may mend.

    Attributes:
        hold_s: seconds for which the server asks to be left alone.
        usage: tokens that it used nevertheless; null if unknown.
        counts: False if it says nothing about this request (the server is busy or down), so that it costs no retry.
    """

    def __init__(
        self, message: str, *, hold_s: float | None = None, usage: Usage | None = None, counts: bool = True
    ) -> None:
        super().__init__(message)
        self.hold_s = hold_s
        self.usage = usage
        self.counts = counts


def read_answer(response: httpx.Response, max_tokens: int) -> Answer:
    """Read a whole response to a request for at most `max_tokens`. Raises Passing."""
    status = response.status_code
    if status != 200:
        # A quota that is used up answers 429 as well, but no pause mends it.
        if (status in PASSING or status >= 500) and "insufficient_quota" not in _words(response):
            hold_s = retry_after_s(response.headers.get("retry-after"))
            raise Passing(told(response), hold_s=hold_s, usage=Usage(), counts=status != 429)
        return Answer("error", error=told(response), http_status=status)
    try:
        answer = response.json()
        choice = answer["choices"][0]
        message = choice["message"]
        text, refusal, finish = map(
            _text, (message.get("content"), message.get("refusal"), choice.get("finish_reason"))
        )
        usage = answer.get("usage") or {}
        tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as damage:
        found = f"malformed answer ({type(damage).__name__}: {damage}): {_words(response)[:2000]}"
        raise Passing(found) from damage
    if refusal or finish == "content_filter":
        return Answer("refused", text or refusal, None, finish, *tokens)
    # Some servers leave the reason out; an answer of all the tokens that it may have did not end by itself.
    cut_off = finish in CUT_OFF if finish else tokens[1] is not None and tokens[1] >= max_tokens
    if text and text.strip():
        return Answer("truncated" if cut_off else "ok", text, None, finish, *tokens)
    if cut_off:  # a model that thinks first; it would do so again
        error = "stopped by the length limit before the first word: raise --captioner.openai.max_tokens"
        return Answer("error", None, error, finish, *tokens)
    used = Answer("error", None, None, finish, *tokens).usage
    raise Passing(f"empty answer (finish_reason {finish!r}): {_words(response)[:2000]}", usage=used)


def _text(value: Any) -> str | None:
    """A text, whole; null for whatever else a server says in its place."""
    return whole(value) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX
    return value if is_count else None


def _words(response: httpx.Response) -> str:
    """The body as text. The encoding that the server names is not asked: Python knows some that are no texts."""
    return response.content.decode("utf-8", "replace")


def told(response: httpx.Response) -> str:
    """The status and what the server says about it, in full up to 4,000 characters."""
    return f"HTTP {response.status_code} {response.reason_phrase}: {_words(response)[:4000]}".strip()


def retry_after_s(header: str | None) -> float | None:
    """Seconds from a Retry-After header (seconds or an HTTP date); null if there is none that can be read."""
    if not header:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
