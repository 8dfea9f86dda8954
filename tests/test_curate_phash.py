"""Copies are found by their hashes over time: footage re-encoded, scaled, cropped, mirrored and trimmed."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

from curate.decide import CopyConfig
from curate.near_copies import near_copies
from curate.phash import FLAT, difference, phashes, unpack
from curate.tables import CLIPS

Samples = tuple[list[np.ndarray], list[float], float, float]


def samples(path: Path) -> Samples:
    grays, times_s = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            if frame.time >= len(times_s) / 8 - 0.002:
                grays.append(frame.reformat(frame.width * 144 // frame.height, 144, "gray").to_ndarray())
                times_s.append(frame.time)
    return grays, times_s, 0.0, times_s[-1] + 0.125


def jpeg(gray: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 35])[1], cv2.IMREAD_GRAYSCALE)


def crop(gray: np.ndarray) -> np.ndarray:
    h, w = gray.shape
    return gray[round(0.025 * h) : round(0.975 * h), round(0.025 * w) : round(0.975 * w)]


def variant(of: Samples, name: str) -> Samples:
    grays, times_s, start_s, end_s = of
    if name in ("encoded", "all"):
        grays = [jpeg(gray) for gray in grays]
    if name in ("scaled", "all"):
        grays = [cv2.resize(gray, (128, 72), interpolation=cv2.INTER_AREA) for gray in grays]
    if name in ("cropped", "all"):
        grays = [crop(gray) for gray in grays]
    if name in ("mirrored", "all"):
        grays = [np.ascontiguousarray(gray[:, ::-1]) for gray in grays]
    if name in ("trimmed", "all"):
        a, b = 0.1 * end_s, 0.9 * end_s
        inside = [a <= time_s < b for time_s in times_s]
        grays = [gray for gray, yes in zip(grays, inside, strict=True) if yes]
        times_s = [time_s for time_s, yes in zip(times_s, inside, strict=True) if yes]
        start_s, end_s = a, b
    return grays, times_s, start_s, end_s


def table(hashes: list[str], seconds: list[float], widths: list[int]) -> pa.Table:
    rows = [
        {
            "clip_id": f"{i:024x}",
            "source_id": "s",
            "start_s": 0.0,
            "end_s": s,
            "width": w,
            "height": 9,
            "phash": h,
        }
        for i, (h, s, w) in enumerate(zip(hashes, seconds, widths, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=CLIPS)


VARIANTS = ("encoded", "scaled", "cropped", "mirrored", "trimmed", "all")


def test_copies_of_footage_are_found_and_nothing_else(footage: Path) -> None:
    originals = [samples(path) for path in sorted((footage / "clips").glob("*.mp4"))[:16]]
    hashes, seconds, widths = [], [], []
    for original in originals:
        for made in (original, *(variant(original, name) for name in VARIANTS)):
            hashes.append(phashes(*made))
            seconds.append(made[3] - made[2])
            widths.append(16 if made is original else 8)
    clips = table(hashes, seconds, widths)
    found = near_copies(clips, np.ones(len(clips), bool), CopyConfig())
    each = 1 + len(VARIANTS)
    right = sum(row // each == better // each for row, (better, _) in found.items())
    assert right >= 0.95 * len(originals) * len(VARIANTS)
    assert right >= 0.99 * len(found)


def test_flat_pictures_are_like_nothing() -> None:
    black = phashes([np.zeros((144, 256), np.uint8)] * 16, [i / 8 for i in range(16)], 0.0, 2.0)
    assert black == "0000000000000000-" * 2 + "0000000000000000"
    assert difference(np.full(3, FLAT), np.full(3, FLAT)) == float("inf")
    clips = table([black, black], [2.0, 2.0], [8, 8])
    assert near_copies(clips, np.ones(2, bool), CopyConfig()) == {}


def test_hashes_are_read_back_row_by_row() -> None:
    column = pa.chunked_array([["00000000000000ff-0000000000000001", None, "8000000000000000"]])
    hashes, first = unpack(column)
    assert hashes.tolist() == [255, 1, 1 << 63]
    assert first.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize(("seconds", "count"), [(0.2, 1), (1.0, 1), (3.0, 5)])
def test_a_hash_for_each_half_second(seconds: float, count: int) -> None:
    gray = np.arange(144 * 256, dtype=np.uint32).reshape(144, 256).astype(np.uint8)
    assert len(phashes([gray], [0.0], 0.0, seconds).split("-")) == count
