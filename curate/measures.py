"""Figures of one shot from its sampled luma pictures: motion, light, sharpness, borders, perceptual hash.

Input everywhere: `grays`, luma pictures (H, W) uint8 of 144 lines as displayed, sampled about eight times a
second, with their PTS. A figure that cannot be had is None, with its reason in the second result.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

BLACK_LUMA = 16.0
# Mean absolute luma difference under which two pictures look the same (encoding noise stays below it).
STILL_DIFFERENCE = 0.7
BORDER_LUMA = 24.0


def shot_scores(grays: list[np.ndarray], times_s: list[float]) -> tuple[dict, dict[str, str]]:
    """Scores (columns of the clips table; `crop` in pixels of `grays`) and, the reasons for those missing."""
    names = ("motion", "luma", "black_ratio", "static_ratio", "sharpness", "crop")
    if not grays:
        return dict.fromkeys(names), dict.fromkeys(names, "shot too short: no picture was sampled in it")
    x, y, w, h = borders(grays)
    inside = [np.ascontiguousarray(gray[y : y + h, x : x + w]) for gray in grays]
    scores: dict = {
        "luma": float(np.mean([gray.mean() for gray in inside])),
        "black_ratio": float(np.mean([gray.mean() < BLACK_LUMA for gray in inside])),
        "sharpness": float(np.median([sharpness(gray) for gray in inside])),
        "crop": {"x": x, "y": y, "w": w, "h": h},
        "motion": None,
        "static_ratio": None,
    }
    if len(inside) < 2:
        reason = "shot too short: motion needs two sampled pictures"
        return scores, {"motion": reason, "static_ratio": reason}
    scores["motion"] = motion(inside, times_s)
    scores["static_ratio"] = float(
        np.mean([cv2.absdiff(a, b).mean() < STILL_DIFFERENCE for a, b in pairwise(inside)])
    )
    return scores, {}


def motion(grays: list[np.ndarray], times_s: list[float]) -> float:
    """Median over time of the mean length of the dense optical flow, in % of the diagonal per second.

    Divided by the real time between two pictures, so that the frame rate does not matter; by the diagonal,
    so that the resolution does not.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    height, width = grays[0].shape
    if min(height, width) < 16:  # the flow's patches need some picture
        grays = [cv2.resize(gray, (max(16, width), max(16, height))) for gray in grays]
    speeds = []
    for i in range(len(grays) - 1):
        field = flow.calc(grays[i], grays[i + 1], None)  # type: ignore[call-overload]  # (H, W, 2) px
        length = float(np.sqrt((field**2).sum(-1)).mean())
        speeds.append(length / (times_s[i + 1] - times_s[i]))
    return 100.0 * float(np.median(speeds)) / float(np.hypot(height, width))


def sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., 2000) of a luma picture."""
    return float(cv2.Laplacian(gray, cv2.CV_32F).var())


def borders(grays: list[np.ndarray]) -> tuple[int, int, int, int]:
    """x, y, w, h of the picture inside black bars that are there in every sampled picture.

    A row (column) belongs to a bar if it is never brighter than BORDER_LUMA. A picture that is dark all over
    has no bars: the whole is returned.
    """
    brightest = np.max(np.stack(grays), axis=0)  # (H, W) over time
    height, width = brightest.shape
    # The 98th percentile forgives a few pixels of ringing at the edge of a bar.
    rows = np.flatnonzero(np.percentile(brightest, 98, axis=1) > BORDER_LUMA)
    columns = np.flatnonzero(np.percentile(brightest, 98, axis=0) > BORDER_LUMA)
    if rows.size < height // 3 or columns.size < width // 3:
        return 0, 0, width, height
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    # One line of doubt at each side is blur, not a bar.
    if y0 <= 1 and height - y1 <= 1:
        y0, y1 = 0, height
    if x0 <= 1 and width - x1 <= 1:
        x0, x1 = 0, width
    return x0, y0, x1 - x0, y1 - y0


def phash(gray: np.ndarray) -> str:
    """64-bit perceptual hash, 16 hex digits: signs of the low DCT frequencies against their median."""
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
