"""Frames of a video as a person sees them: rotated, with square pixels, and timed by PTS.

    with Video("film.mov") as video:
        for frame in video.frames():                       # every frame once, in presentation order
            picture = frame.picture(height=144)            # (H, W, 3) uint8, BGR or RGB
    pictures, times = read_frames("film.mov", [0.5, 1.0])  # random access

Time 0 is the first frame shown. Nothing here counts frames to tell the time: variable rates, B-frames and
edit lists are what the container says they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from curate.errors import BadInput


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        time_s: presentation time in seconds from the first frame of the source.
        duration_s: how long it is shown, in seconds, if the container says so (else 0).
        raw: the decoder's frame, unrotated.
        sample_aspect: width of a pixel divided by its height.
    """

    time_s: float
    duration_s: float
    raw: VideoFrame
    sample_aspect: float

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(width, height) in pixels as displayed."""
        return displayed_size(self.raw.width, self.raw.height, self.sample_aspect, rotation_deg(self.raw))

    def picture(self, *, height: int | None = None, width: int | None = None, rgb: bool = True) -> np.ndarray:
        """The picture as displayed, (H, W, 3) uint8; `height` (or both sides) in pixels as displayed."""
        turn = rotation_deg(self.raw)
        shown_w, shown_h = self.displayed_size
        if height is None:
            height, width = shown_h, shown_w
        elif width is None:
            width = max(2, round(shown_w * height / shown_h))
        sideways = turn in (90, 270)
        array = self.raw.reformat(
            width=height if sideways else width,
            height=width if sideways else height,
            format="rgb24" if rgb else "bgr24",
            interpolation=Interpolation.AREA if height < shown_h else Interpolation.BILINEAR,
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(array, -turn // 90)) if turn else array


def rotation_deg(raw: VideoFrame) -> int:
    """Clockwise degrees that turn the coded picture upright: 0, 90, 180 or 270."""
    # FFmpeg's display matrix angle counts counter-clockwise.
    return int(round(-raw.rotation / 90) * 90) % 360


def displayed_size(width: int, height: int, sample_aspect: float, turn: int) -> tuple[int, int]:
    """(width, height) in pixels as displayed, of a coded picture."""
    shown = (max(1, round(width * sample_aspect)), height)
    return (shown[1], shown[0]) if turn in (90, 270) else shown


class Video:
    """An open video file. Raises BadInput when it cannot be opened or has no picture."""

    def __init__(self, path: str, *, threads: int = 1) -> None:
        try:
            self.container = av.open(path, metadata_errors="replace")
        except (FFmpegError, OSError, ValueError) as error:
            raise BadInput(f"not a readable video: {error}") from error
        streams = [s for s in self.container.streams.video if not (s.disposition & _ATTACHED)]
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self.container.streams})) or "no"
            self.container.close()
            raise BadInput(f"no video stream (the file holds {kinds} streams only)")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = threads
        ratio = self.stream.sample_aspect_ratio
        self.sample_aspect = float(ratio) if ratio and ratio > 0 else 1.0
        self.first_pts: int | None = None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def frames(self) -> Iterator[Frame]:
        """Every frame in presentation order. Raises FFmpegError where decoding breaks off."""
        base = self.stream.time_base or 0
        last = -math.inf
        for raw in self.container.decode(self.stream):
            if raw.pts is None:
                continue
            if self.first_pts is None:
                self.first_pts = raw.pts
            time_s = float((raw.pts - self.first_pts) * base)
            if time_s <= last:  # a repeated or backward timestamp cannot be shown
                continue
            last = time_s
            yield Frame(time_s, float((raw.duration or 0) * base), raw, self.sample_aspect)

    def frames_from(self, start_s: float) -> Iterator[Frame]:
        """Frames from the first one at or after `start_s` (one millisecond of tolerance), by seeking."""
        first = self.first_pts
        if first is None:
            frame = next(self.frames(), None)
            if frame is None:
                return
            first = int(frame.raw.pts or 0)
        ticks = int(max(0.0, start_s) / self.stream.time_base) if self.stream.time_base else 0
        self.container.seek(first + ticks, stream=self.stream)
        for frame in self.frames():
            if frame.time_s >= start_s - 0.001:
                yield frame


_ATTACHED = av.stream.Disposition.attached_pic


def read_frames(
    path: str, times_s: Sequence[float], *, height: int | None = None
) -> tuple[list[np.ndarray], list[float]]:
    """Pictures shown at the given times (seconds of the source, ascending).

    Returns RGB pictures (H, W, 3) uint8 as displayed and their real PTS in seconds: for each time, the frame
    on screen then. Fewer pictures come back only if the source ends or breaks off before.
    """
    pictures: list[np.ndarray] = []
    found: list[float] = []
    wanted = list(times_s)
    if not wanted:
        return pictures, found
    with Video(path) as video:
        shown: Frame | None = None
        try:
            # A margin before the first time: the frame on screen then may have begun earlier.
            for frame in video.frames_from(max(0.0, wanted[0] - 1.0)):
                while wanted and shown is not None and frame.time_s > wanted[0] + 0.001:
                    pictures.append(shown.picture(height=height))
                    found.append(shown.time_s)
                    wanted.pop(0)
                if not wanted:
                    return pictures, found
                shown = frame
        except FFmpegError:
            pass  # what was decoded before the break is what there is to show
        for _ in wanted:
            if shown is not None:
                pictures.append(shown.picture(height=height))
                found.append(shown.time_s)
    return pictures, found


def even_times(start_s: float, end_s: float, count: int) -> list[float]:
    """`count` times at the centres of equal parts of [start_s, end_s)."""
    step = (end_s - start_s) / count
    return [start_s + (i + 0.5) * step for i in range(count)]
