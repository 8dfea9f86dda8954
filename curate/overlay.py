"""Logos, subtitles and captions burned into moving footage: what stays where it is while the picture moves.

    overlay_area(grays, times_s, moves, move_times_s)        # share of the picture, 0 to 1

An edge that lies at the same place, with the same direction, while the camera has carried the picture behind it
away, belongs to an overlay. Gradients of the sampled pictures are averaged over windows of two seconds: those of
the picture cancel out, those of an overlay stay. How far they must stand out follows from how far the picture
moved (the camera's affine motion, so that an overlay's own stillness does not hide it): a gradient repeats itself
over some three pixels, and only moves beyond that are independent looks. Edges that lie close together form one
overlay, which covers its box.

Where the camera stands still everything persists and overlays cannot be told in this way: NotMoving is raised
rather than a figure made up. `text_area` finds text there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curate.camera import CameraMoves
from curate.motion import cell_places

BLOCK_S = 1.0  # a window is two blocks
LEAST_PICTURES = 4
LEAST_TRAVEL = 0.03  # parts of the diagonal that the picture must move within a window, where it is judged
LEAST_JUDGED = 0.5  # share of the picture that must be judged
LOOK = 3.0  # pixels of travel that give one more independent look at what is behind
LEAST_GRADIENT = 5.0  # luma per pixel, of the mean
STANDS_OUT = 4.0  # standard errors
JOIN = 9  # pixels: edges closer than this are one overlay
LEAST_EDGE = 20  # pixels of edge that make an overlay
BOX_FILL = 0.35  # an overlay that fills less of its box than this covers its edges only
MARGIN = 2  # pixels at the picture's sides that are not looked at: bars end there
_GRID = (9, 16)


class NotMoving(ValueError):
    """The picture does not move enough for overlays to be told from it; the message gives the figure."""


@dataclass
class _Block:
    """Sums over the pictures of one second: gradients right and down, and their squared length, (H, W) each."""

    dx: np.ndarray
    dy: np.ndarray
    square: np.ndarray
    count: int

    def __add__(self, other: _Block) -> _Block:
        return _Block(
            self.dx + other.dx, self.dy + other.dy, self.square + other.square, self.count + other.count
        )


def overlay_area(
    grays: list[np.ndarray], times_s: list[float], moves: CameraMoves, move_times_s: np.ndarray
) -> float:
    """The largest share of the picture that overlays cover at a time, 0 to 1.

    Args:
        grays: (H, W) uint8 luma of a shot's sampled pictures, about 144 lines.
        times_s: their times.
        moves: the camera between them.
        move_times_s: the middle of each pair, in the same clock.

    Raises:
        NotMoving: no window in which the camera moves half of the picture by 3 % of its diagonal.
    """
    numbers = np.floor((np.array(times_s) - times_s[0]) / BLOCK_S + 1e-6).astype(int)
    last = max(0, int(numbers[-1]) - 1)
    areas, most = [], 0.0
    before: _Block | None = None
    for first in range(last + 1):
        chosen = [gray for gray, number in zip(grays, numbers, strict=True) if number == first + 1]
        after = _sums(chosen, grays[0].shape)
        if before is None:
            before = _sums([g for g, n in zip(grays, numbers, strict=True) if n == first], grays[0].shape)
        window, before = before + after, after
        start_s = times_s[0] + first * BLOCK_S
        within = (move_times_s >= start_s) & (move_times_s < start_s + 2 * BLOCK_S)
        if window.count < LEAST_PICTURES or not within.any():
            continue
        travel = _travel(moves.affine[within], move_times_s, within, grays[0].shape)
        judged = float((travel >= LEAST_TRAVEL).mean())
        most = max(most, judged)
        if judged >= LEAST_JUDGED:
            areas.append(float(_overlays(window, travel).mean()))
    if not areas:
        raise NotMoving(
            f"the picture does not move: the camera carries {100 * most:.0f} % of it by {100 * LEAST_TRAVEL:.0f} % "
            f"of the diagonal within {2 * BLOCK_S:.0f} s, and {100 * LEAST_JUDGED:.0f} % are needed"
        )
    return max(areas)


def _sums(grays: list[np.ndarray], shape: tuple[int, ...]) -> _Block:
    total = _Block(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32), 0)
    for gray in grays:
        dx, dy = (part.astype(np.float32) / 8 for part in cv2.spatialGradient(gray))
        total += _Block(dx, dy, dx * dx + dy * dy, 1)
    return total


def _travel(
    affine: np.ndarray, times_s: np.ndarray, within: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(H, W): how far the camera carries each point within the window, in parts of the diagonal."""
    steps_s = np.gradient(times_s)[within] if len(times_s) > 1 else np.full(1, 0.125)
    places = cell_places(*_GRID, shape[1] / shape[0])
    design = np.concatenate([np.ones((*_GRID, 1)), places], -1)
    moved = np.cumsum((design @ affine[:, None]) * steps_s[:, None, None, None] / 100, axis=0)
    moved = np.concatenate([np.zeros_like(moved[:1]), moved])
    span = np.hypot(*np.moveaxis(moved.max(0) - moved.min(0), -1, 0)).astype(np.float32)
    return cv2.resize(span, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _overlays(window: _Block, travel: np.ndarray) -> np.ndarray:
    """(H, W) bool: what overlays cover."""
    n = window.count
    strength = np.hypot(window.dx, window.dy) / n
    spread = np.maximum(0, window.square / n - strength**2)
    looks = np.minimum(n, 1 + travel * np.hypot(*travel.shape) / LOOK)
    edges = (strength > LEAST_GRADIENT) & (strength**2 * looks > STANDS_OUT**2 * spread)
    edges &= travel >= LEAST_TRAVEL
    edges[:MARGIN], edges[-MARGIN:], edges[:, :MARGIN], edges[:, -MARGIN:] = False, False, False, False
    marks = edges.astype(np.uint8)
    joined = cv2.dilate(marks, np.ones((JOIN, JOIN), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
    edge_counts = np.bincount(labels[edges], minlength=count)
    covered = np.zeros(edges.shape, bool)
    for label in range(1, count):
        if edge_counts[label] < LEAST_EDGE:
            continue
        x, y, w, h, area = boxes[label]
        # Dilation has grown the box by half of JOIN on every side.
        grown = JOIN // 2
        y0, y1, x0, x1 = y + grown, y + h - grown, x + grown, x + w - grown
        if area >= BOX_FILL * w * h:
            covered[max(0, y0) : y1, max(0, x0) : x1] = True
        else:
            covered |= cv2.erode((labels == label).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return covered
