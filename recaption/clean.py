"""From what a captioner returned to the caption to train on: a list of small rules, in order.

    cleaned = clean("```\nThe video shows a red disc. It moves lef", truncated=True)
    cleaned.text, cleaned.status, cleaned.flags

`text_raw` is never changed; a new CLEANER_VERSION recomputes `text` from it without asking a model again.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

CLEANER_VERSION = "1"


@dataclass(frozen=True)
class Cleaned:
    """What the rules made of a raw caption.

    Attributes:
        text: the caption, or null if nothing of it can stand.
        status: ok, truncated, refused or error.
        error: why there is no text.
        flags: rules that changed more than white space.
    """

    text: str | None
    status: str
    error: str | None = None
    flags: tuple[str, ...] = ()


def clean(text_raw: str, *, truncated: bool = False) -> Cleaned:
    """Apply the rules. `truncated`: the captioner was stopped by its length limit."""
    text = normalise(text_raw)
    flags = []
    for rule in (drop_thinking, drop_fence, drop_quotes, drop_preamble):
        changed = rule(text).strip()
        if changed != text:
            flags.append(rule.__name__)
        text = changed
    text = " ".join(text.split())
    if is_refusal(text):
        return Cleaned(None, "refused", flags=tuple(flags))
    if truncated:
        text = to_last_sentence(text)
    if not re.search(r"\w", text):
        return Cleaned(None, "error", error="the captioner returned no words", flags=tuple(flags))
    return Cleaned(text, "truncated" if truncated else "ok", flags=tuple(flags))


def normalise(text: str) -> str:
    """NFC, plain quotes and spaces, no control or invisible characters."""
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf")).strip()


_PLAIN = str.maketrans({"\u00a0": " ", "\u202f": " ", "‘": "'", "’": "'", "“": '"', "”": '"', "\r": "\n"})


def drop_thinking(text: str) -> str:
    """The answer after a model's reasoning; reasoning that was cut off leaves nothing."""
    text = re.sub(r"<think(ing)?>.*?</think(ing)?>", "", text, flags=re.S)
    text = re.sub(r"^.*</think(ing)?>", "", text, flags=re.S)  # some servers swallow the opening tag
    return re.sub(r"<think(ing)?>.*$", "", text, flags=re.S)


def drop_fence(text: str) -> str:
    """The inside of a code fence around the whole text."""
    found = re.fullmatch(r"```[\w-]*\n(.*?)(\n?```)?", text.strip(), flags=re.S)
    return found[1] if found else text


def drop_quotes(text: str) -> str:
    """The inside of quotation marks around the whole text."""
    found = re.fullmatch(r'"([^"]*)"', text.strip())
    return found[1] if found else text


_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok)[!,.:]?\s+)?"
    r"(?:(?:here(?:'s| is| are)\b[^.:\n]{0,80}:\s*)"
    r"|(?:\**(?:caption|description|answer|video description)\**\s*:\**\s*)"
    r"|(?:(?:the|this) (?:video|clip|image|footage|scene|video clip|sequence)"
    r"(?: clip)? (?:shows|depicts|features|captures|displays|presents|begins with|opens with)\s+(?:that\s+)?)"
    r"|(?:in (?:the|this) (?:video|clip|image|footage)(?: clip)?(?:,\s*|\s+(?=(?:an?|the)\s))))",
    flags=re.I,
)


def drop_preamble(text: str) -> str:
    """`Here is a caption:`, `The video shows` and their like at the start; the rest gets its capital back."""
    rest = text
    while found := _PREAMBLE.match(rest):
        rest = rest[found.end() :]
    if rest == text or not rest:
        return rest
    return rest[0].upper() + rest[1:] if text[:1].isupper() else rest


_REFUSAL = re.compile(
    r"(?:(?:i'm|i am) (?:sorry|unable|not able)|sorry,? (?:but )?i\b|i (?:cannot|can't|can not|won't)"
    r"|i apologi[sz]e|as an ai\b|unfortunately,? i\b)",
    flags=re.I,
)


def is_refusal(text: str) -> bool:
    """First person at the very start only: what somebody in the clip says stays."""
    return bool(_REFUSAL.match(text))


def to_last_sentence(text: str) -> str:
    """The whole sentences of a text that was cut off; the text itself if not one of them is whole."""
    ends = [found.end() for found in re.finditer(r"[.!?][\"')]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else text
