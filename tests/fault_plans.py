"""What tests/fault_server.py does to a request: the faults by name, and plans that choose among them.

A plan decides the fate of each request: a function from an Ask to the name of a fault, or None to answer well. It
can go by the request's hash (`share`), by the order of arrival (`script`) or by the prompt (`by_word`). Faults:

    500, 502, 503    an error of the server            429, 429:2.5   too many requests, with Retry-After seconds
    400, 401         an error of the request           503:2.5        likewise; 429:date:2 sends an HTTP date
    quota            429 that no pause mends           slow:2         answers well after so many seconds
    drop             closes without an answer          cut            half of the answer, then closes
    malformed        JSON that breaks off              html           200, but a page of some proxy
    keyless          JSON without choices              list           JSON that is no object
    empty, null      no content                        thinking       no content, stopped by the length limit
    refusal          a refusal in the refusal field    filtered       finish_reason content_filter
    sorry            a refusal as content              loop           a phrase again and again, stopped by length
    truncated        half of the text                  no_schema      400 if the request has response_format
    no_usage         answers well, counts no tokens    endless        a byte now and then, for ever
    echo             401 that repeats the key          costly:5       tells five times the prompt tokens
    silent           half of the text, without a finish_reason, after all the tokens that were asked for
    charset          400 with half a character, in an encoding that is none
    say:TEXT         answers with TEXT                 odd:NAME       answers well but for what ODD tells
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ask:
    """A request as the server sees it.

    Attributes:
        place: how many requests came before it.
        nth: how many times the same body came, this one included.
        digest: hash of the body, hexadecimal.
        body: the JSON.
        prompt: the text of the message.
        at_s: when it was read, on the monotonic clock.
        key: its Authorization header.
    """

    place: int
    nth: int
    digest: str
    body: dict[str, Any]
    prompt: str
    at_s: float
    key: str | None


Plan = Callable[[Ask], str | None]

#: What some servers have been seen to send: fields of the choice, the message and the usage.
ODD: dict[str, dict[str, Any]] = {
    "half_emoji": {"content": "a cat \ud83d sits here"},
    "finish_number": {"finish_reason": 0},
    "finish_object": {"finish_reason": {"type": "stop"}},
    "refusal_list": {"refusal": ["no"]},
    "parts": {"content": [{"type": "text", "text": "a cat"}]},
    "parts_filtered": {"content": [{"type": "text", "text": "a cat"}], "finish_reason": "content_filter"},
    "vast": {"prompt_tokens": 2**40, "completion_tokens": -(2**70)},
    "no_reason": {"finish_reason": None},
    "cut_by_model": {"finish_reason": "model_length"},
    "yes": {"prompt_tokens": True, "completion_tokens": 4.0},
}


def share(part: float, faults: Sequence[str], *, times: int = 1) -> Plan:
    """Of all bodies a `part`, chosen by hash, meets one of `faults` the first `times` times that it comes."""

    def plan(ask: Ask) -> str | None:
        chance = int(ask.digest[:8], 16) / 16**8
        if chance >= part or ask.nth > times:
            return None
        return faults[int(ask.digest[8:16], 16) % len(faults)]

    return plan


def script(faults: Iterable[str | None]) -> Plan:
    """By order of arrival; after its end all is well."""
    told = list(faults)
    return lambda ask: told[ask.place] if ask.place < len(told) else None


def by_word(fates: dict[str, str | Sequence[str | None]]) -> Plan:
    """By a word of the prompt: one fault for ever, or a list for the first, second, ... time."""

    def plan(ask: Ask) -> str | None:
        for word, fate in fates.items():
            if word in ask.prompt.split():
                if isinstance(fate, str):
                    return fate
                return fate[ask.nth - 1] if ask.nth <= len(fate) else None
        return None

    return plan
