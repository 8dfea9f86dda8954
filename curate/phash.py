"""Perceptual hashes of a shot over time, that survive re-encoding, resizing, small crops, mirroring and trims.

    text = phashes(grays, times_s, start_s, end_s)     # "9f3c...-9f3d..." : the phash column
    hashes, first = unpack(column)                      # uint64 of all rows, and where each row's begin

Each hash holds the signs of 64 low DCT coefficients of the mean picture of one second (after TIRI-DCT,
Esmaeili et al., 2011); there are two a second. Mirroring a picture changes the sign of the coefficients of odd
horizontal frequency only, so the hash of the mirrored picture is `hash ^ MIRROR`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STEP_S = 0.5
WINDOW_S = 1.0
# Below this deviation of the luma a picture shows nothing that could be recognised; its hash is FLAT.
_LEAST_DEVIATION = 4.0
FLAT = np.uint64(0)

# (row, column) of the DCT, lowest frequencies first, without the mean.
_ORDER = sorted(
    ((v, u) for v in range(9) for u in range(9) if (v, u) != (0, 0)), key=lambda at: (sum(at), at)
)[:64]
MIRROR = np.uint64(sum(1 << (63 - i) for i, (_, u) in enumerate(_ORDER) if u % 2))


def phashes(grays: list[np.ndarray], times_s: list[float], start_s: float, end_s: float) -> str:
    """Hashes of a shot, 16 hex digits each, joined by -; one for each half second that it lasts.

    `grays`: luma pictures (H, W) uint8 inside the crop, at least one, at `times_s` (ascending seconds).
    """
    import cv2

    smalls = np.stack([cv2.resize(g, (32, 32), interpolation=cv2.INTER_AREA) for g in grays]).astype(
        np.float32
    )
    times = np.asarray(times_s)
    found = []
    for i in range(max(1, round((end_s - start_s) / STEP_S) - 1)):
        middle = start_s + (i + 1) * STEP_S
        near = np.abs(times - middle) <= WINDOW_S / 2 + 1e-6
        if not near.any():
            near = np.arange(len(times)) == np.abs(times - middle).argmin()
        found.append(f"{_hash(smalls[near].mean(0)):016x}")
    return "-".join(found)


def _hash(small: np.ndarray) -> int:
    import cv2

    if small.std() < _LEAST_DEVIATION:
        return int(FLAT)
    frequencies = cv2.dct(small)
    value = 0
    for v, u in _ORDER:
        value = value << 1 | int(frequencies[v, u] > 0)
    return value


def unpack(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, first): row i of the phash column has hashes[first[i]:first[i + 1]] (uint64); null has none."""
    digits = pc.replace_substring(column.cast(pa.large_string()), "-", "")
    lengths = pc.fill_null(pc.binary_length(digits), 0).to_numpy().astype(np.int64)
    text = "".join(pc.fill_null(digits, "").to_pylist())
    hashes = np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64)
    return hashes, np.concatenate([[0], np.cumsum(lengths // 16)])


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean differing bits of 64 between two sequences at their best shift, plain or mirrored; inf if untold.

    At least three quarters of the shorter sequence must meet the other, and half of that must show something.
    """
    if len(a) > len(b):
        a, b = b, a
    least = max(1, -(-3 * len(a) // 4))
    best = float("inf")
    for shift in range(least - len(a), len(b) - least + 1):
        x = a[max(0, -shift) : len(b) - shift]
        y = b[max(0, shift) : max(0, shift) + len(x)]
        told = (x != FLAT) & (y != FLAT)
        if 2 * int(told.sum()) < len(x) or not told.any():
            continue
        apart = x[told] ^ y[told]
        plain, mirrored = np.bitwise_count(apart).mean(), np.bitwise_count(apart ^ MIRROR).mean()
        best = min(best, float(plain), float(mirrored))
    return best
