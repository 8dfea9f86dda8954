"""Cut clips out of a source: one pass over it at most, each clip in its own mp4.

    facts = cut_clips("film.mp4", [Span("c1" * 12, 0.0, 2.5, 60, 0, 0, 640, 360)], "out", CutConfig(crf=20))

Runs in a process that can be killed (curate.isolate). A clip holds exactly the frames whose PTS lie in
[start_s, end_s): no frame of a neighbour, none lost. Borders are cropped away, rotation and sample aspect
applied, timestamps kept as they are. Clips are encoded side by side, each by one thread, so that the bytes
depend on the source, the span and the recipe alone: not on `threads`, nor on the machine.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

import av
from av.error import FFmpegError

from curate.cut_audio import SpanAudio
from curate.cut_copy import copy_clips
from curate.cut_encode import encode, pictures
from curate.cut_feed import Budget, Feed
from curate.cut_frames import Cursor, keyframe_times, passages
from curate.frames import Video

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]


# Pictures that may wait for an encoder: 15 s of 360p, 3 s of 1080p.
_WAITING_BYTES = 256 << 20


@dataclass(frozen=True)
class CutConfig:
    """How kept clips are cut.

    Attributes:
        crf: quality of x264, 0 (lossless) to 51; 18 is visually lossless.
        preset: speed of x264, ultrafast to veryslow.
        gop: most frames between keyframes; small values make random access fast.
        max_height: taller pictures are scaled down to this many lines; null keeps the size.
        mode: encode makes every clip H.264; copy takes over the packets of the source where a clip begins on
            a keyframe and the picture needs no change, and encodes the rest.
        audio: drop, or keep: cut to the sample and encoded as AAC. Audio that cannot be read costs no clip.
        audio_kbps: kilobits per second and channel of AAC.
        threads: clips of a source that are encoded at once; the bytes do not depend on it.
        deadline_factor: seconds that cutting may take per second of the source.
        deadline_base_s: seconds that cutting any source may take besides.
    """

    crf: int = 20
    preset: Preset = "veryfast"
    gop: int = 24
    max_height: int | None = None
    mode: Literal["encode", "copy"] = "encode"
    audio: Literal["drop", "keep"] = "drop"
    audio_kbps: int = 64
    threads: int = 2
    deadline_factor: float = 10.0
    deadline_base_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}, must be between 0 (lossless) and 51")
        for name in ("gop", "threads", "audio_kbps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    def recipe(self) -> dict:
        """The settings that decide a clip's bytes."""
        how = ("threads", "deadline_factor", "deadline_base_s")
        return {name: value for name, value in asdict(self).items() if name not in how}


@dataclass(frozen=True)
class Span:
    """A clip to cut: seconds and frames of the source, the picture inside its borders in displayed pixels."""

    clip_id: str
    start_s: float
    end_s: float
    n_frames: int
    x: int
    y: int
    w: int
    h: int


def cut_clips(path: str, spans: list[Span], folder: str, config: CutConfig) -> list[dict]:
    """Write `folder`/CLIP_ID.mp4 for each span of the local file `path`, and its facts beside it as .json.

    Returns per span, by start_s: clip_id, width, height, fps, n_frames, duration_s, mp4_size, copied,
    has_audio, audio_error (why there is no audio, or only a part), n_decoded (frames of the source decoded for
    it), encoded_s (seconds that went through an encoder), and error (None if it went well; the others are then
    set). Raises BadInput when the file cannot be opened at all.
    """
    ordered = sorted(spans, key=lambda span: span.start_s)
    with Video(path) as video:
        cursor = Cursor(video, [])  # one thread decodes one picture at a time: the cheapest way per picture
        base = video.stream.time_base
        origin_s = float((cursor.first_pts or 0) * base) if base else 0.0
        source = _Source(path, folder, config, cursor.first_pts, origin_s)
        left = ordered
        if config.mode == "copy":
            with source.audio() as audio:
                copied = copy_clips(video, cursor, path, ordered, folder, audio.cut, config.max_height)
            for facts in copied:
                source.done(facts)
            left = [span for span in ordered if span.clip_id not in source.facts]
        if left:
            cursor.keyframes_s = source.keyframes_s = keyframe_times(path, video)
            parts = passages(left, source.keyframes_s)
            # Longest first, so that the threads finish together.
            parts.sort(key=lambda part: part[0].start_s - part[-1].end_s)
            source.run(parts, cursor)
    return [source.facts[span.clip_id] for span in ordered]


