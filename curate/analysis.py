"""One decode of a source: its facts, its shots, and every score that needs no model.

    analysis = analyse("film.mp4", source_id, AnalysisConfig())

Frames stream by; what is kept of them is bounded by the longest shot, not by the source.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np

from curate.frames import Frame, Video, even_times, rotation_deg
from curate.measures import phash, shot_scores
from curate.shots import Shot, ShotConfig, ShotFinder

ANALYSIS_LINES = 144
KEYFRAME_LINES = 224
KEYFRAME_PERIOD_S = 0.25


@dataclass(frozen=True)
class AnalysisConfig:
    """What is measured of every source.

    Attributes:
        shots: how the source is split.
        sample_hz: pictures per second that are measured within a shot.
        keyframes: pictures per clip that the models see.
        threads: decoder threads per source.
    """

    shots: ShotConfig = field(default_factory=ShotConfig)
    sample_hz: float = 8.0
    keyframes: int = 3
    threads: int = 1


@dataclass
class Analysis:
    """Result of one decode.

    Attributes:
        facts: columns of the sources table that decoding measures (n_frames, fps, is_vfr, ...).
        clips: one dict per shot, columns of the clips table.
        keyframes: per clip, JPEG bytes of its keyframes (224 lines), in time order.
        error: full text of what broke the decoding off, or None.
    """

    facts: dict
    clips: list[dict]
    keyframes: list[list[bytes]]
    error: str | None = None


@dataclass
class _Sample:
    """What is kept of a frame while its shot is open."""

    time_s: float
    gray: np.ndarray | None = None  # (144, W) uint8 luma
    picture: np.ndarray | None = None  # (224, W, 3) uint8 BGR, a keyframe candidate


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """24 hex digits: 16 of the source, so that clips sort by source, and 8 of the span in microseconds."""
    span = f"{source_id}:{round(start_s * 1e6)}:{round(end_s * 1e6)}"
    return source_id[:16] + hashlib.blake2b(span.encode(), digest_size=4).hexdigest()


def analyse(path: str, source_id: str, config: AnalysisConfig) -> Analysis:
    """Decode a local file once. Raises BadInput if it cannot be opened; damage within is kept as `error`."""
    with Video(path, threads=config.threads) as video:
        shots = _Shots(source_id, config)
        clock = _Clock()
        for frame in video.frames():
            clock.push(frame)
            shots.push(frame)
        error = video.damage
    shots.finish(clock.end_s)
    facts = {
        "width": shots.size[0] or None,
        "height": shots.size[1] or None,
        "rotation_deg": shots.turn,
        **clock.facts(),
    }
    return Analysis(facts, shots.clips, shots.keyframes, error)


class _Clock:
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


class _Shots:
    """Cuts the stream of frames into shots and measures each as it ends."""

    def __init__(self, source_id: str, config: AnalysisConfig) -> None:
        self.clips: list[dict] = []
        self.keyframes: list[list[bytes]] = []
        self.size = (0, 0)  # as displayed
        self.turn = 0
        self._source_id = source_id
        self._config = config
        self._finder = ShotFinder(config.shots)
        self._open: list[_Sample] = []  # frames that belong to no finished shot
        self._first = 0  # index of the first of them
        self._next_gray = self._next_picture = 0.0

    def push(self, frame: Frame) -> None:
        if not self.size[0]:
            self.turn = rotation_deg(frame.raw)
            self.size = frame.displayed_size
        small = frame.picture(height=ANALYSIS_LINES, width=self._width(ANALYSIS_LINES), rgb=False)
        self._open.append(self._sample(frame, small))
        tiny = cv2.resize(small, (48, 27), interpolation=cv2.INTER_AREA)
        for shot in self._finder.push(np.ascontiguousarray(tiny[:, :, ::-1]), frame.time_s):
            self._measure(shot, None)

    def finish(self, end_s: float) -> None:
        for shot in self._finder.finish(end_s):
            self._measure(shot, end_s)

    def _sample(self, frame: Frame, small: np.ndarray) -> _Sample:
        sample = _Sample(frame.time_s)
        if frame.time_s >= self._next_gray:
            sample.gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
            # A little less than the period, or rounding of PTS would skip every other sample.
            self._next_gray = frame.time_s + 0.95 / self._config.sample_hz
        if frame.time_s >= self._next_picture:
            sample.picture = frame.picture(
                height=KEYFRAME_LINES, width=self._width(KEYFRAME_LINES), rgb=False
            )
            self._next_picture = frame.time_s + KEYFRAME_PERIOD_S
        return sample

    def _width(self, lines: int) -> int:
        return max(16, round(self.size[0] * lines / self.size[1] / 2) * 2)

    def _measure(self, shot: Shot, source_end_s: float | None) -> None:
        """Measure a finished shot and forget its frames; frames before it (a transition) belong to none."""
        samples = self._open[shot.first - self._first : shot.last + 1 - self._first]
        self._open = self._open[shot.last + 1 - self._first :]
        self._first = shot.last + 1
        start_s = samples[0].time_s
        end_s = self._open[0].time_s if self._open else source_end_s
        assert end_s is not None
        grays = [sample.gray for sample in samples if sample.gray is not None]
        scores, errors = shot_scores(grays, [s.time_s for s in samples if s.gray is not None])
        hashes = _hashes(grays, scores["crop"]) if grays else None
        if scores["crop"]:
            scores["crop"] = _full_size(scores["crop"], grays[0].shape, self.size)
        self.clips.append(
            {
                "clip_id": clip_id(self._source_id, start_s, end_s),
                "source_id": self._source_id,
                "index": len(self.clips),
                "start_s": start_s,
                "end_s": end_s,
                "n_frames": len(samples),
                "fps": len(samples) / (end_s - start_s),
                "width": self.size[0],
                "height": self.size[1],
                "transition_in": shot.transition_in,
                "transition_out": shot.transition_out,
                "phash": hashes,
                "score_errors": errors,
                **scores,
            }
        )
        pictures = _keyframes(samples, start_s, end_s, self._config.keyframes)
        self.keyframes.append([_jpeg(picture) for picture in pictures])


def _hashes(grays: list[np.ndarray], crop: dict) -> str:
    """Hashes inside the bars at 10, 50 and 90 % of the shot, so that a re-encode gives the same three."""
    x, y, w, h = (crop[side] for side in "xywh")
    return "-".join(phash(grays[round(p * (len(grays) - 1))][y : y + h, x : x + w]) for p in (0.1, 0.5, 0.9))


def _jpeg(picture_bgr: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _keyframes(samples: list[_Sample], start_s: float, end_s: float, count: int) -> list[np.ndarray]:
    """The candidates nearest to the centres of `count` equal parts of the shot; each at most once."""
    candidates = [(s.time_s, s.picture) for s in samples if s.picture is not None]
    if not candidates:
        return []
    chosen = {
        min(range(len(candidates)), key=lambda i: abs(candidates[i][0] - time_s))
        for time_s in even_times(start_s, end_s, count)
    }
    return [candidates[i][1] for i in sorted(chosen)]


def _full_size(crop: dict, shape: tuple[int, ...], size: tuple[int, int]) -> dict:
    """From pixels of the analysis picture to even pixels of the displayed one, never outside the picture."""
    if crop["w"] == shape[1] and crop["h"] == shape[0]:
        return {"x": 0, "y": 0, "w": size[0], "h": size[1]}
    scale_x, scale_y = size[0] / shape[1], size[1] / shape[0]
    x = int(np.ceil(crop["x"] * scale_x / 2)) * 2
    y = int(np.ceil(crop["y"] * scale_y / 2)) * 2
    w = max(2, int((crop["x"] + crop["w"]) * scale_x - x) // 2 * 2)
    h = max(2, int((crop["y"] + crop["h"]) * scale_y - y) // 2 * 2)
    return {"x": x, "y": y, "w": w, "h": h}
