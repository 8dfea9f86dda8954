"""Where a shot could change, told cheaply: the first pass of the cascade, with recall close to 1.

    changes = Changes()
    changes.push(picture)                    # every picture, in order: (27, 48, 3) uint8 RGB
    likely = changes.likely(start, stop)     # (stop - start,) bool; pictures up to stop + Changes.AHEAD are needed

Two signs are looked for. A jump: one picture differs from the one before far more than its neighbours do, or
PySceneDetect's AdaptiveDetector, set to be sensitive, says so. And a drift: pictures some time apart differ in
place and in their histogram, more than those before and after, though no single jump explains it; that is how
dissolves and fades look. Measured on 42 reels of 36 shots with known boundaries, each of these has a sign within it.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

# Pictures apart, at 25 to 30 a second: about 0.2, 0.5 and 1 s.
_SPANS = (6, 12, 25)
_DRIFT_DIFFERENCE = 20.0  # mean absolute difference of RGB, 0 to 255
_DRIFT_COLOURS = 0.25  # share of pixels in other bins of the histogram
_DRIFT_STANDS_OUT = 1.0  # times the differences just before and after
_EXPLAINED = 0.6  # share of the difference that one jump accounts for
_JUMP_DIFFERENCE = 8.0
_JUMP_STANDS_OUT = 2.0
_JUMP_NEIGHBOURS = 6
# Pictures around a sign that the change may take up.
_JUMP_REACH = 2
_DRIFT_REACH = 12
_DETECTOR = {"adaptive_threshold": 2.0, "min_content_val": 8.0, "min_scene_len": 1}


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures, 0 to 255."""
    return cv2.norm(one, other, cv2.NORM_L1) / one.size


class Changes:
    """Differences between pictures, kept as long as they are needed."""

    AHEAD = 2 * _SPANS[-1]

    def __init__(self) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        self._recent: deque[np.ndarray] = deque(maxlen=_SPANS[-1] + 1)
        self._recent_colours: deque[np.ndarray] = deque(maxlen=_SPANS[-1] + 1)
        self._begin = 0  # index of the first picture whose figures are kept
        self._steps: list[float] = []  # difference to the picture before
        self._drifts: dict[int, list[tuple[float, float]]] = {span: [] for span in _SPANS}
        self._detected: set[int] = set()
        self._count = 0
        # A nominal rate: the detector works on frame numbers, times come from PTS.
        self._zero = FrameTimecode(0, fps=25.0)
        self._detector = AdaptiveDetector(**_DETECTOR)

    def push(self, picture: np.ndarray) -> float:
        """Take in the next picture, (27, 48, 3) uint8 RGB; returns its difference to the one before."""
        colours = (
            cv2.calcHist([picture], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel() / picture[..., 0].size
        )
        self._recent.append(picture)
        self._recent_colours.append(colours)
        known = len(self._recent)
        self._steps.append(difference(picture, self._recent[-2]) if known > 1 else 0.0)
        for span, drifts in self._drifts.items():
            if span < known:
                other = self._recent_colours[-1 - span]
                moved = cv2.norm(colours, other, cv2.NORM_L1) / 2
                drifts.append((difference(picture, self._recent[-1 - span]), moved))
            else:
                drifts.append((0.0, 0.0))
        found = self._detector.process_frame(self._zero + self._count, picture[:, :, ::-1])
        self._detected.update(cut.frame_num for cut in found)
        self._count += 1
        return self._steps[-1]

    def forget(self, before: int) -> None:
        """Figures of pictures before this index, less what their followers are compared with, may go."""
        gone = max(0, before - self.AHEAD - self._begin)
        del self._steps[:gone]
        for drifts in self._drifts.values():
            del drifts[:gone]
        self._begin += gone
        self._detected = {index for index in self._detected if index >= self._begin}

    def likely(self, start: int, stop: int) -> np.ndarray:
        """Whether a change may lie at each picture of [start, stop); the last ones pushed count as an end."""
        begin, n = self._begin, len(self._steps)
        steps = np.array(self._steps)
        jumps = np.zeros(n, bool)
        drifting = np.zeros(n, bool)
        padded = np.pad(steps, _JUMP_NEIGHBOURS, mode="edge")
        usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _JUMP_NEIGHBOURS + 1), axis=1)
        jumps |= (steps > _JUMP_DIFFERENCE) & (steps > _JUMP_STANDS_OUT * usual + 2)
        jumps[[index - begin for index in self._detected]] = True
        for span, drifts in self._drifts.items():
            differences, colours = np.array(drifts).T
            before = np.concatenate([np.full(span, differences[0]), differences])[:n]
            after = np.concatenate([differences, np.full(span, differences[-1])])[span:]
            largest = np.lib.stride_tricks.sliding_window_view(
                np.concatenate([np.zeros(span - 1), steps]), span
            ).max(axis=1)
            drift = (
                (differences > _DRIFT_DIFFERENCE)
                & (colours > _DRIFT_COLOURS)
                & (differences > _DRIFT_STANDS_OUT * ((before + after) / 2 + 2))
                & (largest < _EXPLAINED * differences)
            )
            drifting[np.maximum(np.flatnonzero(drift) - span // 2, 0)] = True
        signs = _widened(jumps, _JUMP_REACH) | _widened(drifting, _DRIFT_REACH)
        return signs[start - begin : stop - begin]


def _widened(signs: np.ndarray, reach: int) -> np.ndarray:
    """Signs with `reach` pictures to either side; the shape stays."""
    return np.convolve(signs, np.ones(2 * reach + 1))[reach : reach + len(signs)] > 0
