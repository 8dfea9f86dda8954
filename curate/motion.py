"""How fast the picture moves: dense optical flow between sampled pictures.

    fields = flow_fields(grays, times_s)      # grays: (H, W) uint8 luma of about 144 lines, some 8 a second
    carried = camera_flow(fields, moves)      # of curate.camera
    motion(fields, carried)                   # % of the picture's diagonal per second
    object_motion(fields, carried)            # the part of it that the camera does not explain

The flow is DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016). DIS looks near by only,
and loses what moves further than about 8 % of the diagonal between two pictures. So the shift of the picture as
a whole is found first, by phase correlation (Kuglin and Hines, 1975) of pictures of half the size; where it is
large and explains the second picture better than no shift does, the flow is measured on the part that both
pictures show, and the shift is added.

Everything is divided by the real time between two pictures, so that the frame rate does not matter, and by the
diagonal, so that the resolution does not. Data-Juicer's motion score, for comparison, is the mean length of
Farneback's flow between pictures half a second apart, in pixels of the source and not divided by anything: it
grows with the resolution, and its pixels per 0.5 s are not this file's percent per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

CELL = 8  # pixels; flow is kept as means over cells of this size
# Shorter shifts (in parts of the diagonal) are left to DIS, which is exact there.
LEAST_SHIFT = 0.04
LEAST_SIDE = 48  # pixels that DIS needs: it crashes on pictures much smaller
# Texture of a cell (see _texture) at which its flow is half trusted; coding noise stays below it.
HALF_TRUST = 2.0
# Texture at which a cell's flow is half believed, where it is not one voice among many as in the camera's fit: what
# optical flow says of flat parts is made up from their neighbourhood, so they count as moving with the camera.
HALF_CLEAR = 30.0


@dataclass(frozen=True)
class FlowFields:
    """Speeds of the picture's cells, between N pairs of sampled pictures.

    Attributes:
        speeds: (N, R, C, 2) float32, to the right and down, in % of the diagonal per second.
        trust: (N, R, C) float32, 0 where there is no texture to follow, towards 1 where there is.
        clear: (N, R, C) float32, the same, stricter.
        seen: (N, R, C) float32, 1 for cells that both pictures show, 0 for those that left the picture.
        change: (N, R, C) float32, mean absolute difference of luma between the two pictures.
        contrast: (N, R, C, 2) float32, mean slope of the luma to the right and down, per part of the diagonal.
        places: (R, C, 2) float32, cell centres from the picture's centre, in parts of the diagonal.
        times_s: (N,) middle of each pair in seconds.
        steps_s: (N,) seconds between the pictures of each pair.
    """

    speeds: np.ndarray
    trust: np.ndarray
    clear: np.ndarray
    seen: np.ndarray
    change: np.ndarray
    contrast: np.ndarray
    places: np.ndarray
    times_s: np.ndarray
    steps_s: np.ndarray


def motion(fields: FlowFields, carried: np.ndarray) -> float:
    """Median over time of the mean length of the flow, in % of the diagonal per second.

    `carried`: (N, R, C, 2) what the camera's motion gives each cell, in the unit of `fields.speeds`.
    """
    lengths = _lengths(carried) + fields.clear * (_lengths(fields.speeds) - _lengths(carried))
    return _typical(fields, lengths)


def object_motion(fields: FlowFields, carried: np.ndarray) -> float:
    """The same of what is left of the flow beside the camera's."""
    return _typical(fields, fields.clear * _lengths(fields.speeds - carried))


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _typical(fields: FlowFields, lengths: np.ndarray) -> float:
    return float(np.median((lengths * fields.seen).sum((1, 2)) / fields.seen.sum((1, 2))))


