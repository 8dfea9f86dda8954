"""Temporal flicker: how far pixels jump and come back from one frame to the next.

    flicker(video)             # levels of 255; 0 for a still video

The mean distance of each frame from the median of itself and its two neighbours. A pixel that stays, or goes one way
(a shape that arrives or leaves, a fade, a slow pan) is its own median and counts nothing; one that is brighter or
darker than both its neighbours counts by how much it differs from the nearer one. Shapes narrower than their step from
frame to frame count as well, so that true clips are no zero: compare with theirs.
"""

from __future__ import annotations

import cv2
import numpy as np


def flicker(video: np.ndarray) -> float | None:
    """Mean |frame - median of three| over all pixels, colours and frames but the first and last, in levels of 255.

    `video`: (T, H, W, 3) uint8. None for fewer than three frames, in which nothing can come back.
    """
    if len(video) < 3:
        return None
    total = 0
    for before, frame, after in zip(video, video[1:], video[2:], strict=False):
        median = np.clip(frame, np.minimum(before, after), np.maximum(before, after))
        total += int(cv2.absdiff(frame, median).sum(dtype=np.int64))
    return total / (video[0].size * (len(video) - 2))
