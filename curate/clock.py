"""Time while frames stream by: what the frames say of rate and length, and which of them are due for a sample."""

from __future__ import annotations

import math
from collections import Counter

from curate.frames import Frame


class Clock:
    """Counts frames and the intervals between them."""

    def __init__(self) -> None:
        self.n_frames = 0
        self.end_s = 0.0
        self._last_s = 0.0
        self._intervals: Counter[float] = Counter()

    def push(self, frame: Frame) -> None:
        if self.n_frames:
            self._intervals[round(frame.time_s - self._last_s, 4)] += 1
        self.n_frames += 1
        self._last_s = frame.time_s
        # A container that does not say how long a frame is shown: as long as most others, or 1/25 s.
        self.end_s = frame.time_s + (frame.duration_s or self._usual() or 0.04)

    def _usual(self) -> float | None:
        return self._intervals.most_common(1)[0][0] if self._intervals else None

    def facts(self) -> dict:
        usual = self._usual()
        return {
            "n_frames": self.n_frames,
            "duration_s": self.end_s,
            "fps": self.n_frames / self.end_s if self.end_s else None,
            "is_vfr": None
            if usual is None
            else any(abs(interval - usual) > max(0.001, usual / 2) for interval in self._intervals),
        }


class Ticks:
    """Picks the first frame at or after each of 0, 1/hz, 2/hz, ... seconds, so that no frame rate is favoured."""

    def __init__(self, hz: float) -> None:
        self.hz = hz
        self._next_s = 0.0

    def due(self, time_s: float) -> bool:
        # PTS are rounded, to a millisecond in some containers.
        if time_s < self._next_s - 0.002:
            return False
        self._next_s = (math.floor((time_s + 0.002) * self.hz) + 1) / self.hz
        return True