def flow_fields(grays: list[np.ndarray], times_s: list[float]) -> FlowFields:
    """Flow between neighbours of at least two pictures (H, W) uint8, all of one size."""
    grays = [_enlarged(gray) for gray in grays]
    height, width = grays[0].shape
    rows, columns = max(2, round(height / CELL)), max(2, round(width / CELL))
    diagonal = float(np.hypot(height, width))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    halves = [_half(gray) for gray in grays]
    window = cv2.createHanningWindow(halves[0].shape[::-1], cv2.CV_32F)
    steps_s = np.diff(times_s)
    speeds, seen = [], []
    for i, (one, two) in enumerate(pairwise(grays)):
        dx, dy = _shift(halves[i], halves[i + 1], window, LEAST_SHIFT * diagonal)
        if dx or dy:
            field, shown = _shifted_flow(dis, one, two, dx, dy)
            share = cv2.resize(shown, (columns, rows), interpolation=cv2.INTER_AREA)
            seen.append((share > 0.99).astype(np.float32))
        else:
            field = dis.calc(one, two, None)  # type: ignore[call-overload]
            seen.append(np.ones((rows, columns), np.float32))
        mean = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_AREA)
        speeds.append(mean * np.float32(100 / (diagonal * steps_s[i])))
    looks = [_texture(gray, (columns, rows)) for gray in grays[:-1]]
    textures, contrasts = (np.stack(part) for part in zip(*looks, strict=True))
    changes = [
        cv2.resize(cv2.absdiff(one, two), (columns, rows), interpolation=cv2.INTER_AREA)
        for one, two in pairwise(grays)
    ]
    inside = np.stack(seen)
    return FlowFields(
        np.stack(speeds),
        inside * textures**2 / (textures**2 + HALF_TRUST**2),
        inside * textures**2 / (textures**2 + HALF_CLEAR**2),
        inside,
        np.stack(changes).astype(np.float32),
        contrasts * np.float32(diagonal),
        cell_places(rows, columns, width / height),
        (np.array(times_s[:-1]) + times_s[1:]) / 2,
        steps_s,
    )


def cell_places(rows: int, columns: int, aspect: float) -> np.ndarray:
    """(R, C, 2) float32: centres of the cells of a picture of this width over height, as in FlowFields."""
    height = 1 / np.hypot(1, aspect)
    y, x = np.meshgrid(
        ((np.arange(rows) + 0.5) / rows - 0.5) * height,
        ((np.arange(columns) + 0.5) / columns - 0.5) * height * aspect,
        indexing="ij",
    )
    return np.stack([x, y], -1).astype(np.float32)


def _shifted_flow(
    dis: cv2.DISOpticalFlow, one: np.ndarray, two: np.ndarray, dx: int, dy: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (H, W, 2) of a picture that moved by about (dx, dy), and (H, W) float32 1 where both show it, else 0."""
    height, width = one.shape
    y, x = slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx))
    moved = two[y.start + dy : y.stop + dy, x.start + dx : x.stop + dx]
    flow = dis.calc(np.ascontiguousarray(one[y, x]), np.ascontiguousarray(moved), None)  # type: ignore[call-overload]
    field = np.zeros((height, width, 2), np.float32)
    shown = np.zeros((height, width), np.float32)
    field[y, x] = flow + np.array([dx, dy], np.float32)
    shown[y, x] = 1
    return field, shown


def _enlarged(gray: np.ndarray) -> np.ndarray:
    scale = LEAST_SIDE / min(gray.shape)
    if scale <= 1:
        return gray
    return cv2.resize(gray, tuple(max(LEAST_SIDE, round(scale * side)) for side in gray.shape[::-1]))


def _half(gray: np.ndarray) -> np.ndarray:
    size = gray.shape[1] // 2, gray.shape[0] // 2
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _shift(one: np.ndarray, two: np.ndarray, window: np.ndarray, least: float) -> tuple[int, int]:
    """How far the whole picture moved (right, down), in pixels of full size; (0, 0) if not far or not clear."""
    # Windowed here, not by phaseCorrelate: it would write into the pictures.
    (x, y), _ = cv2.phaseCorrelate(one * window, two * window)
    dx, dy = round(x), round(y)
    height, width = one.shape
    left = 2 * min(width - abs(dx), height - abs(dy))
    if 2 * np.hypot(dx, dy) < least or left < LEAST_SIDE:
        return 0, 0
    to_y, to_x = slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx))
    was = one[to_y.start - dy : to_y.stop - dy, to_x.start - dx : to_x.stop - dx]
    with_shift = cv2.norm(np.ascontiguousarray(was), np.ascontiguousarray(two[to_y, to_x]), cv2.NORM_L1)
    without = cv2.norm(one, two, cv2.NORM_L1) * was.size / one.size
    return (2 * dx, 2 * dy) if with_shift < without else (0, 0)


def _texture(gray: np.ndarray, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell the smaller eigenvalue of its structure tensor (Shi and Tomasi, 1994), and its mean slopes.

    The first is large only where the luma changes in two directions: along a straight edge motion cannot be
    seen. The second, (R, C, 2), is the mean absolute slope to the right and down in luma per pixel.
    """
    dx, dy = (part.astype(np.float32) for part in cv2.spatialGradient(gray))
    xx, yy, xy, x, y = (
        cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        for part in (dx * dx, dy * dy, dx * dy, np.abs(dx), np.abs(dy))
    )
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2), np.stack([x, y], -1) / 8
