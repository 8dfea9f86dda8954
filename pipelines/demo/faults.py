"""Faults that real footage has, one function each: a filter exists for every one of them.

pictures = PICTURE_FAULTS["blur"](pictures)         # (T, H, W, 3) uint8 in and out
overlay, box = logo(width=256, height=144)          # box: x, y, w, h in pixels
pictures = burn(pictures, overlay)
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Box = tuple[int, int, int, int]

DARK_GAIN = 0.1
BLUR_SHARE = 0.05  # sigma as a share of the short side
BAR_SHARE = 0.125  # each bar of a letterbox, as a share of the height
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
    """Two burned-in lines of white text with a dark outline: an overlay (H, W, 4) uint8 and the text's box."""
    overlay = np.zeros((height, width, 4), np.uint8)
    font, lines = cv2.FONT_HERSHEY_SIMPLEX, SUBTITLES[choice % len(SUBTITLES)]
    unit = max(cv2.getTextSize(line, font, 1.0, 2)[0][0] for line in lines)
    scale = 0.86 * width / unit
    step = round(40 * scale)
    for row, line in enumerate(lines):
        wide = cv2.getTextSize(line, font, scale, 1)[0][0]
        at = ((width - wide) // 2, height - round(0.05 * height) - step * (len(lines) - 1 - row))
        cv2.putText(overlay, line, at, font, scale, (0, 0, 0, 255), 4, cv2.LINE_AA)
        cv2.putText(overlay, line, at, font, scale, (255, 255, 255, 255), 1, cv2.LINE_AA)
    return overlay, _covered(overlay)


def logo(width: int, height: int) -> tuple[np.ndarray, Box]:
    """A channel's badge in the upper right corner: an overlay (H, W, 4) uint8 and its box."""
    overlay = np.zeros((height, width, 4), np.uint8)
    short = min(width, height)
    w, h, gap = round(0.46 * short), round(0.26 * short), round(0.06 * short)
    x, y = width - gap - w, gap
    cv2.rectangle(overlay, (x, y), (x + w - 1, y + h - 1), (250, 250, 250, 255), -1)
    cv2.rectangle(overlay, (x + 2, y + 2), (x + w - 3, y + h - 3), (176, 20, 36, 255), -1)
    text = "TV 7"
    (unit_w, unit_h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = 0.7 * w / unit_w
    at = (x + round((w - unit_w * scale) / 2), y + round((h + unit_h * scale) / 2))
    cv2.putText(overlay, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255, 255), 2, cv2.LINE_AA)
    return overlay, _covered(overlay)


def burn(pictures: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Lay an overlay (H, W, 4) over every picture, inside its own box only."""
    x, y, w, h = _covered(overlay)
    part = overlay[y : y + h, x : x + w].astype(np.float32)
    alpha = part[..., 3:] / 255
    out = pictures.copy()
    under = out[:, y : y + h, x : x + w]
    under[:] = under * (1 - alpha) + part[..., :3] * alpha + 0.5
    return out


def _covered(overlay: np.ndarray) -> Box:
    rows = np.flatnonzero(overlay[..., 3].any(1))
    columns = np.flatnonzero(overlay[..., 3].any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y
