"""Which rows are copies of which, on hash sequences written out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import CopyConfig
from curate.near_copies import near_copies
from curate.phash import MIRROR
from curate.tables import CLIPS

# Eight hashes that differ from one another in about half of their bits.
SHOT = [int(h) for h in np.random.default_rng(7).integers(1, 2**63, 8, dtype=np.uint64)]
OTHER = [int(h) for h in np.random.default_rng(8).integers(1, 2**63, 8, dtype=np.uint64)]
SIX_BITS = 0b100000010000001000000100000010000001


def clip(number: int, hashes: list[int], **columns: object) -> dict[str, object]:
    row = {"clip_id": f"{number:024x}", "source_id": "s", "start_s": 0.0, "width": 640, "height": 360}
    text = "-".join(f"{h:016x}" for h in hashes)
    return {**row, "end_s": (len(hashes) + 1) / 2, "phash": text, "sharpness": 50.0, **columns}


def copies(*rows: dict[str, object], bitrates: list[float] | None = None) -> dict[int, int]:
    table = pa.Table.from_pylist(list(rows), schema=CLIPS)
    if bitrates:
        table = table.append_column("bitrate", pa.array(bitrates))
    found = near_copies(table, np.ones(len(rows), bool), CopyConfig())
    return {row: better for row, (better, _) in found.items()}


@pytest.mark.parametrize(
    "copy",
    [
        SHOT,
        [h ^ SIX_BITS for h in SHOT],
        [h ^ int(MIRROR) for h in SHOT],
        SHOT[1:],
        SHOT[:-1],
        [h ^ SIX_BITS ^ int(MIRROR) for h in SHOT[1:]],
    ],
    ids=["same", "six bits", "mirrored", "start cut", "end cut", "all"],
)
def test_copies_at_any_shift_plain_or_mirrored(copy: list[int]) -> None:
    assert copies(clip(1, SHOT), clip(2, OTHER), clip(3, copy)) == {2: 0}


def test_one_shared_hash_is_no_copy() -> None:
    assert copies(clip(1, SHOT), clip(2, [*OTHER[:4], SHOT[4], *OTHER[5:]])) == {}


def test_much_longer_is_no_copy() -> None:
    assert copies(clip(1, SHOT), clip(2, SHOT, end_s=9.0)) == {}


def test_twenty_bits_are_too_many() -> None:
    assert copies(clip(1, SHOT), clip(2, [h ^ 0xFFFFF for h in SHOT])) == {}


def test_flat_pictures_at_the_ends_do_not_hide_a_copy() -> None:
    assert copies(clip(1, [0, *SHOT, 0]), clip(2, [0, *SHOT, 0])) == {1: 0}
    assert copies(clip(1, [0] * 8), clip(2, [0] * 8)) == {}


def test_a_missing_hash_is_no_copy() -> None:
    assert copies(clip(1, SHOT, phash=None), clip(2, SHOT, phash=None), clip(3, SHOT)) == {}


def test_the_best_copy_is_kept() -> None:
    def small(w: int, h: int) -> dict[str, int]:
        return {"x": 0, "y": 0, "w": w, "h": h}

    assert copies(clip(1, SHOT), clip(2, SHOT, width=1280)) == {0: 1}
    # What lies inside the borders counts, not the borders.
    assert copies(clip(1, SHOT, width=1280, crop=small(320, 180)), clip(2, SHOT)) == {0: 1}
    sharp = clip(1, SHOT, sharpness=90.0)
    assert copies(sharp, clip(2, SHOT), bitrates=[1e5, 2e5]) == {0: 1}
    assert copies(clip(1, SHOT), clip(2, SHOT, sharpness=90.0), bitrates=[1e5, 1e5]) == {0: 1}
    assert copies(clip(2, SHOT), clip(1, SHOT)) == {0: 1}


def test_all_copies_name_the_one_that_is_kept() -> None:
    rows = [clip(i, [h ^ (1 << i) for h in SHOT], width=640 + i) for i in range(5)]
    assert copies(*rows) == {0: 4, 1: 4, 2: 4, 3: 4}
