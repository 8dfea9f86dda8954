"""Which frames a captioner sees: chosen by number, by rate or by keyframe; long clips in windows.

    spans = windows(0.0, 25.0, longest_s=10.0)                  # three windows of 8.33 s
    times = FrameChoice(by="fps", fps=2.0).times(*spans[0])     # every half second, at most `most`

A window after the first also shows the last moment of the one before it, so that its caption can tell what has
changed since (the sliding windows of ShareGPT4Video, arXiv 2406.04325); captions of windows need not wait for
each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from curate.errors import BadInput
from curate.frames import even_times

# PTS are rounded; frames are milliseconds apart.
_TOLERANCE_S = 0.0005


@dataclass(frozen=True)
class FrameChoice:
    """How frames are chosen.

    Attributes:
        by: count takes `count` frames at the centres of equal parts; fps takes `fps` frames per second; keyframe
            takes the keyframes of the file (cheap to decode), or the centres of equal parts where it has none.
        count: frames per clip or window; null takes the captioner's own number.
        fps: frames per second of clip, for by=fps.
        most: most frames per clip or window; more are thinned out evenly. The last moment of the window before
            comes on top.
    """

    by: Literal["count", "fps", "keyframe"] = "count"
    count: int | None = None
    fps: float = 1.0
    most: int = 32

    def __post_init__(self) -> None:
        for name, value in (("count", self.count), ("most", self.most)):
            if value is not None and value < 1:
                raise BadInput(
                    f"--frames.{name}={value} must be at least 1: a captioner is shown some picture."
                )
        if not 0 < self.fps < math.inf:
            raise BadInput(f"--frames.fps={self.fps} must be above 0, in frames per second of clip.")

    def times(self, start_s: float, end_s: float) -> tuple[float, ...]:
        """Moments in seconds of the source, ascending; of keyframes, what is asked where there are none."""
        number = self.count or 1
        if self.by == "fps":
            number = max(1, round((end_s - start_s) * self.fps))
        return tuple(even_times(start_s, end_s, min(number, self.most)))

    def among(self, keys_s: list[float], start_s: float, end_s: float) -> list[float]:
        """Those of `keys_s` (ascending, seconds of the source) in [start_s, end_s), thinned out."""
        return self.thinned([key for key in keys_s if start_s <= key + _TOLERANCE_S < end_s])

    def thinned(self, times_s: list[float]) -> list[float]:
        """At most `most` of `times_s`, evenly, from the centres of equal parts of the list."""
        if len(times_s) <= self.most:
            return times_s
        return [times_s[int((part + 0.5) * len(times_s) / self.most)] for part in range(self.most)]


def windows(start_s: float, end_s: float, longest_s: float | None) -> list[tuple[float, float]]:
    """Equal windows (start, end), none longer than `longest_s` (above 0) seconds; null is one window for all."""
    parts = 1 if longest_s is None else max(1, math.ceil((end_s - start_s) / longest_s - 1e-9))
    edges = [start_s + (end_s - start_s) * part / parts for part in range(parts)] + [end_s]
    return list(pairwise(edges))