class _Source:
    """What the threads that cut one source share."""

    def __init__(
        self, path: str, folder: str, config: CutConfig, first_pts: int | None, origin_s: float
    ) -> None:
        self.path = path
        self.folder = folder
        self.config = config
        self.origin_s = origin_s  # of the first picture shown, on the container's clock
        self.keyframes_s: list[float] = []
        self.facts: dict[str, dict] = {}
        self._first_pts = first_pts
        self._lock = threading.Lock()

    def audio(self) -> SpanAudio:
        """Audio for one thread."""
        keep = self.config.audio == "keep"
        return SpanAudio(self.path if keep else None, self.origin_s, self.config.audio_kbps)

    def done(self, facts: dict) -> None:
        """Keep the facts of a clip, on disk too: they survive the death of this process."""
        name = os.path.join(self.folder, f"{facts['clip_id']}.json")
        with open(f"{name}.part", "w") as file:
            json.dump(facts, file)
        os.replace(f"{name}.part", name)
        with self._lock:
            self.facts[facts["clip_id"]] = facts

    def run(self, parts: list[list[Span]], cursor: Cursor) -> None:
        """Cut all parts: the calling thread with `cursor`, others with a decoder of their own."""
        todo = iter(parts)
        raised: list[BaseException] = []

        def work(cursor: Cursor | None = None) -> None:
            try:
                if cursor is not None:
                    self._work(self._each(todo), cursor, alone=len(parts) < 2)
                    return
                with Video(self.path) as video:
                    video.first_pts = self._first_pts
                    self._work(self._each(todo), Cursor(video, self.keyframes_s), alone=False)
            except BaseException as error:
                raised.append(error)

        others = [
            threading.Thread(target=work, daemon=True)
            for _ in range(min(self.config.threads, len(parts)) - 1)
        ]
        for other in others:
            other.start()
        work(cursor)
        for other in others:
            other.join()
        if raised:
            raise raised[0]

    def _each(self, todo: Iterator[list[Span]]) -> Iterator[list[Span]]:
        while True:
            with self._lock:
                part = next(todo, None)
            if part is None:
                return
            yield part

    def _work(self, parts: Iterator[list[Span]], cursor: Cursor, *, alone: bool) -> None:
        with self.audio() as audio:
            for part in parts:
                if alone and self.config.threads > 1:
                    self._share(part, cursor, audio)
                    continue
                if not alone:
                    cursor.seek(part[0].start_s)
                for span in part:
                    sound = audio.cut(span.start_s, span.end_s)
                    shown = pictures(cursor.between(span.start_s, span.end_s), span, self.config.max_height)
                    self.done(self._encode(span, shown, sound) | {"n_decoded": cursor.take_count()})

    def _share(self, part: list[Span], cursor: Cursor, audio: SpanAudio) -> None:
        """Clips that no seek can part: decoded here, encoded by other threads, as far as memory allows."""
        budget = Budget(_WAITING_BYTES)
        counts: dict[str, int] = {}

        def encode_all(span: Span, feed: Feed, sound: tuple[bytes | None, str | None]) -> None:
            try:
                facts = self._encode(span, feed, sound)
            finally:
                feed.abandon()
            self.done(facts | {"n_decoded": counts[span.clip_id]})

        with ThreadPoolExecutor(self.config.threads) as pool:
            jobs = []
            for span in part:
                feed = Feed(budget)
                jobs.append(pool.submit(encode_all, span, feed, audio.cut(span.start_s, span.end_s)))
                error = None
                try:
                    frames = cursor.between(span.start_s, span.end_s)
                    for picture in pictures(frames, span, self.config.max_height):
                        feed.put(picture)
                except BaseException as broken:
                    error = broken
                counts[span.clip_id] = cursor.take_count()
                feed.close(error)
            for job in jobs:
                job.result()

    def _encode(
        self, span: Span, shown: Iterator[av.VideoFrame], sound: tuple[bytes | None, str | None]
    ) -> dict:
        target = os.path.join(self.folder, f"{span.clip_id}.mp4")
        facts: dict = {"clip_id": span.clip_id, "error": None, "copied": False}
        m4a, audio_error = sound
        try:
            facts |= encode(shown, span, target, self.config, m4a)
            facts |= {"has_audio": m4a is not None, "audio_error": audio_error}
        except (FFmpegError, ValueError) as error:
            facts["error"] = f"{type(error).__name__}: {error}"
            facts["encoded_s"] = span.end_s - span.start_s
            if os.path.exists(target):
                os.remove(target)
        return facts
