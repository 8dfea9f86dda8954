"""One clip as H.264 in mp4: the pictures that go in, upright and cropped, and the encoder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.video.reformatter import ColorRange

from curate.frames import Frame, rotation_deg

if TYPE_CHECKING:
    from curate.cut import CutConfig, Span

TIME_BASE = Fraction(1, 90_000)
_RGB, _BT709 = 0, 1  # colour matrices, ITU-T H.273
# Named on both sides, or FFmpeg converts tagged colours to what it takes untagged ones for.
_SAME_MATRIX = "in_color_matrix=bt709:out_color_matrix=bt709"


def encoded_size(span: Span, max_height: int | None) -> tuple[int, int]:
    """Even (width, height) of the clip's picture."""
    scale = min(1.0, max_height / span.h) if max_height else 1.0
    return max(2, round(span.w * scale / 2) * 2), max(2, round(span.h * scale / 2) * 2)


def pictures(frames: Iterator[Frame], span: Span, max_height: int | None) -> Iterator[av.VideoFrame]:
    """Frames as the encoder takes them: upright, cropped, yuv420p of video range, timed from start_s."""
    size = encoded_size(span, max_height)
    shown: tuple[int, int] | None = None
    graph, made_for = None, None
    held: tuple[int, av.VideoFrame] | None = None
    for frame in frames:
        shown = shown or frame.displayed_size
        raw = frame.raw
        look = (raw.width, raw.height, raw.format.name, raw.color_range, rotation_deg(raw))
        if look != made_for:  # at the first frame, and wherever a stream changes its picture
            graph, made_for = _upright(frame, span, shown, size), look
        picture = raw
        if graph is not None:
            graph.push(raw)
            pulled = graph.pull()
            assert isinstance(pulled, av.VideoFrame)
            picture = pulled
            # Filters forget what the colours mean; ours keep it, and make BT.709 of RGB.
            picture.colorspace = raw.colorspace if raw.colorspace != _RGB else _BT709
            picture.color_primaries, picture.color_trc = raw.color_primaries, raw.color_trc
        picture.pts = pts = round((frame.time_s - span.start_s) / TIME_BASE)
        picture.time_base = TIME_BASE
        picture.pict_type = av.video.frame.PictureType.NONE
        if held is not None:
            held[1].duration = pts - held[0]
            yield held[1]
        held = pts, picture
    if held is not None:
        held[1].duration = max(1, round((span.end_s - span.start_s) / TIME_BASE) - held[0])
        yield held[1]


_TURN: dict[int, list[tuple[str, str | None]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}


def _upright(
    frame: Frame, span: Span, shown: tuple[int, int], size: tuple[int, int]
) -> av.filter.Graph | None:
    """Filters from the coded picture to the cropped, upright one of `size`; None if that is what it is.

    `shown` is the displayed size that the span's borders were measured in.
    """
    raw = frame.raw
    turn = rotation_deg(raw)
    full_range = raw.color_range == ColorRange.JPEG or raw.format.name.startswith("yuvj")
    turned = (raw.height, raw.width) if turn in (90, 270) else (raw.width, raw.height)
    if turn == 0 and turned == shown == (span.w, span.h) == size:  # noqa: SIM102
        if raw.format.name == "yuv420p" and not full_range:
            return None
    graph = av.filter.Graph()
    chain = [
        graph.add_buffer(width=raw.width, height=raw.height, format=raw.format, time_base=TIME_BASE),
        *(graph.add(name, args) for name, args in _TURN[turn]),
    ]
    if shown != turned:
        chain.append(
            graph.add("scale", f"{shown[0]}:{shown[1]}:{_SAME_MATRIX}:flags=bicubic+accurate_rnd+bitexact")
        )
    if (span.w, span.h) != shown:
        chain.append(graph.add("crop", f"{span.w}:{span.h}:{span.x}:{span.y}"))
    # Where only chroma changes its size, the mean of its pixels is right, and twice as fast.
    flags = "area+bitexact" if (span.w, span.h) == size else "bicubic+accurate_rnd+bitexact"
    ranges = f"in_range={'pc' if full_range else 'tv'}:out_range=tv"
    chain += [
        graph.add("scale", f"{size[0]}:{size[1]}:{ranges}:{_SAME_MATRIX}:flags={flags}"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def encode(
    shown: Iterator[av.VideoFrame], span: Span, target: str, config: CutConfig, m4a: bytes | None
) -> dict:
    """Write the clip at `target`; returns its facts. Raises ValueError if it has not the frames of its span.

    `m4a` is the clip's audio, a track of an mp4 of its own.
    """
    duration_s = span.end_s - span.start_s
    count = 0
    with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = None
        for picture in shown:
            if stream is None:
                stream = _video_stream(out, picture, config, max(1, round(span.n_frames / duration_s)))
                sound = AudioTrackCopy(out, m4a)
            for packet in stream.encode(picture):
                sound.mux_until(packet)
                out.mux(packet)
            count += 1
        if stream is None:
            raise ValueError(f"no frame between {span.start_s:.3f} and {span.end_s:.3f} s could be decoded")
        for packet in stream.encode(None):
            sound.mux_until(packet)
            out.mux(packet)
        sound.mux_rest()
    if count != span.n_frames:
        raise ValueError(
            f"{count} frames were cut, but {span.n_frames} were found when the clip was measured"
        )
    return {
        "width": stream.width,
        "height": stream.height,
        "fps": count / duration_s,
        "n_frames": count,
        "duration_s": duration_s,
        "encoded_s": duration_s,
        "mp4_size": os.path.getsize(target),
    }


def _video_stream(
    out: av.container.OutputContainer, picture: av.VideoFrame, config: CutConfig, rate: int
) -> av.VideoStream:
    # The rate chooses H.264's level; the timing comes from the PTS.
    stream = out.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
    codec = stream.codec_context
    stream.time_base = codec.time_base = TIME_BASE
    codec.options = {
        "crf": str(config.crf),
        "preset": config.preset,
        # Or the bytes would depend on the processor, and now and then on the run.
        "x264-params": "cpu-independent=1",
    }
    codec.flags |= av.codec.context.Flags.frame_duration  # the last picture is shown as long as it was
    codec.gop_size = config.gop
    codec.thread_count = 1
    # What the colours mean goes along, or players would guess it from the size.
    codec.color_range = ColorRange.MPEG
    codec.color_primaries, codec.color_trc = picture.color_primaries, picture.color_trc
    codec.colorspace = picture.colorspace
    return stream


class AudioTrackCopy:
    """Interleaves the packets of an audio track of its own mp4 with a clip's pictures."""

    def __init__(self, out: av.container.OutputContainer, m4a: bytes | None) -> None:
        self._out = out
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        if m4a is not None:
            source = av.open(io.BytesIO(m4a), "r")
            self._stream = out.add_stream_from_template(source.streams.audio[0])
            self._packets = (p for p in source.demux(audio=0) if p.dts is not None)
            self._waiting = next(self._packets, None)

    def mux_until(self, video: av.Packet) -> None:
        """Write what sounds before the video packet."""
        while self._waiting is not None and _seconds(self._waiting) <= _seconds(video):
            self._mux()

    def mux_rest(self) -> None:
        while self._waiting is not None:
            self._mux()

    def _mux(self) -> None:
        assert self._waiting is not None
        self._waiting.stream = self._stream
        self._out.mux(self._waiting)
        self._waiting = next(self._packets, None)


def _seconds(packet: av.Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)
