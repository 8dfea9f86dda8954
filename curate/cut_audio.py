"""The sound of a span, cut to the sample and encoded as AAC; whatever is wrong with it, the picture stands.

    track = AudioTrack("film.mkv", origin_s=0.0, kbps=64)
    m4a, error = track.cut(1.5, 4.0)

It has a file handle of its own, so that nothing it meets (an unknown codec, broken packets, a track that ends
early) can disturb the decoding of pictures. Times are those of the pictures: 0 is the first one shown. A
sample lies where the container's clock puts it; clocks that count milliseconds only (Matroska) are followed
by counting samples from the frame that was read first.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError

from curate.frames import Video

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_FRAME = 1024
# Decoders of mp3 and opus are right only some frames after a seek.
_PREROLL_S = 0.5
_SEEK_GAP_S = 10.0
# Clocks jitter by a millisecond or two; a larger step is a gap or an overlap.
_JITTER_S = 0.003
_SHORT_S = 0.05
_SILENCE = 48_000  # samples filled in at a time

_Block = tuple[int, np.ndarray]  # first sample, counted from origin; (channels, samples) float32


class AudioTrack:
    """The first audio stream of a file, read forward.

    Args:
        path: a local file.
        origin_s: when the first picture is shown, on the container's clock.
        kbps: kilobits per second and channel of the AAC.
    """

    def __init__(self, path: str, origin_s: float, kbps: int) -> None:
        self._origin_s = origin_s
        self._kbps = kbps
        self._video: Video | None = None
        self._blocks: Iterator[_Block] | None = None
        self._held: _Block | None = None  # read, but wholly or partly behind the last span
        self._errors: list[str] = []
        self._missing: str | None = None
        try:
            self._video = Video(path)
            streams = self._video.container.streams.audio
            if not streams:
                self._missing = "the source has no audio stream"
                return
            self._stream = streams[0]
            codec = self._stream.codec_context
            if codec is None:
                self._missing = "the audio stream's codec is unknown"
                return
            self.rate = codec.sample_rate if codec.sample_rate in _AAC_RATES else 48_000
            self.layout = "mono" if codec.channels == 1 else "stereo"
        except Exception as error:  # whatever is odd about the sound is a remark, never a lost clip
            self._missing = _text(error)

    def close(self) -> None:
        if self._video is not None:
            self._video.container.close()

    def cut(self, start_s: float, end_s: float) -> tuple[bytes | None, str | None]:
        """(mp4 of one AAC track or None, what is wrong or None) of [start_s, end_s). Never raises."""
        if self._missing is not None:
            return None, self._missing
        self._errors = []
        try:
            m4a, end = self._encode(round(start_s * self.rate), round(end_s * self.rate))
        except Exception as error:  # see above
            self._blocks = self._held = None
            return None, _text(error)
        remarks = list(dict.fromkeys(self._errors))
        short_s = end_s - end / self.rate
        if m4a is None:
            remarks.insert(0, f"no audio between {start_s:.3f} and {end_s:.3f} s")
        elif short_s > _SHORT_S:
            remarks.insert(0, f"audio ends {short_s:.3f} s before the picture")
        return m4a, "; ".join(remarks) or None

    def _encode(self, start: int, end: int) -> tuple[bytes | None, int]:
        """AAC of the samples [start, end), silence where some are missing; and the sample it ends before."""
        writer: _AacWriter | None = None
        at = start
        for first, samples in self._from(start):
            if first >= end:
                break
            part = samples[:, max(0, at - first) : end - first]
            if part.shape[1] == 0:
                continue
            writer = writer or _AacWriter(self.rate, self.layout, self._kbps)
            gap = max(first, at) - at
            while gap > 0:
                writer.write(np.zeros((len(samples), min(gap, _SILENCE)), np.float32))
                gap -= _SILENCE
            writer.write(part)
            at = max(first, at) + part.shape[1]
            if at >= end:
                break
        return (writer.finish() if writer is not None else None), at

    def _from(self, start: int) -> Iterator[_Block]:
        """Blocks from the one that holds sample `start` on; the last one taken is offered again next time."""
        far = self._held is None or not 0 <= start - self._held[0] <= _SEEK_GAP_S * self.rate
        if self._blocks is None or far:
            self._blocks = self._read(start / self.rate)
            self._held = next(self._blocks, None)
        while self._held is not None:
            yield self._held
            self._held = next(self._blocks, None)
        self._blocks = None

    def _read(self, start_s: float) -> Iterator[_Block]:
        """Decode from shortly before `start_s` on. Packets that cannot be decoded are noted and left out."""
        assert self._video is not None
        base = self._stream.time_base or Fraction(1, self.rate)
        ticks = math.floor(max(0.0, self._origin_s + start_s - _PREROLL_S) / base)
        self._video.container.seek(ticks, stream=self._stream)
        resampler = self._resampler()
        clock: int | None = None
        for frame in self._frames():
            try:
                parts = resampler.resample(frame)
            except (FFmpegError, ValueError):  # rate or channels changed on the way
                resampler = self._resampler()
                parts = resampler.resample(frame)
            for part in parts:
                if part.pts is None or part.time_base is None:
                    continue
                first = round((float(part.pts * part.time_base) - self._origin_s) * self.rate)
                if clock is not None and abs(first - clock) <= _JITTER_S * self.rate:
                    first = clock
                clock = first + part.samples
                yield first, part.to_ndarray()

    def _resampler(self) -> av.AudioResampler:
        return av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)

    def _frames(self) -> Iterator[av.AudioFrame | None]:
        assert self._video is not None
        packets = self._video.container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                self._errors.append(_text(error))
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except FFmpegError as error:
                self._errors.append(_text(error))
                continue
            yield from frames
        yield None  # flushes the resampler


class SpanAudio:
    """What a clip is given to hear: nothing (`path` None), or a track that is opened when first wanted."""

    def __init__(self, path: str | None, origin_s: float, kbps: int) -> None:
        self._path = path
        self._settings = (origin_s, kbps)
        self._track: AudioTrack | None = None

    def cut(self, start_s: float, end_s: float) -> tuple[bytes | None, str | None]:
        """As AudioTrack.cut."""
        if self._path is None:
            return None, None
        self._track = self._track or AudioTrack(self._path, *self._settings)
        return self._track.cut(start_s, end_s)

    def __enter__(self) -> SpanAudio:
        return self

    def __exit__(self, *_: object) -> None:
        if self._track is not None:
            self._track.close()


class _AacWriter:
    """Samples in, an mp4 with one AAC track out; nothing longer than a frame waits."""

    def __init__(self, rate: int, layout: str, kbps: int) -> None:
        self._buffer = io.BytesIO()
        self._out = av.open(self._buffer, "w", format="mp4")
        self._stream = self._out.add_stream("aac", rate=rate, layout=layout)
        channels = 1 if layout == "mono" else 2
        self._stream.bit_rate = kbps * 1000 * channels
        self._rate, self._layout = rate, layout
        self._waiting = np.zeros((channels, 0), np.float32)
        self._written = 0

    def write(self, samples: np.ndarray) -> None:
        """Append (channels, samples) float32."""
        self._waiting = np.concatenate([self._waiting, samples], axis=1)
        whole = self._waiting.shape[1] // _AAC_FRAME * _AAC_FRAME
        for place in range(0, whole, _AAC_FRAME):
            self._push(self._waiting[:, place : place + _AAC_FRAME])
        self._waiting = self._waiting[:, whole:]

    def finish(self) -> bytes:
        if self._waiting.shape[1]:
            self._push(self._waiting)
        self._out.mux(self._stream.encode(None))
        self._out.close()
        return self._buffer.getvalue()

    def _push(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._written
        self._written += samples.shape[1]
        self._out.mux(self._stream.encode(frame))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
