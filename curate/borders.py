"""The picture inside its black bars: letterbox, pillarbox, or both.

    x, y, w, h = borders(lumas)               # lumas: (H, W) uint8 pictures of one shot, a few a second
    crop = displayed_crop((x, y, w, h), lumas[0].shape, (1920, 1080))

A bar is not merely dark: it ends in a straight line. So every column says where, coming from the top, it is first
different from the bar at any time of the shot, and the bar ends where most of them agree. In dark footage they do
not agree, and there is no bar. Subtitles and logos within a bar make some columns speak up too early; the others
outvote them, with the help of the bar on the other side, which is of the same size as a rule. Rows do the same for
the bars at the sides.

"At any time" means the second brightest and second darkest of the pictures looked at: a flash decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MOST_PICTURES = 16
BAR_LUMA = 48  # a bar is never brighter
UNLIKE_BAR = 12  # luma further from the bar's than this is picture: coding noise stays below it
# Shares of all columns (rows) that must agree where a bar ends; for two bars, the sum of both shares.
AGREE_ON_PAIR, AGREE_ON_UNLIKE_PAIR, AGREE_ON_ONE = 0.6, 1.1, 0.8
LEAST_AGREE, LEAST_AGREE_UNLIKE = 0.1, 0.45  # of each of the two
LIKE_SIZE = (
    0.03  # two bars are a pair if they differ by no more than this part of the picture's height (width)
)
# Of the columns that speak of a bar, at least this share; the rest are subtitles and logos within it.
OUTVOTE = 0.3
# Share of the pixels within that must be unlike the bar at some time, or it is a title on a dark ground.
LEAST_FILLED = 0.38

Box = tuple[int, int, int, int]


def borders(lumas: list[np.ndarray]) -> Box:
    """x, y, w, h of the picture inside its bars, in pixels of `lumas`; the whole if there are none."""
    darkest, brightest = _extremes(lumas)
    width = brightest.shape[1]
    # Each pass looks within what the others left: columns in a bar at the side cannot say where a letterbox ends.
    y0, y1 = _inside(darkest, brightest)
    x0, x1 = _inside(darkest[y0:y1].T, brightest[y0:y1].T)
    if x1 - x0 < width:
        y0, y1 = _inside(darkest[:, x0:x1], brightest[:, x0:x1])
    return x0, y0, x1 - x0, y1 - y0


def evenly(count: int) -> np.ndarray:
    """Indices of the pictures that are looked at, of `count`: all, or 16 spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_PICTURES)).round().astype(int))


def displayed_crop(box: Box, shape: tuple[int, ...], size: tuple[int, int]) -> dict[str, int]:
    """The box in even pixels of the displayed picture (width, height), rounded inwards: never a line of a bar."""
    x, y, w, h = box
    across = _even(x, x + w, shape[1], size[0])
    down = _even(y, y + h, shape[0], size[1])
    return {"x": across[0], "y": down[0], "w": across[1] - across[0], "h": down[1] - down[0]}


def _even(first: int, end: int, small: int, full: int) -> tuple[int, int]:
    scale = full / small
    low = 0 if first == 0 else 2 * int(np.ceil(first * scale / 2 - 1e-6))
    # Where there is no bar, the side of the picture stays, even if it is odd.
    high = full if end == small else 2 * int(end * scale / 2 + 1e-6)
    return low, max(low + 2, high)


def _extremes(lumas: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) each: of every pixel the second darkest and second brightest value over time.

    Of less than four pictures it is the darkest and the brightest.
    """
    picked = evenly(len(lumas))
    low, high = lumas[picked[0]], lumas[picked[0]]
    second_low, second_high = np.full_like(low, 255), np.zeros_like(high)
    for i in picked[1:]:
        second_high, high = cv2.max(second_high, cv2.min(high, lumas[i])), cv2.max(high, lumas[i])
        second_low, low = cv2.min(second_low, cv2.max(low, lumas[i])), cv2.min(low, lumas[i])
    return (second_low, second_high) if len(picked) >= 4 else (low, high)


@dataclass(frozen=True)
class _Side:
    """Where columns first differ from a bar at the top, if there is one there."""

    unlike: np.ndarray  # (H/2, W) float32: how far each pixel is from the bar's luma
    first: np.ndarray  # (W,) line where each column first differs; H if nowhere
    votes: np.ndarray  # (H/2,) columns by that line

    @classmethod
    def look(cls, darkest: np.ndarray, brightest: np.ndarray) -> _Side:
        half = len(darkest) // 2
        level = float(np.median(brightest[:2]))
        if level > BAR_LUMA:
            half = 0
        unlike = np.maximum(brightest[:half] - np.float32(level), np.float32(level) - darkest[:half])
        differs = unlike > UNLIKE_BAR
        first = np.where(differs.any(0), differs.argmax(0), len(darkest)) if half else np.zeros(0, int)
        return cls(unlike, first, np.bincount(first, minlength=len(darkest) + 1)[:half])

    def candidates(self) -> list[tuple[int, float, float]]:
        """(line, share of columns that agree on it, share that differ before it) of lines where a bar may end."""
        if not len(self.votes):
            return []
        # An edge blurred by the encoder is spread over three lines.
        near = np.convolve(self.votes, np.ones(3), "same") / len(self.first)
        before = np.cumsum(self.votes) / len(self.first)
        lines = [int(i) for i in np.flatnonzero(near >= LEAST_AGREE) if i >= 2]
        found = [
            (i, float(near[i]), float(before[i - 2])) for i in lines if near[i] == near[i - 2 : i + 3].max()
        ]
        return sorted(found, key=lambda one: -one[1])[:8]

    def inside(self, line: int) -> int:
        """The first line at `line` or just beside it that is picture alone: not much fainter than those below."""
        columns = np.abs(self.first - line) <= 1
        profile = np.median(self.unlike[line - 1 : line + 6, columns], axis=1)
        return line - 1 + int((profile > 0.6 * np.median(profile[len(profile) // 2 :])).argmax())

    def filled(self, line: int) -> float:
        """Share of the pixels between `line` and the middle of the picture that are unlike the bar."""
        return float((self.unlike[line:] > UNLIKE_BAR).mean())


def _inside(darkest: np.ndarray, brightest: np.ndarray) -> tuple[int, int]:
    """The first line of the picture below a bar above, and the first of the bar below it."""
    height = len(darkest)
    sides = _Side.look(darkest, brightest), _Side.look(darkest[::-1], brightest[::-1])
    above, below = (side.candidates() for side in sides)
    best, lines = 0.0, (0, 0)
    for one, agree_one, early_one in above:
        for two, agree_two, early_two in below:
            agree, early = agree_one + agree_two, early_one + early_two
            if abs(one - two) <= max(2, LIKE_SIZE * height):
                sure = agree >= AGREE_ON_PAIR
            else:
                sure = agree >= AGREE_ON_UNLIKE_PAIR and min(agree_one, agree_two) >= LEAST_AGREE_UNLIKE
            if sure and agree >= OUTVOTE * (agree + early) and agree > best:
                best, lines = agree, (one, two)
    if not best:
        lone = [next((c[0] for c in found if c[1] >= AGREE_ON_ONE), 0) for found in (above, below)]
        lines = lone[0], lone[1]
    first, last = (side.inside(line) if line else 0 for side, line in zip(sides, lines, strict=True))
    filled = [side.filled(line) for side, line in zip(sides, (first, last), strict=True) if line]
    return (first, height - last) if not filled or np.mean(filled) >= LEAST_FILLED else (0, height)
