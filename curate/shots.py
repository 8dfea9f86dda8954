"""Where one shot ends and the next begins, found while the frames stream by.

    finder = ShotFinder(ShotConfig())
    for picture, time_s in ...:
        shots = finder.push(picture, time_s)      # shots that are certain by now, some frames late
    shots = finder.finish(end_s)                  # the rest

The finder speaks in indices of the frames pushed; their PTS are the caller's.
"""

from __future__ import annotations

from collections import deque
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


@dataclass(frozen=True)
class Shot:
    """A span of frames that belong together.

    Attributes:
        first: index of the first frame.
        last: index of the last frame; what lies between two shots is a gradual transition.
        transition_in: cut, dissolve, fade, edge (of the source) or division.
        transition_out: the same, at its end.
    """

    first: int
    last: int
    transition_in: str
    transition_out: str


class ShotFinder:
    """Feed every frame in order; get shots in order, each at most about 2 * max_s long."""

    def __init__(self, config: ShotConfig) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        self._config = config
        # A nominal rate: the detector works on frame numbers, times come from PTS.
        self._zero = FrameTimecode(0, fps=25.0)
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_threshold,
            min_content_val=config.min_content_val,
            min_scene_len=1,
        )
        self._times: deque[float] = deque()  # of the frames from self.pending_from on
        self.pending_from = 0  # no later shot begins before this frame
        self._transition_in = "edge"
        self._count = 0

    def push(self, picture: np.ndarray, time_s: float) -> list[Shot]:
        """`picture`: (27, 48, 3) uint8 RGB, as displayed; `time_s`: its PTS in seconds."""
        cuts = self._detector.process_frame(self._zero + self._count, picture[:, :, ::-1].copy())
        self._times.append(time_s)
        self._count += 1
        shots = [self._end(cut.frame_num, "cut") for cut in cuts if cut.frame_num > self.pending_from]
        while time_s - self._times[0] > 2 * self._config.max_s:
            shots.append(self._divide(self._times[0] + self._config.max_s))
        return shots

    def finish(self, end_s: float) -> list[Shot]:
        """The last shots; `end_s` is where the last frame ends."""
        if not self._times:
            return []
        shots = []
        if end_s - self._times[0] > self._config.max_s:
            shots.append(self._divide((self._times[0] + end_s) / 2))
        return [*shots, self._end(self._count, "edge")]

    def _divide(self, at_s: float) -> Shot:
        keep = next((i for i, t in enumerate(self._times) if i and t >= at_s - 1e-6), len(self._times) - 1)
        return self._end(self.pending_from + keep, "division")

    def _end(self, next_first: int, transition: str) -> Shot:
        shot = Shot(self.pending_from, next_first - 1, self._transition_in, transition)
        for _ in range(next_first - self.pending_from):
            self._times.popleft()
        self.pending_from, self._transition_in = next_first, transition
        return shot
