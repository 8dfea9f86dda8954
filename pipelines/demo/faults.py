"""Faults that real footage has, one function each: a filter exists for every one of them.

pictures = PICTURE_FAULTS["blur"](pictures)         # (T, H, W, 3) uint8 in and out
overlay, box = logo(width=256, height=144)          # box: x, y, w, h in pixels
pictures = burn(pictures, overlay, box)
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Box = tuple[int, int, int, int]

DARK_GAIN = 0.08
BLUR_SHARE = 0.05  # sigma as a share of the short side
BAR_SHARE = 0.125  # each bar of a letterbox, as a share of the height
_FINE, _FONT = 4, cv2.FONT_HERSHEY_SIMPLEX  # overlays are drawn larger and averaged
SUBTITLES = (
    ("SHOT IN ONE LONG DAY", "BY THE FILM CLUB"),
    ("PART TWO OF THE TRIP", "SUBSCRIBE FOR MORE"),
    ("AND NOW IT GOES ON", "AS IT ALWAYS DID"),
)


def darken(pictures: np.ndarray) -> np.ndarray:
    """Underexposed almost to black."""
    return (pictures * DARK_GAIN).astype(np.uint8)


def blacken(pictures: np.ndarray) -> np.ndarray:
    """Black pictures."""
    return np.zeros_like(pictures)


def blur(pictures: np.ndarray) -> np.ndarray:
    """Out of focus."""
    sigma = BLUR_SHARE * min(pictures.shape[1:3])
    return np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in pictures])


#: Faults that change each picture by itself.
PICTURE_FAULTS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    "dark": darken,
    "black": blacken,
    "blur": blur,
}


def letterbox_picture(width: int, height: int) -> Box:
    """The picture inside the bars of a letterboxed film; even, as H.264 wants it."""
    bar = 2 * round(BAR_SHARE * height / 2)
    return 0, bar, width, height - 2 * bar


def add_bars(pictures: np.ndarray, height: int) -> np.ndarray:
    """Black bars above and below, up to the given height."""
    bar = (height - pictures.shape[1]) // 2
    return np.pad(pictures, ((0, 0), (bar, height - pictures.shape[1] - bar), (0, 0), (0, 0)))


def subtitle(width: int, height: int, choice: int) -> tuple[np.ndarray, Box]:
    """Two burned-in lines of white text with a dark outline: an overlay for `burn` and the text's box."""
    lines = SUBTITLES[choice % len(SUBTITLES)]
    overlay = np.zeros((height * _FINE, width * _FINE, 4), np.uint8)
    scale = 0.84 * overlay.shape[1] / max(cv2.getTextSize(line, _FONT, 1.0, 2)[0][0] for line in lines)
    step, pen = round(40 * scale), max(round(2.2 * scale), 1)
    for row, line in enumerate(lines):
        wide = cv2.getTextSize(line, _FONT, scale, pen)[0][0]
        below = step * (len(lines) - 1 - row) + round(0.06 * overlay.shape[0])
        at = ((overlay.shape[1] - wide) // 2, overlay.shape[0] - below)
        cv2.putText(overlay, line, at, _FONT, scale, (10, 10, 10, 255), 3 * pen)
        cv2.putText(overlay, line, at, _FONT, scale, (255, 255, 255, 255), pen)
    return _finished(overlay)


def logo(width: int, height: int) -> tuple[np.ndarray, Box]:
    """A channel's badge in the upper right corner: an overlay for `burn` and its box."""
    overlay = np.zeros((height * _FINE, width * _FINE, 4), np.uint8)
    short = min(overlay.shape[:2])
    w, h, gap, edge = (round(share * short) for share in (0.46, 0.26, 0.06, 0.012))
    x, y = overlay.shape[1] - gap - w, gap
    cv2.rectangle(overlay, (x, y), (x + w, y + h), (250, 250, 250, 255), -1)
    cv2.rectangle(overlay, (x + edge, y + edge), (x + w - edge, y + h - edge), (176, 20, 36, 255), -1)
    (unit_w, unit_h), _ = cv2.getTextSize("TV 7", _FONT, 1.0, 2)
    scale = 0.7 * w / unit_w
    at = (x + round((w - unit_w * scale) / 2), y + round((h + unit_h * scale) / 2))
    cv2.putText(overlay, "TV 7", at, _FONT, scale, (255, 255, 255, 255), max(round(3 * scale), 1))
    return _finished(overlay)


def burn(pictures: np.ndarray, overlay: np.ndarray, box: Box) -> np.ndarray:
    """Lay an overlay (H, W, 4), colours already times alpha, over every picture within its box."""
    x, y, w, h = box
    part = overlay[y : y + h, x : x + w].astype(np.float32)
    out = pictures.copy()
    under = out[:, y : y + h, x : x + w]
    under[:] = under * (1 - part[..., 3:] / 255) + part[..., :3] + 0.5
    return out


def _finished(fine: np.ndarray) -> tuple[np.ndarray, Box]:
    """The overlay in its real size, and the box of what it covers."""
    size = fine.shape[1] // _FINE, fine.shape[0] // _FINE
    overlay = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
    rows = np.flatnonzero(overlay[..., 3].any(1))
    columns = np.flatnonzero(overlay[..., 3].any(0))
    x, y = int(columns[0]), int(rows[0])
    return overlay, (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
