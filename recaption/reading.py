"""From a raw answer to what the captions table says of it: the caption, its status, and its flags.

    read("dense", "The video shows a red disc.", [], truncated=False, camera=None, suffix="")
    # {"text": "A red disc.", "status": "ok", "flags": ["length:under", "drop_preamble"], ...}

All of it follows from `text_raw`, so a new version of the rules reads old answers again (`recaption.finish`).
"""

from __future__ import annotations

import json
from typing import Any

from recaption.cleaning.clean import clean
from recaption.hints import CAMERA
from recaption.structured_cleaning import clean_structured
from recaption.trust.camera_drop import without_camera

USABLE = ("ok", "truncated")
#: Flag of a caption that tells of one window of its clip; such a one is never chosen by itself.
PART = "part"
#: Flag of a caption with measured facts behind it.
SUFFIX = "facts_suffix"
#: Flags of captions with fewer or more words than their prompt asks for; such a one is still a caption.
TOO_SHORT, TOO_LONG = "length:under", "length:over"
#: Least and most words of a kind, as our prompts ask for them. They are in English, so only English is counted.
WORDS = {"dense": (80, 200), "merged": (80, 200)}


def read(
    kind: str,
    text_raw: str,
    flags: list[str],
    *,
    truncated: bool,
    camera: str | None,
    suffix: str,
    lang: str = "en",
) -> dict[str, Any]:
    """text, structured, status, error and flags of a raw answer.

    Args:
        flags: those that do not come from reading (`without_read_flags`).
        truncated: the captioner was stopped by its length limit.
        camera: the measured camera in words, for structured captions.
        suffix: measured facts to put behind the caption.
        lang: the language asked for, ISO 639-1.
    """
    if kind == "structured":
        cleaned, fields = clean_structured(text_raw, truncated=truncated, camera=camera, lang=lang)
        return {
            "text": cleaned.text,
            "structured": None if fields is None else json.dumps(fields, ensure_ascii=False),
            "status": cleaned.status,
            "error": cleaned.error,
            "flags": [*flags, *cleaned.flags],
        }
    cleaned = clean(text_raw, truncated=truncated, lang=lang)
    words, behind = cleaned.text, [SUFFIX] if suffix and cleaned.text else []
    # A part is as long as what changes in it.
    length = length_flags(kind, words) if lang == "en" and PART not in flags else []
    if words and behind:  # the measured camera takes the place of the one that was thought of
        words = f"{without_camera(words) if CAMERA in suffix else words} {suffix}"
    return {
        "text": words,
        "structured": None,
        "status": cleaned.status,
        "error": cleaned.error,
        "flags": [*flags, *length, *cleaned.flags, *behind],
    }


def without_read_flags(flags: list[str]) -> list[str]:
    """The flags that `read` did not set."""
    ours = (SUFFIX, TOO_SHORT, TOO_LONG)
    return [flag for flag in flags if not flag.startswith("drop_") and flag not in ours]


def length_flags(kind: str, text: str | None) -> list[str]:
    """TOO_SHORT or TOO_LONG, where the text has fewer or more words than WORDS has for its kind."""
    if not text or kind not in WORDS:
        return []
    least, most = WORDS[kind]
    count = len(text.split())
    return [TOO_SHORT] if count < least else [TOO_LONG] if count > most else []
