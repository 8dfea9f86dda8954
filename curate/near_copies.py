"""Copies of a clip under other bytes: re-encoded, resized, lightly changed. Found by perceptual hashes.

Each clip has three 64-bit hashes. Two clips are copies if the hashes differ in few bits on average and the
clips last about as long. Candidates share one of the sixteen-bit bands of their middle hash, so the search
does not compare all pairs.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A band that very many clips share (black, white, test cards) tells nothing and would cost quadratic time.
_CROWDED_BAND = 200


class Limits(Protocol):
    """The fields of CopyConfig that are read here."""

    @property
    def max_bits(self) -> float: ...

    @property
    def max_duration_ratio(self) -> float: ...


def near_copies(clips: pa.Table, passed: np.ndarray, limits: Limits) -> dict[int, tuple[int, float]]:
    """Row of each copy -> (row of the better one that is kept, mean differing bits of 64).

    Only rows in `passed` (bool mask) take part. The better copy has the larger picture, then the sharper,
    then the smaller clip_id.
    """
    hashes = {
        row: np.array([int(part, 16) for part in text.split("-")], dtype=np.uint64)
        for row, text in enumerate(clips["phash"].to_pylist())
        if text and passed[row]
    }
    duration = (clips["end_s"].to_numpy() - clips["start_s"].to_numpy()).astype(float)
    order = _quality_order(clips)
    found: dict[int, tuple[int, float]] = {}
    pairs = sorted(_candidates(hashes), key=lambda pair: sorted(order[row] for row in pair))
    for a, b in pairs:
        better, worse = sorted((a, b), key=lambda row: order[row])
        if better in found or worse in found:
            continue
        longer, shorter = max(duration[a], duration[b]), min(duration[a], duration[b])
        if longer > limits.max_duration_ratio * shorter or len(hashes[a]) != len(hashes[b]):
            continue
        bits = float(np.bitwise_count(hashes[a] ^ hashes[b]).mean())
        if bits <= limits.max_bits:
            found[worse] = (better, bits)
    return found


def _quality_order(clips: pa.Table) -> dict[int, int]:
    """Row -> rank, 0 for the best copy to keep."""
    ranked = pa.table(
        {
            "pixels": pc.multiply(clips["width"].cast(pa.int64()), clips["height"].cast(pa.int64())),
            "sharpness": clips["sharpness"],
            "clip_id": clips["clip_id"],
        }
    )
    order = [("pixels", "descending"), ("sharpness", "descending"), ("clip_id", "ascending")]
    rows = pc.sort_indices(ranked, sort_keys=order).to_pylist()  # nulls last
    return {row: rank for rank, row in enumerate(rows)}


def _candidates(hashes: dict[int, np.ndarray]) -> set[tuple[int, int]]:
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, values in hashes.items():
        middle = int(values[len(values) // 2])
        for band in range(4):
            bands[band, middle >> (16 * band) & 0xFFFF].append(row)
    return {
        pair
        for rows in bands.values()
        if len(rows) <= _CROWDED_BAND
        for pair in combinations(sorted(rows), 2)
    }
