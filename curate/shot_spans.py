"""Shots as spans of frames: boundaries as they become known, and the division of what is too long.

A long shot is divided into equal parts, each boundary moved to the quietest frame nearby, where the picture
changes least: there a division shows least in a clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_SEARCH = 0.15  # share of a part's length in which the quietest frame is looked for, to either side


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


class ShotSpans:
    """Keeps the open shot's frames (time and change of each) until it ends."""

    def __init__(self, min_s: float, max_s: float, stride_s: float | None) -> None:
        self._min_s, self._max_s, self._stride_s = min_s, max_s, stride_s
        self.pending_from = 0
        self._transition_in = "edge"
        self._times: list[float] = []  # of the frames from pending_from on
        self._changes: list[float] = []

    def push(self, index: int, time_s: float, change: float) -> list[Shot]:
        """A frame, its PTS and its difference to the one before. With a fixed stride, shots come back."""
        self._times.append(time_s)
        self._changes.append(change)
        if self._stride_s is not None and time_s >= self._times[0] + self._stride_s - 1e-6:
            return [self._close(index - 1, index, "division")]
        return []

    def end(self, last: int, following: int, kind: str) -> list[Shot]:
        """The open shot ends with frame `last`; the next begins with frame `following`."""
        last = max(last, self.pending_from)
        end_s = self._times[last + 1 - self.pending_from]
        shots = self._divide(last, end_s)
        shots.append(self._close(last, max(following, last + 1), kind))
        return shots

    def sharpest(self, last: int, following: int) -> tuple[int, int]:
        """The two neighbouring frames within [last, following] that differ most."""
        first = last + 1 - self.pending_from
        changes = self._changes[first : following + 1 - self.pending_from]
        at = last + 1 + int(np.argmax(changes))
        return at - 1, at

    def settle(self, frame: int) -> list[Shot]:
        """No boundary lies before `frame`: an open shot that is far too long gives its first part away."""
        shots: list[Shot] = []
        while frame > self.pending_from:
            settled_s = self._times[frame - self.pending_from] - self._times[0]
            if settled_s < 2 * self._max_s:
                break
            shots.append(self._part(self._times[0] + self._max_s * (1 - _SEARCH), self._max_s))
        return shots

    def finish(self, count: int, end_s: float) -> list[Shot]:
        """What is left of a source with `count` frames that ends at `end_s`."""
        if not self._times:
            return []
        shots: list[Shot] = [] if self._stride_s is not None else self._divide(count - 1, end_s)
        return [*shots, self._close(count - 1, count, "edge")]

    def _divide(self, last: int, end_s: float) -> list[Shot]:
        """All parts but the last of the open shot, if it must be divided."""
        shots: list[Shot] = []
        while True:
            length_s = end_s - self._times[0]
            parts = math.ceil(length_s / self._max_s - 1e-6)
            if parts < 2 or length_s / parts < self._min_s or last <= self.pending_from:
                return shots
            # As late as the rest allows, as early as the first part may be.
            shots.append(self._part(self._times[0] + length_s / parts, length_s / parts))

    def _part(self, at_s: float, length_s: float) -> Shot:
        """Close a part near `at_s`, at the quietest frame that leaves no part longer than max_s."""
        times = np.array(self._times)
        near = np.abs(times - at_s) <= _SEARCH * length_s
        near &= times <= times[0] + self._max_s + 1e-6
        near[0] = False
        if not near.any():
            near[max(1, int(np.searchsorted(times, at_s - 1e-6)))] = True
        candidates = np.flatnonzero(near)
        changes = np.array(self._changes)[candidates]
        # Of equally quiet ones the nearest.
        best = min(zip(changes.round(1), np.abs(times[candidates] - at_s), candidates, strict=True))[2]
        first = self.pending_from + int(best)
        return self._close(first - 1, first, "division")

    def _close(self, last: int, following: int, kind: str) -> Shot:
        shot = Shot(self.pending_from, last, self._transition_in, kind)
        gone = following - self.pending_from
        del self._times[:gone], self._changes[:gone]
        self.pending_from, self._transition_in = following, kind
        return shot
