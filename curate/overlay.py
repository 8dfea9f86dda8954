"""Logos, subtitles and captions burned into moving footage: what stays where it is while the picture moves.

    overlay_area(grays, times_s, moves, fields.times_s)      # share of the picture, 0 to 1

A sharp edge that lies at the same place, with the same direction, while the camera has carried the picture behind it
away, belongs to an overlay. Gradients of the sampled pictures are averaged over windows of two seconds: those of the
picture cancel out, those of an overlay stay. Only where the picture has moved far enough, and across the edge rather
than along it, does staying mean anything; how far follows from the camera's affine motion, so that an overlay's own
stillness does not hide it. Edges that lie close together form one overlay, which covers its box.

Where the camera stands still everything stays, and overlays cannot be told in this way: NotMoving is raised rather
than a figure made up. `text_area` finds text there. What moves exactly with the camera, such as a car filmed from
another one beside it, counts as an overlay.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curate.camera import CameraMoves
from curate.motion import cell_places

BLOCK_S = 1.0  # a window is two blocks
LEAST_PICTURES = 4
# Parts of the diagonal by which the picture must move within a window: anywhere, and across an edge.
LEAST_TRAVEL, LEAST_ACROSS = 0.05, 0.03
LEAST_JUDGED = 0.5  # share of the picture that must be judged
LOOK = 3.0  # pixels of travel that give one more independent look at what is behind an edge
WIDEST_EDGE = 13  # pixels: blurred edges, which take long to move away, are filtered out
LEAST_GRADIENT = 4.0  # luma per pixel, of the mean
# Of the strongest gradient near by: the filter leaves a faint halo around strong edges.
LEAST_OF_NEAR = 0.25
STANDS_OUT = 4.0  # standard errors
MOST_EDGES = 0.35  # more than this share of all edges cannot be overlays: the camera was misjudged
# What covers more than half of the picture is no overlay: a smooth ground in which few edges show.
MOST_COVERED = 0.5
JOIN = 9  # pixels: edges closer than this are one overlay
LEAST_EDGE = 20  # pixels of edge that make an overlay
BOX_FILL = 0.35  # an overlay that fills less of its box than this covers its edges only
MARGIN = 2  # pixels at the picture's sides that are not looked at: bars end there
_GRID = (9, 16)


class NotMoving(ValueError):
    """The picture does not move enough for overlays to be told from it; the message gives the figure."""


@dataclass
class _Block:
    """Sums over the pictures of one second, (H, W) each: gradients right and down, their length and its square."""

    dx: np.ndarray
    dy: np.ndarray
    length: np.ndarray
    square: np.ndarray
    count: int

    @classmethod
    def of(cls, grays: list[np.ndarray], shape: tuple[int, ...]) -> _Block:
        dx, dy, length, square = np.zeros((4, *shape), np.float32)
        for gray in grays:
            sharp = cv2.addWeighted(gray, 1, cv2.blur(gray, (WIDEST_EDGE, WIDEST_EDGE)), -1, 128)
            x, y = (part.astype(np.float32) / 8 for part in cv2.spatialGradient(sharp))
            squares = x * x + y * y
            dx += x
            dy += y
            length += np.sqrt(squares)
            square += squares
        return cls(dx, dy, length, square, len(grays))

    def __add__(self, other: _Block) -> _Block:
        return _Block(
            self.dx + other.dx,
            self.dy + other.dy,
            self.length + other.length,
            self.square + other.square,
            self.count + other.count,
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
        NotMoving: there is no window in which the camera moves half of the picture by 5 % of its diagonal.
    """
    numbers = np.floor((np.array(times_s) - times_s[0]) / BLOCK_S + 1e-6).astype(int)
    blocks = [
        _Block.of([g for g, n in zip(grays, numbers, strict=True) if n == number], grays[0].shape)
        for number in range(int(numbers[-1]) + 1)
    ]
    areas, most = [], 0.0
    for first in range(max(1, len(blocks) - 1)):
        window = blocks[first] + blocks[first + 1] if len(blocks) > 1 else blocks[0]
        start_s = times_s[0] + first * BLOCK_S
        within = (move_times_s >= start_s) & (move_times_s < start_s + 2 * BLOCK_S)
        if window.count < LEAST_PICTURES or not within.any():
            continue
        travel = _travel(moves.affine[within], move_times_s, within, grays[0].shape)
        judged = float((np.hypot(travel[..., 0], travel[..., 1]) >= LEAST_TRAVEL).mean())
        most = max(most, judged)
        if judged >= LEAST_JUDGED:
            edges, share = _still_edges(window, travel)
            area = float(_covered(edges).mean())
            if share <= MOST_EDGES and area <= MOST_COVERED:
                areas.append(area)
    if not areas and most >= LEAST_JUDGED:
        raise NotMoving("no overlay can be told: too much of the picture stays although the camera moves")
    if not areas:
        raise NotMoving(
            f"the picture does not move: the camera carries {100 * most:.0f} % of it by {100 * LEAST_TRAVEL:.0f} % "
            f"of the diagonal within {2 * BLOCK_S:.0f} s"
        )
    return max(areas)


