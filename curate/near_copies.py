"""Copies of a clip under other bytes: re-encoded, resized, cropped a little, mirrored, trimmed.

Two clips are copies if their hash sequences (curate/phash.py) differ in few bits at their best shift. Candidates
share a sixteen-bit band of some hash, and that hash is near, so the search does not compare all pairs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.phash import FLAT, MIRROR, difference, unpack

# How many neighbours in a band are looked at: one that very many clips share would cost quadratic time.
_CROWDED_BAND = 64
# The few hashes that are probed may differ by this many bits more than the whole sequence.
_SLACK_BITS = 4
# Hashes compared at the shift that a band suggests, before whole sequences are compared.
_PROBES = 4


class Limits(Protocol):
    """The fields of CopyConfig that are read here."""

    @property
    def max_bits(self) -> float: ...

    @property
    def max_duration_ratio(self) -> float: ...


def near_copies(clips: pa.Table, passed: np.ndarray, limits: Limits) -> dict[int, tuple[int, float]]:
    """Row of each copy -> (row of the better one that is kept, mean differing bits of 64).

    Only rows in `passed` (bool mask) take part. The better copy is the one that quality_order puts first.
    """
    rows = np.flatnonzero(passed & pc.is_valid(clips["phash"]).to_numpy())
    if len(rows) < 2:
        return {}
    hashes, first = unpack(clips["phash"].take(rows))
    duration = (clips["end_s"].to_numpy() - clips["start_s"].to_numpy()).astype(float)[rows]
    order = quality_order(clips)[rows]
    a, b = _candidates(hashes, first, limits.max_bits)
    longer, shorter = np.maximum(duration[a], duration[b]), np.minimum(duration[a], duration[b])
    near = longer <= limits.max_duration_ratio * shorter
    a, b = a[near], b[near]
    swap = order[a] > order[b]
    better, worse = np.where(swap, b, a), np.where(swap, a, b)
    found: dict[int, tuple[int, float]] = {}
    for pair in np.lexsort((order[worse], order[better])):
        good, bad = int(better[pair]), int(worse[pair])
        if rows[good] in found or rows[bad] in found:
            continue
        bits = difference(hashes[first[good] : first[good + 1]], hashes[first[bad] : first[bad + 1]])
        if bits <= limits.max_bits:
            found[int(rows[bad])] = (int(rows[good]), bits)
    return found


def quality_order(clips: pa.Table) -> np.ndarray:
    """Rank of each row, 0 for the best copy to keep: pixels inside the crop, bitrate, sharpness, clip_id."""
    pixels = pc.multiply(clips["width"].cast(pa.int64()), clips["height"].cast(pa.int64()))
    if "crop" in clips.column_names:
        crop = clips["crop"]
        inside = pc.multiply(
            pc.struct_field(crop, "w").cast(pa.int64()), pc.struct_field(crop, "h").cast(pa.int64())
        )
        pixels = pc.coalesce(inside, pixels)
    bitrate = clips["bitrate"] if "bitrate" in clips.column_names else pa.nulls(len(clips), pa.float64())
    ranked = pa.table(
        {"pixels": pixels, "bitrate": bitrate, "sharpness": clips["sharpness"], "clip_id": clips["clip_id"]}
    )
    order = [(name, "descending") for name in ("pixels", "bitrate", "sharpness")] + [("clip_id", "ascending")]
    rank = np.empty(len(clips), np.int64)
    rank[pc.sort_indices(ranked, sort_keys=order).to_numpy()] = np.arange(len(clips))  # nulls last
    return rank


def _candidates(hashes: np.ndarray, first: np.ndarray, max_bits: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows (a < b), each once, of which some hash shares a band and is near, plain or mirrored."""
    row = np.repeat(np.arange(len(first) - 1), np.diff(first))
    told = np.flatnonzero(hashes != FLAT)
    # A hash and its mirror image are one: of the two, the one whose first odd bit is 0 stands for both.
    top_odd = np.uint64(1 << (int(MIRROR).bit_length() - 1))
    one = np.where(hashes & top_odd, hashes ^ MIRROR, hashes)
    n_rows = np.int64(len(first))
    pairs = [np.zeros(0, np.int64)]
    for band in range(4):
        value = one[told] >> np.uint64(16 * band) & np.uint64(0xFFFF)
        by_value = np.argsort(value.astype(np.uint16), kind="stable")  # radix sort; rows stay in order
        value, place = value[by_value], told[by_value]
        what, who = one[place], row[place]
        at = np.arange(len(value))
        for lag in range(1, _CROWDED_BAND):
            at = at[: np.searchsorted(at, len(value) - lag)]
            at = at[value[at] == value[at + lag]]
            if not len(at):
                break
            apart = what[at] ^ what[at + lag]
            bits = np.minimum(np.bitwise_count(apart), np.bitwise_count(apart ^ MIRROR))
            near = at[(bits <= max_bits) & (who[at] != who[at + lag])]
            a, b = place[near], place[near + lag]  # rows ascend within a band
            near = _near_at_shift(hashes, first, row, a, b) <= max_bits + _SLACK_BITS
            pairs.append(row[a[near]] * n_rows + row[b[near]])
    unique = np.unique(np.concatenate(pairs))
    return unique // n_rows, unique % n_rows


def _near_at_shift(
    hashes: np.ndarray, first: np.ndarray, row: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Mean differing bits of a few hashes, if sequences are laid so that hash a meets hash b; 64 if untold.

    By chance one pair of hashes in sixteen that share a band is near; a few more tell copies from chance.
    """
    before = np.minimum(a - first[row[a]], b - first[row[b]])
    after = np.minimum(first[row[a] + 1] - a, first[row[b] + 1] - b) - 1
    plain, mirrored, told = (np.zeros(len(a)) for _ in range(3))
    for share in np.linspace(0, 1, _PROBES):
        step = np.rint(share * (before + after)).astype(np.int64) - before
        x, y = hashes[a + step], hashes[b + step]
        shown = (x != FLAT) & (y != FLAT)
        plain += np.bitwise_count(x ^ y) * shown
        mirrored += np.bitwise_count(x ^ y ^ MIRROR) * shown
        told += shown
    return np.where(told > 0, np.minimum(plain, mirrored) / np.maximum(told, 1), 64.0)
