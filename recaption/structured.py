"""Structured captions: one JSON object of short fields per clip, checked against a schema.

    found = read_structured('Here it is: {"subject": "A red disc.", ...}')
    found.fields, found.error
    prose(found.fields)                       # the fields as one text

What the fields say is cleaned by `recaption.structured_cleaning`. The fields are HunyuanVideo's (arXiv 2412.03603,
section 3.2), which a training loader may drop and shuffle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from recaption.captioner import whole
from recaption.cleaning.clean import drop_fence, drop_thinking, normalise

#: Field -> what belongs there. `subject` is the one that must not be null.
FIELDS = {
    "subject": "the main subject and how it looks",
    "action": "what the subject does, and in which direction it moves",
    "background": "the place and what else is there",
    "camera": "how the camera moves and how close it is",
    "lighting": "the light and the colours",
    "style": "the style of the picture",
    "atmosphere": "the mood",
    "on_screen_text": "text that can be read, word for word",
}
#: What captioners write where they should write null.
NOTHING = ("null", "none", "n/a", "unknown", "not visible", "no text", "no visible text", "not applicable")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {"type": "string" if name == "subject" else ["string", "null"], "description": meaning}
        for name, meaning in FIELDS.items()
    },
    "required": list(FIELDS),
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Structured:
    """What could be read from an answer.

    Attributes:
        fields: field -> sentence or null, in the order of FIELDS; null if the answer fits the schema nowhere.
        error: why there are no fields.
    """

    fields: dict[str, str | None] | None
    error: str | None = None


def read_structured(text_raw: str) -> Structured:
    """The object in an answer: its own text, or the outermost braces in it. Checked against SCHEMA."""
    text = unwrapped(text_raw)
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return Structured(None, "there is no JSON object in the answer")
    try:
        # Written as \\ud83d, half a character passes as plain letters until it is read.
        found = json.loads(text[start : end + 1], object_hook=_whole)
    except (ValueError, RecursionError) as error:
        return Structured(None, f"{type(error).__name__}: {error}")
    from jsonschema import Draft202012Validator

    wrong = sorted(
        Draft202012Validator(SCHEMA).iter_errors(found), key=lambda error: list(error.absolute_path)
    )
    if wrong:
        return Structured(None, "; ".join(_told(error) for error in wrong[:4]))
    fields = {name: as_sentence(found[name]) for name in FIELDS}
    if fields["subject"] is None:
        return Structured(None, "subject is empty")
    return Structured(fields)


def _whole(found: dict[str, Any]) -> dict[str, Any]:
    return {name: whole(value) if isinstance(value, str) else value for name, value in found.items()}


def unwrapped(text_raw: str) -> str:
    """The answer without what a captioner wraps around an object: thinking and code fences."""
    return drop_fence(drop_thinking(normalise(text_raw)).strip()).strip()


def has_object(text_raw: str) -> bool:
    """Whether an object begins and ends in the answer, well-formed or not."""
    text = unwrapped(text_raw)
    return 0 <= text.find("{") < text.rfind("}")


def repair_prompt(text_raw: str, error: str) -> str:
    """What a captioner is asked once about an answer that does not fit, without the frames."""
    return (
        "This was meant to be one JSON object with the keys "
        f"{', '.join(FIELDS)}, each a string or null, subject always a string:\n\n{text_raw}\n\n"
        f"It is not: {error}\nWrite the corrected JSON object alone. Keep its words; add nothing."
    )


def prose(fields: dict[str, str | None]) -> str:
    """The fields that say something, as sentences one after another."""
    return " ".join(text for text in fields.values() if text)


def as_sentence(value: str | None) -> str | None:
    """A field's text with a full stop; null for words that say that there is nothing."""
    text = " ".join((value or "").split())
    if not text or text.lower().rstrip(".") in NOTHING:
        return None
    return text if text.endswith((".", "!", "?", '"')) else f"{text}."


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error.absolute_path)
    return f"{place}: {error.message}"[:300] if place else str(error.message)[:300]
