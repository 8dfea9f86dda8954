"""Audio is cut to the sample, and nothing about it can cost a clip its picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_films import numbered, shown_in, spans_of

from curate.cut import CutConfig, cut_clips

KEEP = CutConfig(crf=12, preset="ultrafast", audio="keep", audio_kbps=128)
EDGES = [(0, 40), (40, 71), (90, 120)]
SECONDS = 4.8  # 120 frames


def chirp(rate: int, channels: int, seconds: float = SECONDS) -> np.ndarray:
    """(channels, samples) float32: noise below 3 kHz, so that any shift of one sample shows."""
    noise = np.random.default_rng(1).normal(size=round(seconds * rate))
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / rate) > 3000] = 0
    sound = np.fft.irfft(spectrum, len(noise))
    return np.repeat((0.25 * sound / sound.std())[None], channels, 0).astype(np.float32)


def film_with_sound(
    path: Path,
    codec: str,
    *,
    rate: int = 48_000,
    channels: int = 2,
    seconds: float = SECONDS,
    delay_s: float = 0.0,
    spoil: range = range(0),
) -> Path:
    """A numbered film of 120 frames with `chirp`; packets of the numbers in `spoil` hold noise."""
    layout = "stereo" if channels == 2 else "mono"
    sound = chirp(rate, channels, seconds)
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 128, 96, "yuv420p"
        picture.options = {"crf": "18", "preset": "ultrafast"}
        audio = out.add_stream(codec, rate=rate, layout=layout)
        if codec == "vorbis":
            audio.codec_context.options = {"strict": "experimental"}
        audio.codec_context.open()
        size = audio.codec_context.frame_size or 1024
        kind = audio.codec_context.format.name
        packets = []
        for i, image in enumerate(numbered(120)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        heard = []
        resampler = av.AudioResampler(format=kind, layout=layout, rate=rate)
        for place in range(0, sound.shape[1], size):
            block = np.ascontiguousarray(sound[:, place : place + size])
            if block.shape[1] < size and codec == "vorbis":
                break
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
            for part in resampler.resample(frame):
                part.pts, part.time_base = place, Fraction(1, rate)
                heard += audio.encode(part)
        heard += audio.encode(None)
        noise = np.random.default_rng(2)
        for number, packet in enumerate(heard):
            packet.pts += round(delay_s / packet.time_base)
            packet.dts += round(delay_s / packet.time_base)
            if number in spoil:
                packet.update(noise.bytes(packet.size))
        for packet in sorted(packets + heard, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    """Mono samples and rate of an mp4, as a player that honours edit lists hears them."""
    with av.open(str(path)) as clip:
        resampler = av.AudioResampler(format="fltp", layout="mono")
        blocks, rate = [], 0
        for frame in clip.decode(audio=0):
            rate = frame.sample_rate
            blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(blocks), rate


def lag_and_likeness(heard: np.ndarray, own: np.ndarray) -> tuple[int, float]:
    """Samples by which `heard` is late, and the correlation at that place."""
    n = min(len(heard), len(own))
    heard, own = heard[:n], own[:n]
    cross = np.fft.irfft(np.fft.rfft(heard, 2 * n) * np.conj(np.fft.rfft(own, 2 * n)))
    lag = int(np.argmax(cross))
    lag = lag - 2 * n if lag > n else lag
    return lag, float(cross.max() / np.sqrt((heard**2).sum() * (own**2).sum()))


@pytest.mark.parametrize(
    ("codec", "extension", "rate", "channels"),
    [
        ("pcm_s16le", "mov", 48_000, 2),
        ("pcm_s16le", "mkv", 44_100, 1),
        ("aac", "mp4", 44_100, 2),
        ("libmp3lame", "mp4", 44_100, 2),
        ("libopus", "mkv", 48_000, 2),
        ("vorbis", "mkv", 44_100, 2),
        ("flac", "mkv", 96_000, 2),
        ("ac3", "mp4", 48_000, 2),
        ("aac", "ts", 48_000, 2),
        ("pcm_s16le", "mov", 44_056, 2),  # a rate that AAC lacks
    ],
)
def test_any_codec_is_cut_to_the_sample(
    tmp_path: Path, codec: str, extension: str, rate: int, channels: int
) -> None:
    path = film_with_sound(tmp_path / f"film.{extension}", codec, rate=rate, channels=channels)
    with av.open(str(path)) as source:
        start_s = float(source.streams.video[0].start_time * source.streams.video[0].time_base)
    spans = spans_of(path, EDGES)
    cuts = cut_clips(str(path), spans, str(tmp_path), KEEP)
    assert [(cut["error"], cut["has_audio"], cut["audio_error"]) for cut in cuts] == [(None, True, None)] * 3
    own, own_rate = sound_of(path)
    with av.open(str(path)) as source:
        first = next(source.decode(audio=0))
        own_start = float(first.pts * first.time_base) - start_s
    for span, (first_frame, end) in zip(spans, EDGES, strict=True):
        clip = tmp_path / f"{span.clip_id}.mp4"
        assert shown_in(clip)[0] == list(range(first_frame, end))
        heard, heard_rate = sound_of(clip)
        assert abs(len(heard) / heard_rate - (span.end_s - span.start_s)) < 0.03
        place = round((span.start_s - own_start) * own_rate)
        part = own[max(0, place) :][: round((span.end_s - span.start_s) * own_rate)]
        if heard_rate != own_rate:
            assert heard_rate == 48_000
            times = np.arange(len(heard)) * own_rate / heard_rate
            part = np.interp(times, np.arange(len(part)), part)
        lag, likeness = lag_and_likeness(heard, part)
        if place >= 0:
            # Matroska and its kin tell time in milliseconds.
            assert abs(lag) <= (heard_rate // 1000 if extension in ("mkv", "ts") else 1)
        assert likeness > 0.9


def test_audio_that_begins_late_and_ends_early(tmp_path: Path) -> None:
    path = film_with_sound(tmp_path / "a.mov", "pcm_s16le", seconds=2.5, delay_s=0.4)  # 0.4 to 2.9 s
    cuts = cut_clips(str(path), spans_of(path, EDGES), str(tmp_path), KEEP)
    assert [cut["error"] for cut in cuts] == [None] * 3
    assert [cut["has_audio"] for cut in cuts] == [True, True, False]
    assert cuts[0]["audio_error"] is None  # silence, then sound
    assert cuts[2]["audio_error"] == "no audio between 3.600 and 4.800 s"
    heard, rate = sound_of(tmp_path / f"{cuts[0]['clip_id']}.mp4")
    assert np.abs(heard[: round(0.38 * rate)]).max() < 1e-3
    own = chirp(48_000, 1)[0]
    lag, likeness = lag_and_likeness(heard[round(0.4 * rate) :], own)
    assert abs(lag) <= 1
    assert likeness > 0.95
    short = spans_of(path, [(50, 100)])
    (cut,) = cut_clips(str(path), short, str(tmp_path), KEEP)  # 2.0 to 4.0 s
    assert cut["has_audio"]
    assert cut["audio_error"] == "audio ends 1.100 s before the picture"
    assert shown_in(tmp_path / f"{cut['clip_id']}.mp4")[0] == list(range(50, 100))


@pytest.mark.parametrize(
    ("codec", "extension", "first_bad"), [("aac", "mp4", 100), ("ac3", "mkv", 66), ("libopus", "mkv", 100)]
)
def test_broken_packets_cost_sound_and_no_picture(
    tmp_path: Path, codec: str, extension: str, first_bad: int
) -> None:
    path = film_with_sound(tmp_path / f"a.{extension}", codec, spoil=range(first_bad, 400))  # from 2.1 s on
    cuts = cut_clips(str(path), spans_of(path, EDGES), str(tmp_path), KEEP)
    assert [cut["error"] for cut in cuts] == [None] * 3
    for cut, (first, end) in zip(cuts, EDGES, strict=True):
        assert shown_in(tmp_path / f"{cut['clip_id']}.mp4")[0] == list(range(first, end))
    assert cuts[0]["has_audio"]
    assert cuts[1]["has_audio"]  # what sounds before the damage is kept
    # Opus decodes any bytes to some sound.
    assert [bool(cut["audio_error"]) for cut in cuts] == [False, codec != "libopus", codec != "libopus"]


def test_no_audio_and_an_unknown_codec(tmp_path: Path) -> None:
    silent = film_with_sound(tmp_path / "a.mov", "pcm_s16le", seconds=0.02)
    data = film_with_sound(tmp_path / "b.mov", "pcm_s16le").read_bytes()
    assert data.count(b"sowt") == 1
    (tmp_path / "odd.mov").write_bytes(data.replace(b"sowt", b"zq7x"))
    for name, remark in ((silent.name, "no audio between"), ("odd.mov", "codec")):
        path = tmp_path / name
        (cut,) = cut_clips(str(path), spans_of(path, [(40, 71)]), str(tmp_path), KEEP)
        assert (cut["error"], cut["has_audio"]) == (None, False)
        assert remark in cut["audio_error"]
        assert shown_in(tmp_path / f"{cut['clip_id']}.mp4")[0] == list(range(40, 71))


def test_dropped_or_kept_the_pictures_are_the_same(tmp_path: Path) -> None:
    path = film_with_sound(tmp_path / "a.mp4", "aac")
    (span,) = spans_of(path, [(40, 71)])
    for config in (KEEP, CutConfig(crf=12, preset="ultrafast"), CutConfig(mode="copy", audio="keep")):
        (cut,) = cut_clips(str(path), [span], str(tmp_path), config)
        assert cut["has_audio"] == (config.audio == "keep")
        with av.open(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
            assert len(clip.streams.audio) == (config.audio == "keep")
            assert sum(1 for _ in clip.decode(video=0)) == 31
