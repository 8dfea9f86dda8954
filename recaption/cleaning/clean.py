"""From what a captioner returned to the caption to train on: a list of small rules, in order.

    cleaned = clean("```\nThe video shows a red disc. It moves lef", truncated=True)
    cleaned.text, cleaned.status, cleaned.flags

`text_raw` is never changed; a new CLEANER_VERSION recomputes `text` from it without asking a model again.
Captions that repeat across clips are a matter of the whole table: recaption.cleaning.repeats.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from recaption.cleaning.absence import drop_absence
from recaption.cleaning.control_tokens import drop_control_tokens
from recaption.cleaning.hedges import drop_hedges
from recaption.cleaning.inferences import drop_inferences
from recaption.cleaning.language import why_wrong_language
from recaption.cleaning.refusal import is_refusal
from recaption.cleaning.repetition import why_repetitive
from recaption.cleaning.sentences import has_end, sentences
from recaption.cleaning.unicode import normalise
from recaption.cleaning.wrapping import drop_closing, drop_fence, drop_preamble, drop_quotes, drop_thinking

__all__ = ["CLEANER_VERSION", "Cleaned", "clean", "normalise"]

CLEANER_VERSION = "3"

Rule = Callable[[str], str]
UNWRAP: tuple[Rule, ...] = (drop_thinking, drop_control_tokens, drop_fence, drop_quotes, drop_preamble)
TRIM: tuple[Rule, ...] = (drop_hedges, drop_inferences, drop_absence)


@dataclass(frozen=True)
class Cleaned:
    """What the rules made of a raw caption.

    Attributes:
        text: the caption, or null if nothing of it can stand.
        status: ok, truncated, refused, repetitive, wrong_lang or error.
        error: why there is no text; null for a refusal, whose words are in `text_raw`.
        flags: rules that changed more than white space.
    """

    text: str | None
    status: str
    error: str | None = None
    flags: tuple[str, ...] = ()


def clean(text_raw: str, *, truncated: bool = False, lang: str = "en") -> Cleaned:
    """Apply the rules.

    `truncated`: the captioner was stopped by its length limit; without that word a text is taken as whole, for
    a missing full stop proves nothing. `lang`: the language asked for, ISO 639-1. Raises BadInput if it is unknown.
    The result is stable: a cleaned text comes through once more unchanged. It is never longer than
    `normalise(text_raw)`.
    """
    flags: dict[str, None] = {}
    text, before = normalise(text_raw), None
    status = "truncated" if truncated else "ok"
    while text != before:  # what one rule takes away may uncover work for another
        before = text
        text = _unwrap(text, flags)
        if is_refusal(text):
            return Cleaned(None, "refused", flags=tuple(flags))
        text = " ".join(_apply((drop_closing,), text, flags).split())
        if why := why_repetitive(text):
            return Cleaned(None, "repetitive", error=why, flags=tuple(flags))
        if truncated:
            had_words, truncated = bool(re.search(r"\w", text)), False
            text = to_last_sentence(text)
            if had_words and not text:
                return Cleaned(
                    None, "error", error="cut off before the first sentence ended", flags=tuple(flags)
                )
        had_words = bool(re.search(r"\w", text))
        text = _apply(TRIM, text, flags)
        if had_words and not re.search(r"\w", text):
            error = "every sentence only guesses or says what is absent"
            return Cleaned(None, "error", error=error, flags=tuple(flags))
    if not re.search(r"\w", text):
        return Cleaned(None, "error", error="the captioner returned no words", flags=tuple(flags))
    if why := why_wrong_language(text, lang):
        return Cleaned(None, "wrong_lang", error=why, flags=tuple(flags))
    return Cleaned(text, status, flags=tuple(flags))


def to_last_sentence(text: str) -> str:
    """The whole sentences of a text that was cut off; nothing if not one of them is whole."""
    pieces = sentences(text)
    # A digit before the last full stop may be half of a decimal number.
    if pieces and (not has_end(pieces[-1]) or re.search(r"\b\d{1,3}\.\s*$", pieces[-1])):
        pieces.pop()
    return "".join(pieces).strip()


def _unwrap(text: str, flags: dict[str, None]) -> str:
    """Rules that need the lines as they came, until none finds anything."""
    before = None
    while text != before:
        before = text
        text = _apply(UNWRAP, text, flags)
    return text


def _apply(rules: tuple[Rule, ...], text: str, flags: dict[str, None]) -> str:
    for rule in rules:
        changed = rule(text).strip()
        if changed != text:
            flags[rule.__name__] = None
        text = changed
    return text
