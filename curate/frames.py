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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from curate.faults import Faults
from curate.open_video import open_video


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
    """An open video file. Raises BadInput when it cannot be opened or has no picture.

    A damaged packet costs the pictures up to the next keyframe, which would be smeared, and not the file:
    reading goes on there.

    Attributes:
        faults: what went wrong so far.
        passes_begun: how often a pass over the frames of any video was begun in this process.
    """

    passes_begun = 0

    def __init__(self, path: str | IO[bytes], *, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self.faults = Faults()
        self.first_pts: int | None = None
        self._counted = False  # the stream has no timestamps: pictures are timed by their number
        self._open()

    def _open(self) -> None:
        self.container, self.stream = open_video(self._path, threads=self._threads)
        ratio = self.stream.sample_aspect_ratio
        self.sample_aspect = float(ratio) if ratio and ratio > 0 else 1.0

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def damage(self) -> str | None:
        """What was left out while reading, with the first errors in full, or None if all went well."""
        return self.faults.text()

    def frames(self) -> Iterator[Frame]:
        """Every frame in presentation order, except those that damage has spoilt."""
        Video.passes_begun += 1
        base = self.stream.time_base or 0
        frame_s = 1 / float(self.stream.guessed_rate or 25)  # where timestamps are missing
        last = -math.inf
        faults = self.faults
        faults.shown = 0
        # AVI stores no presentation times, and what FFmpeg guesses is wrong with B-frames.
        avi = self.container.format.name == "avi"
        for raw in self._pictures():
            pts = raw.dts if avi else raw.pts
            if pts is None and not faults.shown:
                self._counted = True
            if self._counted:
                time_s = faults.shown * frame_s
            elif pts is None:
                time_s = last + frame_s
            else:
                if self.first_pts is None:
                    self.first_pts = pts
                time_s = float((pts - self.first_pts) * base)
            if time_s <= last:  # it cannot be shown
                faults.untimely += 1
                continue
            last = time_s
            frame = Frame(time_s, float((raw.duration or 0) * base), raw, self.sample_aspect)
            faults.shown += 1
            faults.end_s = time_s + frame.duration_s
            yield frame
        faults.finish(self._promised_s(), self.stream.frames)

    def _promised_s(self) -> float | None:
        """Length of the video stream as the container's header says, if it does."""
        if self.container.format.name in ("mpeg", "mpegts"):
            return None  # no header: FFmpeg guesses it from the last timestamps
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        said = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", self.stream.metadata.get("DURATION", ""))
        return int(said[1]) * 3600 + int(said[2]) * 60 + float(said[3]) if said else None

    def _pictures(self) -> Iterator[VideoFrame]:
        """What the decoder gives, less what depends on damaged data."""
        packets = self.container.demux(self.stream)
        spoilt = False  # until the picture of a keyframe sent after the damage
        sent = 0
        keyframes: list[tuple[int, int | None]] = []  # the packet's number and its timestamp
        bad_in_a_row = 0
        while bad_in_a_row < MAX_BAD_IN_A_ROW:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                sent += 1
                if packet.is_keyframe:
                    if spoilt:
                        # Decoders with several threads would carry their error on.
                        self.stream.codec_context.flush_buffers()
                    keyframes = [*keyframes[-3:], (sent, packet.dts if packet.pts is None else packet.pts)]
                pictures = packet.decode()
            except FFmpegError as error:
                self._note(packet, str(error))
                spoilt = True
                # With n threads the error is that of the packet n - 1 before.
                keyframes = [k for k in keyframes if k[0] > sent - (self._threads - 1)]
                bad_in_a_row += 1
                if packet is None:
                    packets = self.container.demux(self.stream)  # a generator that raised is finished
                continue
            for raw in pictures:
                assert isinstance(raw, VideoFrame)
                bad_in_a_row = 0
                if raw.is_corrupt:
                    if not spoilt:
                        self._note(packet, "the picture is damaged")
                    spoilt = True
                    keyframes = [k for k in keyframes if raw.pts is None or k[1] is None or k[1] > raw.pts]
                elif raw.key_frame and any(stamp in (None, raw.pts, raw.dts) for _, stamp in keyframes):
                    # Decoders hold pictures back, so one from before the damage may come out after it.
                    spoilt = False
                if spoilt:
                    self.faults.lost_pictures += 1
                else:
                    yield raw
        self._note(None, f"given up after {MAX_BAD_IN_A_ROW} damaged packets in a row")

    def _note(self, packet: av.Packet | None, error: str) -> None:
        pts = packet.pts if packet is not None else None
        base = self.stream.time_base
        time_s = None if pts is None or base is None else float((pts - (self.first_pts or 0)) * base)
        self.faults.note(error, time_s)

    def frames_from(self, start_s: float) -> Iterator[Frame]:
        """Frames from the first one at or after `start_s` (one millisecond of tolerance), by seeking."""
        for frame in self.frames_around(start_s):
            if frame.time_s >= start_s - 0.001:
                yield frame

    def frames_around(self, start_s: float) -> Iterator[Frame]:
        """Frames from the one on screen at `start_s` or an earlier one on, by seeking."""
        if self.first_pts is None and not self._counted:
            first = next(self.frames(), None)
            if first is None:
                return
        for margin_s in _SEEK_MARGINS_S:
            if start_s <= margin_s or self._counted or not self._seek(start_s - margin_s):
                break
            frames = self.frames()
            frame = next(frames, None)
            # Keyframes are found by decoding time, which is earlier: the seek may land after its aim.
            if frame is not None and frame.time_s <= start_s + 0.001:
                yield frame
                yield from frames
                return
        self.container.close()
        self._open()
        yield from self.frames()

    def keyframe_between(self, now_s: float, then_s: float) -> bool:
        """Whether the container lists a keyframe in this span, so that seeking spares the frames before it."""
        entries, base = self.stream.index_entries, self.stream.time_base
        if self.first_pts is None or base is None or not len(entries):
            return False
        at = entries.search_timestamp(self.first_pts + int(then_s / base))
        return at >= 0 and float((entries[at].timestamp - self.first_pts) * base) > now_s + 0.5

    def _seek(self, time_s: float) -> bool:
        assert self.first_pts is not None
        ticks = int(time_s / self.stream.time_base) if self.stream.time_base else 0
        try:
            self.container.seek(self.first_pts + ticks, stream=self.stream)
        except FFmpegError:  # a format without an index
            return False
        return True


MAX_BAD_IN_A_ROW = 500
_SEEK_MARGINS_S = (0.0, 1.0, 10.0)


def read_frames(
    path: str, times_s: Sequence[float], *, height: int | None = None
) -> tuple[list[np.ndarray], list[float]]:
    """Pictures shown at the given times (seconds of the source, ascending).

    Returns RGB pictures (H, W, 3) uint8 as displayed and their real PTS in seconds: for each time, the frame
    on screen then. Fewer pictures come back only if none can be decoded.
    """
    pictures: list[np.ndarray] = []
    found: list[float] = []
    with Video(path) as video:
        shown: Frame | None = None
        following: Frame | None = None
        for time_s in times_s:
            if shown is None or video.keyframe_between(shown.time_s, time_s):
                frames = video.frames_around(time_s)
                following = next(frames, None)
            while following is not None and (shown is None or following.time_s <= time_s + 0.001):
                shown, following = following, next(frames, None)
            if shown is None:
                break
            pictures.append(shown.picture(height=height))
            found.append(shown.time_s)
    return pictures, found


def even_times(start_s: float, end_s: float, count: int) -> list[float]:
    """`count` times at the centres of equal parts of [start_s, end_s)."""
    step = (end_s - start_s) / count
    return [start_s + (i + 0.5) * step for i in range(count)]
