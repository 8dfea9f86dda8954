"""Where one shot ends and the next begins, found while the frames stream by.

The detector is PySceneDetect's AdaptiveDetector, fed with our small frames: no second decode, and the
answer is the index of a frame whose PTS we know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShotConfig:
    """How footage is split into shots.

    Attributes:
        adaptive_threshold: how far a frame's content change must stand out from its neighbours' (a ratio).
        min_content_val: least content change (0 to 255, HSV) that can be a cut.
        max_s: longer shots are divided into parts of at most this many seconds.
    """

    adaptive_threshold: float = 3.0
    min_content_val: float = 15.0
    max_s: float = 20.0


class CutDetector:
    """Feed frames in order; `push` returns indices of frames that open a new shot, a few frames late."""

    def __init__(self, config: ShotConfig) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        # A nominal rate: the detector works on frame numbers, times come from PTS.
        self._zero = FrameTimecode(0, fps=25.0)
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_threshold,
            min_content_val=config.min_content_val,
            min_scene_len=1,
        )
        self._index = 0

    def push(self, picture_bgr: np.ndarray) -> list[int]:
        """`picture_bgr`: (H, W, 3) uint8."""
        cuts = self._detector.process_frame(self._zero + self._index, picture_bgr)
        self._index += 1
        return [cut.frame_num for cut in cuts]
