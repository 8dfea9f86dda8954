"""One decode of a source: its facts, its shots, and every score that needs no model.

    analysis = analyse("film.mp4", source_id, AnalysisConfig())

Frames stream by; what is kept of them is bounded by the longest shot, not by the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import cv2
import numpy as np

from curate.ahead import decoded_ahead
from curate.borders import evenly
from curate.clock import Clock, Ticks
from curate.frames import Frame, Video, even_times
from curate.measures import Kept, shot_scores, within
from curate.motion_vectors import VectorGrid, VectorReader
from curate.phash import phashes
from curate.pictures import Planes, Shrink
from curate.shot_network import network
from curate.shots import Shot, ShotConfig, ShotFinder

# Counts changes of the code that change what is measured; another one measures every source anew.
VERSION = 3
KEYFRAME_LINES = 224
KEYFRAME_HZ = 4.0
# Candidates kept of an open shot; beyond it every other one goes, and half as many are taken from then on.
MOST_CANDIDATES = 224
EDGES = (0.05, 0.95)


@dataclass(frozen=True)
class AnalysisConfig:
    """What is measured of every source.

    Attributes:
        shots: how the source is split.
        sample_hz: pictures per second that are measured within a shot, whatever its frame rate.
        keyframes: pictures per clip that the models see, at the centres of as many equal parts of the shot.
        edge_keyframes: besides, the pictures at 5 % and 95 % of the shot, as its first and last keyframe.
        motion_source: flow measures optical flow; codec reads the motion vectors of H.264 and MPEG-4 instead, an
            approximation, and falls back to flow where a codec has none.
        threads: cores per source: with two or more, decoding, measuring and the network run side by side; the
            result is the same. null is all cores for --engine=local, else one.
    """

    shots: ShotConfig = field(default_factory=ShotConfig)
    sample_hz: float = 8.0
    keyframes: int = 3
    edge_keyframes: bool = False
    motion_source: Literal["flow", "codec"] = "flow"
    threads: int | None = None

    def recipe(self) -> dict:
        """The settings that decide what is measured; not those that only decide how fast."""
        settings = asdict(self)
        del settings["threads"], settings["shots"]["device"]
        return settings


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
    planes: Planes | None = None  # a keyframe candidate
    vectors: VectorGrid | None = None


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """24 hex digits: 16 of the source, so that clips sort by source, and 8 of the span in microseconds."""
    span = f"{source_id}:{round(start_s * 1e6)}:{round(end_s * 1e6)}"
    return source_id[:16] + hashlib.blake2b(span.encode(), digest_size=4).hexdigest()


_PART_CLIPS = 16


def prepare(config: AnalysisConfig) -> None:
    """Start to load what `analyse` will need; it goes on beside whatever comes next."""
    if (config.threads or 1) > 1 and config.shots.uses_network:
        network(config.shots.device, alongside=True)


def analyse(path: str, source_id: str, config: AnalysisConfig) -> Analysis:
    """Decode a local file once. Raises BadInput if it cannot be opened; damage within is kept as `error`."""
    return joined(analyse_in_parts(path, source_id, config))


def joined(parts: Iterable[Analysis]) -> Analysis:
    """One result from the parts of `analyse_in_parts`; the facts and the error stand in the last."""
    whole = Analysis({}, [], [])
    for part in parts:
        whole.facts, whole.error = part.facts, part.error
        whole.clips += part.clips
        whole.keyframes += part.keyframes
    return whole


def analyse_in_parts(path: str, source_id: str, config: AnalysisConfig) -> Iterator[Analysis]:
    """The same, some clips at a time, so that the keyframes of a long source are never held all at once."""
    # One thread: OpenCV's flow depends on the number of its threads, and results must not depend on the machine.
    cv2.setNumThreads(1)
    passes = Video.passes_begun
    threads = config.threads or 1
    with Video(path, threads=max(1, threads - 1)) as video:  # one is busy with what is decoded
        reader = VectorReader(video) if config.motion_source == "codec" else None
        shots = _Shots(source_id, config, reader)
        clock = Clock()
        frames = video.frames()
        for frame in decoded_ahead(frames) if threads > 1 else frames:
            clock.push(frame)
            shots.push(frame)
            if len(shots.clips) >= _PART_CLIPS:
                yield Analysis({}, *shots.take())
        error = video.damage
    shots.finish(clock.end_s)
    facts = {
        "width": shots.size[0] or None,
        "height": shots.size[1] or None,
        "rotation_deg": shots.turn,
        "decode_passes": Video.passes_begun - passes,
        **clock.facts(),
    }
    yield Analysis(facts, *shots.take(), error)


class _Shots:
    """Cuts the stream of frames into shots and measures each as it ends."""

    def __init__(self, source_id: str, config: AnalysisConfig, vectors: VectorReader | None) -> None:
        self.clips: list[dict] = []
        self.keyframes: list[list[bytes]] = []
        self._n_clips = 0  # in all
        self.size = (0, 0)  # as displayed
        self.turn = 0
        self._source_id = source_id
        self._config = config
        self._vectors = vectors
        self._shrink: Shrink | None = None
        self._finder = ShotFinder(config.shots, alongside=(config.threads or 1) > 1)
        self._open: list[_Sample] = []  # frames that belong to no finished shot
        self._first = 0  # index of the first of them
        self._grays = Ticks(config.sample_hz)
        self._candidates = Ticks(KEYFRAME_HZ)
        self._n_candidates = 0  # in self._open

    def take(self) -> tuple[list[dict], list[list[bytes]]]:
        """The clips and keyframes since the last call."""
        taken = self.clips, self.keyframes
        self.clips, self.keyframes = [], []
        return taken

    def push(self, frame: Frame) -> None:
        if self._shrink is None:
            self._shrink = Shrink(frame)
            self.turn, self.size = self._shrink.turn, self._shrink.displayed
        small = self._shrink(frame)
        sample = _Sample(frame.time_s)
        if self._grays.due(frame.time_s):
            sample.gray = small.luma()
        if self._candidates.due(frame.time_s):
            sample.planes = small.planes()
            self._n_candidates += 1
        if self._vectors is not None:
            sample.vectors = self._vectors.read(frame, self.turn)
        self._open.append(sample)
        if self._n_candidates > MOST_CANDIDATES:
            self._thin_out()
        for shot in self._finder.push(small.tiny_rgb(), frame.time_s):
            self._measure(shot, None)

    def finish(self, end_s: float) -> None:
        for shot in self._finder.finish(end_s):
            self._measure(shot, end_s)

    def _thin_out(self) -> None:
        for sample in [sample for sample in self._open if sample.planes is not None][1::2]:
            sample.planes = None
            self._n_candidates -= 1
        self._candidates.hz /= 2

    def _measure(self, shot: Shot, source_end_s: float | None) -> None:
        """Measure a finished shot and forget its frames; frames before it (a transition) belong to none."""
        samples = self._open[shot.first - self._first : shot.last + 1 - self._first]
        self._open = self._open[shot.last + 1 - self._first :]
        self._first = shot.last + 1
        self._n_candidates = sum(sample.planes is not None for sample in self._open)
        self._candidates.hz = KEYFRAME_HZ
        start_s = samples[0].time_s
        end_s = self._open[0].time_s if self._open else source_end_s
        assert end_s is not None
        candidates = [sample.planes for sample in samples if sample.planes is not None]
        kept = Kept(
            [sample.gray for sample in samples if sample.gray is not None],
            [sample.time_s for sample in samples if sample.gray is not None],
            [candidates[i].luma() for i in evenly(len(candidates))],
            [s.vectors for s in samples if s.vectors and s.vectors.begin_s >= start_s - 1e-6],
        )
        scores, errors = shot_scores(kept, self.size)
        self.clips.append(
            {
                "clip_id": clip_id(self._source_id, start_s, end_s),
                "source_id": self._source_id,
                "index": self._n_clips,
                "start_s": start_s,
                "end_s": end_s,
                "n_frames": len(samples),
                "fps": len(samples) / (end_s - start_s),
                "width": self.size[0],
                "height": self.size[1],
                "transition_in": shot.transition_in,
                "transition_out": shot.transition_out,
                "phash": self._hashes(kept, scores["crop"], start_s, end_s) if kept.grays else None,
                "score_errors": errors,
                **scores,
            }
        )
        self._n_clips += 1
        self.keyframes.append([self._jpeg(planes) for planes in self._chosen(samples, start_s, end_s)])

    def _chosen(self, samples: list[_Sample], start_s: float, end_s: float) -> list[Planes]:
        """The keyframe candidates nearest to the times wanted, in time order; each at most once."""
        candidates = [(s.time_s, s.planes) for s in samples if s.planes is not None]
        wanted = even_times(start_s, end_s, self._config.keyframes)
        if self._config.edge_keyframes:
            wanted += [start_s + part * (end_s - start_s) for part in EDGES]
        nearest = {
            min(range(len(candidates)), key=lambda i: abs(candidates[i][0] - time_s))
            for time_s in wanted
            if candidates
        }
        return [candidates[i][1] for i in sorted(nearest)]

    def _hashes(self, kept: Kept, crop: dict, start_s: float, end_s: float) -> str:
        box = crop["x"], crop["y"], crop["w"], crop["h"]
        x, y, w, h = within(box, self.size[::-1], kept.grays[0].shape)
        return phashes([gray[y : y + h, x : x + w] for gray in kept.grays], kept.times_s, start_s, end_s)

    def _jpeg(self, planes: Planes) -> bytes:
        assert self._shrink is not None
        picture = planes.bgr(self._shrink.width(KEYFRAME_LINES), KEYFRAME_LINES)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
