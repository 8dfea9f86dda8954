"""How large the page may grow, whatever the dataset: shares in bytes for pictures, samples, texts and errors.

The shares leave room below PAGE_BYTES for the script, scores and training curves. What a share has no room for is
left out, and the page says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PAGE_BYTES = 15_000_000
GALLERY_PICTURES = 6_500_000
COPY_PICTURES = 1_500_000
SAMPLES = 3_000_000
CARDS = 1_800_000
ERRORS = 1_000_000
LONGEST_TEXT = 4_000  # characters of one caption in the gallery
MOST_CAPTIONS = 12  # of one clip in the gallery


@dataclass
class Budget:
    """Bytes that are left of a share."""

    left: int

    def take(self, size: int) -> bool:
        """Whether there is room for `size` bytes, which are then spent."""
        if size > self.left:
            return False
        self.left -= size
        return True


def written(values: Any) -> str:
    """`values` as JSON that may stand in a script element; NaN and infinities, which JSON lacks, become null."""
    data = json.dumps(finite(values), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # Inside a script element only `<` could end it; the others are for older parsers.
    for sign in "<>&\u2028\u2029":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return data


def size_of(value: Any) -> int:
    """Bytes of a value in the page."""
    return len(written(value).encode("utf-8", "replace"))


def within(rows: Iterable[dict[str, Any]], share: int) -> list[dict[str, Any]]:
    """The rows that fit into `share` bytes, in their order; one that is too long does not stop shorter ones."""
    budget = Budget(share)
    return [row for row in rows if budget.take(size_of(row))]


def keep_pictures(clips: Iterable[dict[str, Any]], share: int) -> int:
    """Take the pictures away that do not fit into `share` bytes, with a reason; returns how many."""
    budget = Budget(share)
    left_out = 0
    for clip in clips:
        if clip.get("picture") and not budget.take(len(clip["picture"])):
            clip |= {"picture": None, "no_picture": "left out to keep this page small"}
            left_out += 1
    return left_out


def shortened(captions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first captions of a clip, each cut after LONGEST_TEXT characters with a word on it."""
    rows = [{name: cut(value) for name, value in row.items()} for row in captions[:MOST_CAPTIONS]]
    if len(captions) > MOST_CAPTIONS:
        told = (
            f"{len(captions) - MOST_CAPTIONS:,} more captions are not on this page: reelmill inspect --clip"
        )
        rows.append({"kind": "and", "text": None, "status": "ok", "error": told, "chosen": True})
    return rows


def cut(value: Any) -> Any:
    """A text of at most LONGEST_TEXT characters, with a word on it if it was longer; other values as they are."""
    if not isinstance(value, str) or len(value) <= LONGEST_TEXT:
        return value
    return f"{value[:LONGEST_TEXT]}… (cut here; {len(value):,} characters in all)"


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
