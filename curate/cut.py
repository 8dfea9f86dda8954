"""Cut clips out of a source: one pass over it, each clip encoded as H.264 in its own mp4.

Runs in a process that can be killed (curate.isolate). A clip holds exactly the frames whose PTS lie in
[start_s, end_s): no frame of a neighbour, none lost. Borders are cropped away, rotation and sample aspect
applied, timestamps kept as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.error import FFmpegError

from curate.frames import Frame, Video, rotation_deg

# Seeking costs the frames from the last keyframe on; below this gap it is cheaper to decode through.
_SEEK_GAP_S = 10.0
_TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True)
class CutConfig:
    """How kept clips are encoded.

    Attributes:
        crf: quality of x264, 0 (lossless) to 51; 18 is visually lossless.
        preset: speed of x264, ultrafast to veryslow.
        gop: most frames between keyframes; small values make random access fast.
        max_height: taller pictures are scaled down to this many lines; null keeps the size.
    """

    crf: int = 20
    preset: str = "veryfast"
    gop: int = 24
    max_height: int | None = None


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
    """Write `folder`/CLIP_ID.mp4 for each span of the local file `path`.

    Returns per span: clip_id, width, height, fps, n_frames, duration_s, mp4_size, and error (None if it went
    well; the others are then set). Raises BadInput when the file cannot be opened at all.
    """
    results = []
    with Video(path) as video:
        frames = _Cursor(video)
        for span in sorted(spans, key=lambda s: s.start_s):
            target = os.path.join(folder, f"{span.clip_id}.mp4")
            facts = {"clip_id": span.clip_id, "error": None}
            try:
                facts |= _encode(frames.between(span.start_s, span.end_s), span, target, config)
            except (FFmpegError, ValueError) as error:
                facts["error"] = f"{type(error).__name__}: {error}"
            results.append(facts)
    return results


class _Cursor:
    """Frames of a video by ascending spans, each decoded once."""

    def __init__(self, video: Video) -> None:
        self._video = video
        self._frames: Iterator[Frame] | None = None
        self._next: Frame | None = None

    def between(self, start_s: float, end_s: float) -> Iterator[Frame]:
        """Frames with start_s <= PTS < end_s. Half a millisecond of tolerance absorbs rounding."""
        if self._frames is None or self._next is None or start_s - self._next.time_s > _SEEK_GAP_S:
            self._frames = self._video.frames_from(start_s)
            self._advance()
        while self._next is not None and self._next.time_s < end_s - 0.0005:
            frame = self._next
            if frame.time_s >= start_s - 0.0005:
                yield frame
            self._advance()

    def _advance(self) -> None:
        assert self._frames is not None
        try:
            self._next = next(self._frames, None)
        except FFmpegError:
            self._next = None  # a clip that ends here is whole; any other is found short by its frame count


def _encode(frames: Iterator[Frame], span: Span, target: str, config: CutConfig) -> dict:
    count = 0
    with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = None
        for frame in frames:
            if stream is None:
                width, height = _size(span, config)
                graph = _upright(frame, span, width, height)
                # The rate is a hint to x264; the timing comes from the PTS.
                stream = out.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.time_base = stream.codec_context.time_base = _TIME_BASE
                stream.codec_context.options = {
                    "crf": str(config.crf),
                    "preset": config.preset,
                    # Or the bytes would depend on the processor, and now and then on the run.
                    "x264-params": "cpu-independent=1",
                }
                stream.codec_context.gop_size = config.gop
                stream.codec_context.thread_count = 1
            graph.push(frame.raw)
            picture = graph.pull()
            assert isinstance(picture, av.VideoFrame)
            picture.pts = round((frame.time_s - span.start_s) / _TIME_BASE)
            picture.time_base = _TIME_BASE
            picture.pict_type = av.video.frame.PictureType.NONE
            out.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise ValueError(f"no frame between {span.start_s:.3f} and {span.end_s:.3f} s could be decoded")
        out.mux(stream.encode(None))
    if count != span.n_frames:
        raise ValueError(
            f"{count} frames were cut, but {span.n_frames} were found when the clip was measured"
        )
    duration_s = span.end_s - span.start_s
    return {
        "width": width,
        "height": height,
        "fps": count / duration_s,
        "n_frames": count,
        "duration_s": duration_s,
        "mp4_size": os.path.getsize(target),
    }


def _size(span: Span, config: CutConfig) -> tuple[int, int]:
    """Even width and height of the encoded picture."""
    scale = min(1.0, config.max_height / span.h) if config.max_height else 1.0
    return max(2, round(span.w * scale / 2) * 2), max(2, round(span.h * scale / 2) * 2)


_TURN: dict[int, list[tuple[str, str | None]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}


def _upright(frame: Frame, span: Span, width: int, height: int) -> av.filter.Graph:
    """Filters from the coded picture to the cropped, upright one of width x height."""
    raw = frame.raw
    turn = rotation_deg(raw)
    shown_w, shown_h = frame.displayed_size
    graph = av.filter.Graph()
    chain = [
        graph.add_buffer(width=raw.width, height=raw.height, format=raw.format, time_base=_TIME_BASE),
        *(graph.add(name, args) for name, args in _TURN[turn]),
    ]
    if (shown_w, shown_h) != ((raw.height, raw.width) if turn in (90, 270) else (raw.width, raw.height)):
        chain.append(graph.add("scale", f"{shown_w}:{shown_h}"))
    if (span.w, span.h) != (shown_w, shown_h):
        chain.append(graph.add("crop", f"{span.w}:{span.h}:{span.x}:{span.y}"))
    chain += [
        graph.add("scale", f"{width}:{height}:out_range=tv:flags=bicubic+accurate_rnd+bitexact"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph
