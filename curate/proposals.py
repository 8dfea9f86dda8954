"""Where a shot could change, told cheaply: the first pass of the cascade, with recall close to 1.

    changes = Changes()
    changes.push(picture)                    # every picture, in order: (27, 48, 3) uint8 RGB
    likely = changes.likely(start, stop)     # (stop - start,) bool; pictures up to stop + Changes.AHEAD are needed

Two signs are looked for. A jump: one picture differs from the one before far more than its neighbours do, or
PySceneDetect's AdaptiveDetector, set to be sensitive, says so. And a drift: pictures some time apart differ in
place and in their histogram, more than those before and after, though no single jump explains it, and the picture
between them is a mixture of the two; that is how dissolves, fades and wipes look, and how motion does not. Measured on
62 reels of 36 shots with known boundaries, each of these has a sign within it.

Most cuts leave nothing to ask: one jump, far above everything around it, between pictures that share neither colours
nor edges. `plain_cut` finds those; of 1,048 cuts in 42 reels nine in ten are, and no other jump of 4,800.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

# Pictures apart, at 25 to 30 a second: about 0.2, 0.5 and 1 s.
_SPANS = (6, 12, 25)
_DRIFT_DIFFERENCE = 20.0  # mean absolute difference of RGB, 0 to 255
_DRIFT_COLOURS = 0.25  # share of pixels in other bins of the histogram
_DRIFT_STANDS_OUT = 0.9  # times the differences just before and after
_EXPLAINED = 0.6  # share of the difference that one jump accounts for
# Share of the difference that a mixture of both leaves over: below 0.35 in nearly every dissolve and fade, above 0.5
# in four of five drifts that were motion.
_UNMIXED = 0.5
_UNWIPED = 0.15  # the same, where every pixel is of the one, of the other, or mixed
_JUMP_DIFFERENCE = 8.0
_JUMP_STANDS_OUT = 2.0
_JUMP_NEIGHBOURS = 6
# A plain cut: mean difference, share of pixels in other bins, correlation of edges, times the largest step nearby.
_CUT_DIFFERENCE = 30.0
_CUT_COLOURS = 0.4
_CUT_EDGES = 0.2
_CUT_STANDS_OUT = 4.0
# Pictures around a sign that the change may take up.
_JUMP_REACH = 2
_DRIFT_REACH = 8
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
        self._drifts: dict[int, list[tuple[float, float, bool]]] = {span: [] for span in _SPANS}
        self._detected: set[int] = set()
        self._unlike: set[int] = set()  # pictures that share little with the one before
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
        if known > 1 and self._steps[-1] > _CUT_DIFFERENCE:
            other = self._recent_colours[-2]
            if cv2.norm(colours, other, cv2.NORM_L1) / 2 > _CUT_COLOURS and (
                _alike(self._recent[-2], picture) < _CUT_EDGES
            ):
                self._unlike.add(self._count)
        for span, drifts in self._drifts.items():
            if span < known:
                other = self._recent_colours[-1 - span]
                moved = cv2.norm(colours, other, cv2.NORM_L1) / 2
                begun = self._recent[-1 - span]
                apart = difference(picture, begun)
                enough = apart > _DRIFT_DIFFERENCE and moved > _DRIFT_COLOURS
                drifts.append(
                    (apart, moved, enough and _is_mixture(begun, self._recent[-1 - span // 2], picture))
                )
            else:
                drifts.append((0.0, 0.0, False))
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
        self._unlike = {index for index in self._unlike if index >= self._begin}

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
            differences, colours, mixed = np.array(drifts).T
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
                & (mixed > 0)
            )
            drifting[np.maximum(np.flatnonzero(drift) - span // 2, 0)] = True
        signs = _widened(jumps, _JUMP_REACH) | _widened(drifting, _DRIFT_REACH)
        return signs[start - begin : stop - begin]

    def plain_cut(self, start: int, stop: int) -> int | None:
        """If all that lies in [start, stop) is a cut beyond doubt: the first picture after it."""
        if stop - start > 2 * _JUMP_REACH + 1:
            return None
        at = max(range(start, stop), key=lambda index: self._steps[index - self._begin])
        here = at - self._begin
        around = self._steps[max(0, here - _JUMP_NEIGHBOURS) : here]
        around += self._steps[here + 1 : here + 1 + _JUMP_NEIGHBOURS]
        if at not in self._unlike or self._steps[here] < _CUT_STANDS_OUT * (max(around, default=0.0) + 1):
            return None
        return at


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the edges of two pictures, -1 to 1: high under a change of light, low across a cut."""
    edges = []
    for picture in (one, other):
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        edges.append(np.stack([cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)]))
    size = float(np.linalg.norm(edges[0]) * np.linalg.norm(edges[1]))
    return float(np.vdot(*edges)) / size if size > 0 else 0.0


def _is_mixture(one: np.ndarray, between: np.ndarray, other: np.ndarray) -> bool:
    """Whether `between` is a mixture of the two, in one proportion everywhere or pixel by pixel."""
    start, middle = one.astype(np.float32), between.astype(np.float32)
    change = other.astype(np.float32) - start
    moved = middle - start
    size = float(np.vdot(change, change))
    apart = float(np.abs(change).sum())
    unmixed = np.abs(moved - float(np.vdot(change, moved)) / size * change)
    if float(unmixed.sum()) < _UNMIXED * apart:
        return True
    unwiped = np.minimum(np.minimum(np.abs(moved), np.abs(moved - change)), unmixed)
    return float(unwiped.sum()) < _UNWIPED * apart


def _widened(signs: np.ndarray, reach: int) -> np.ndarray:
    """Signs with `reach` pictures to either side; the shape stays."""
    return np.convolve(signs, np.ones(2 * reach + 1))[reach : reach + len(signs)] > 0
