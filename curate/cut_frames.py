"""Frames of spans of a video, each decoded once; frames that belong to no span are skipped by seeking.

cursor = Cursor(video, keyframe_times(path, video))
for span in spans:                                       # ascending
    for frame in cursor.between(span.start_s, span.end_s): ...
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from av.error import FFmpegError

from curate.frames import Frame, Video

TOLERANCE_S = 0.0005  # absorbs the rounding of PTS; frames are milliseconds apart
# Flushing a decoder costs a few frames: shorter gaps are decoded through.
_SEEK_GAP_S = 0.25
# Without an index nobody knows what a seek would save.
_BLIND_SEEK_GAP_S = 10.0
# Seconds of clips between two seeks that another thread could start from.
_PASSAGE_S = 4.0
# Below every tick of a clock in use, and enough that a seek never falls one keyframe short by rounding.
_ROUNDING_S = 0.0004


class HasSpan(Protocol):
    """Anything with a span in seconds."""

    @property
    def start_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...


S = TypeVar("S", bound=HasSpan)


def keyframe_times(path: str, video: Video) -> list[float]:
    """Seconds of the keyframes that the container's index knows, ascending; empty if it has none.

    `video` is the open video, its first frame decoded. The times may be a few frames off in files with odd
    reordering; they say where seeking pays, never where a clip begins.
    """
    base = video.stream.time_base
    if video.first_pts is None or not base:
        return []
    try:
        # A handle of its own: reading Matroska's cues means seeking.
        with Video(path) as other:
            stream = other.stream
            if "matroska" in other.container.format.name:
                other.container.seek(video.first_pts, stream=stream)
            packet = next(other.container.demux(stream), None)
            index = list(stream.index_entries)
            if packet is None or packet.pts is None or not index:
                return []
            # mov and mp4 index by DTS, others by PTS.
            delay = packet.pts - index[0].timestamp
            found = [entry.timestamp + delay for entry in index if entry.is_keyframe]
    except FFmpegError:
        return []
    return sorted(float((pts - video.first_pts) * base) for pts in found)


def passages(spans: Sequence[S], keyframes_s: Sequence[float]) -> list[list[S]]:
    """Divide spans (ascending) where a seek to the next one decodes no frame that the last one needed.

    A pure function of spans and index, so that the frames of a clip are decoded in the same way whichever
    thread takes it.
    """
    parts: list[list[S]] = []
    kept_s = 0.0
    for span in spans:
        place = bisect_right(keyframes_s, span.start_s + TOLERANCE_S)
        free = bool(parts and place and keyframes_s[place - 1] >= parts[-1][-1].end_s - TOLERANCE_S)
        if not parts or (free and kept_s >= _PASSAGE_S):
            parts.append([])
            kept_s = 0.0
        parts[-1].append(span)
        kept_s += span.end_s - span.start_s
    return parts


class Cursor:
    """Reads spans of a video, forward.

    Attributes:
        keyframes_s: seconds of the keyframes, ascending, if known.
        first_pts: PTS of the first frame shown; None if nothing can be decoded.
        first_raw: that frame, if this cursor was the first to decode it.
    """

    def __init__(self, video: Video, keyframes_s: list[float]) -> None:
        self.keyframes_s = keyframes_s
        self._n_decoded = 0
        self._video = video
        self._frames: Iterator[Frame] | None = None
        self._next: Frame | None = None
        if video.first_pts is None:
            self._frames = video.frames()
            self._advance()
        self.first_pts = video.first_pts
        self.first_raw = self._next.raw if self._next is not None else None

    def between(self, start_s: float, end_s: float) -> Iterator[Frame]:
        """Frames with start_s <= PTS < end_s, within half a millisecond."""
        if self._next is None or self._must_seek(self._next.time_s, start_s):
            self.seek(start_s)
        while self._next is not None and self._next.time_s < end_s - TOLERANCE_S:
            frame = self._next
            if frame.time_s >= start_s - TOLERANCE_S:
                yield frame
            self._advance()

    def take_count(self) -> int:
        """Frames that came out of the decoder since the last call."""
        count, self._n_decoded = self._n_decoded, 0
        return count

    def seek(self, start_s: float) -> None:
        """Stand at the last keyframe that is not after `start_s`."""
        self._frames = self._video.frames_around(start_s + _ROUNDING_S)
        self._advance()

    def _must_seek(self, now_s: float, start_s: float) -> bool:
        if now_s > start_s + TOLERANCE_S:
            return True
        if not self.keyframes_s:  # and without timestamps there is no seeking forward at all
            return self.first_pts is not None and start_s - now_s > _BLIND_SEEK_GAP_S
        place = bisect_right(self.keyframes_s, start_s + TOLERANCE_S)
        return place > 0 and self.keyframes_s[place - 1] - now_s > _SEEK_GAP_S

    def _advance(self) -> None:
        assert self._frames is not None
        try:
            self._next = next(self._frames, None)
        except FFmpegError:
            self._next = None  # a clip that ends here is whole; any other is found short by its frame count
        self._n_decoded += self._next is not None