def _travel(
    affine: np.ndarray, times_s: np.ndarray, within: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(H, W, 2): how far right or left, down or up, the camera carries each point, in parts of the diagonal."""
    steps_s = np.gradient(times_s)[within] if len(times_s) > 1 else np.full(1, 0.125)
    places = cell_places(*_GRID, shape[1] / shape[0])
    design = np.concatenate([np.ones((*_GRID, 1)), places], -1)
    moved = np.cumsum((design @ affine[:, None]) * steps_s[:, None, None, None] / 100, axis=0)
    moved = np.concatenate([np.zeros_like(moved[:1]), moved])
    span = (moved.max(0) - moved.min(0)).astype(np.float32)
    return cv2.resize(span, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _still_edges(window: _Block, travel: np.ndarray) -> tuple[np.ndarray, float]:
    """(H, W) bool: edges that stay while the picture moves across them; and their share of all edges."""
    n = window.count
    strength = np.hypot(window.dx, window.dy) / n
    spread = np.maximum(0, window.square / n - strength**2)
    across = (np.abs(window.dx) * travel[..., 0] + np.abs(window.dy) * travel[..., 1]) / (n * strength + 1e-6)
    looks = np.minimum(n, 1 + across * np.hypot(*strength.shape) / LOOK)
    near = cv2.dilate(strength, np.ones((WIDEST_EDGE, WIDEST_EDGE), np.uint8))
    edges = (strength > np.maximum(LEAST_GRADIENT, LEAST_OF_NEAR * near)) & (
        strength**2 * looks > STANDS_OUT**2 * spread
    )
    edges &= across >= LEAST_ACROSS
    edges[:MARGIN], edges[-MARGIN:], edges[:, :MARGIN], edges[:, -MARGIN:] = False, False, False, False
    return edges, float(edges.sum() / max(1, (window.length > LEAST_GRADIENT * n).sum()))


def _covered(edges: np.ndarray) -> np.ndarray:
    """(H, W) bool: what the overlays cover that these edges belong to."""
    joined = cv2.dilate(edges.astype(np.uint8), np.ones((JOIN, JOIN), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
    edge_counts = np.bincount(labels[edges], minlength=count)
    covered = np.zeros(edges.shape, bool)
    for label in range(1, count):
        if edge_counts[label] < LEAST_EDGE:
            continue
        x, y, w, h, area = boxes[label]
        grown = JOIN // 2  # by dilation, on every side
        if area >= BOX_FILL * w * h:
            covered[y + grown : y + h - grown, x + grown : x + w - grown] = True
        else:
            covered |= cv2.erode((labels == label).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return covered
