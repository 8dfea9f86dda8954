"""A corpus of bad and odd video files: one function each, which writes it to `path` and says what it is and why.

    for bad in CORPUS: bad.make(folder / bad.name)

`EXPECTED` is literal: what must become of each and what its error must say.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from conftest import moving_square, write_video

GOPS = {"g": "20", "keyint_min": "20", "sc_threshold": "0", "crf": "18", "preset": "ultrafast"}


def film(path: Path, n_frames: int = 40, **how) -> Path:
    return write_video(path, moving_square(n_frames), options=how.pop("options", GOPS), **how)


def mux(path: Path, pts: list[int], *, n_frames: int = 40, rate: int = 25, form: str | None = None) -> None:
    """A film whose packets carry the given timestamps in milliseconds, written as they are."""
    source = film(path.with_name(path.name + ".tmp.mp4"), n_frames, options={**GOPS, "bf": "0"})
    with av.open(str(source)) as made, av.open(str(path), "w", format=form) as out:
        stream = out.add_stream_from_template(made.streams.video[0])
        for packet, time_ms in zip(made.demux(video=0), pts, strict=False):
            if packet.size:
                packet.stream = stream
                packet.time_base = Fraction(1, 1000)
                packet.pts = packet.dts = time_ms
                out.mux(packet)
    source.unlink()


def overwrite(path: Path, begin: float, end: float) -> None:
    """Noise over a part of the media data, from and to the given shares."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[start - 8 : start - 4])[0] - 8
    a, b = start + int(size * begin), start + int(size * end)
    data[a:b] = np.random.default_rng(0).bytes(b - a)
    path.write_bytes(data)


# Not a video at all ----------------------------------------------------------------------------------------


def zero_bytes(path: Path) -> None:
    """An upload that never began."""
    path.touch()


def text(path: Path) -> None:
    """An error page saved under a video's name."""
    path.write_text("<html><body>404 Not Found</body></html>" * 20)


def noise(path: Path) -> None:
    """Random bytes: an encrypted file."""
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def zeros(path: Path) -> None:
    """A preallocated download that was never filled."""
    path.write_bytes(bytes(50_000))


def picture(path: Path) -> None:
    """A PNG under a video's name."""
    path.write_bytes(cv2.imencode(".png", moving_square(1)[0])[1].tobytes())


def audio_only(path: Path) -> None:
    """A sound track without a picture."""
    with av.open(str(path), "w") as out:
        _add_audio(out)


def _add_audio(out: av.container.OutputContainer) -> None:
    stream = out.add_stream("aac", rate=44100, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
    frame.rate = 44100
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def cover_art(path: Path) -> None:
    """A song with its cover: the only picture is an attached one."""
    jpeg = cv2.imencode(".jpg", moving_square(1)[0])[1].tobytes()
    with av.open(str(path), "w", format="mp4") as out:
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = out.add_stream("aac", rate=44100, layout="mono")
        packet = av.Packet(jpeg)
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 25)
        packet.is_keyframe = True
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        encoded = sound.encode(frame) + sound.encode(None)
        out.mux(packet)
        out.mux(encoded)


def folder(path: Path) -> None:
    """A folder named like a video, with nothing in it that is one."""
    path.mkdir()
    (path / "readme.txt").write_text("nothing here")


def pipe(path: Path) -> None:
    """A named pipe: opening it would wait for ever."""
    os.mkfifo(path)


def device(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


def dangling_link(path: Path) -> None:
    """A link to a file that is gone."""
    path.symlink_to("gone.mp4")


def link_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


# Lists that make FFmpeg read other files ----------------------------------------------------------------------


def ffconcat(path: Path) -> None:
    """A list for FFmpeg's concat demuxer that names another video."""
    target = path.with_name("secret.bin")
    film(target.with_suffix(".tmp.mp4")).rename(target)
    path.write_text(f"ffconcat version 1.0\nfile '{target}'\n")


def hls(path: Path) -> None:
    """An HLS playlist that names a local file and an address."""
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXTINF:5,\n"
        "http://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    )


def dash(path: Path) -> None:
    """A DASH manifest that names a local file."""
    path.write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        'bandwidth="1"><BaseURL>file:///etc/passwd</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )


def sdp(path: Path) -> None:
    """A session description: FFmpeg would listen on the network."""
    path.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n")


def bomb(path: Path) -> None:
    """A still of 16,384 x 16,384 in 800 kB: 800 MB when decoded."""
    import zlib

    side = 16_384
    row = bytes(1 + side * 3)
    packer = zlib.compressobj(9)
    data = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))


# Cut off or damaged ----------------------------------------------------------------------------------------------


def _truncated(path: Path, share: float, *, index_first: bool) -> None:
    film(path)
    if index_first:
        _faststart(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _faststart(path: Path) -> None:
    source = path.rename(path.with_name(path.name + ".tmp.mp4"))
    with (
        av.open(str(source)) as made,
        av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(made.streams.video[0])
        for packet in made.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    source.unlink()


def truncated_without_index(path: Path) -> None:
    """A recording broken off: the index at the end was never written."""
    _truncated(path, 0.5, index_first=False)


def truncated_in_the_index(path: Path) -> None:
    """The last bytes of the index are missing."""
    _truncated(path, 0.98, index_first=False)


def header_only(path: Path) -> None:
    """The first 32 bytes of an mp4."""
    film(path)
    path.write_bytes(path.read_bytes()[:32])


def index_only(path: Path) -> None:
    """A download broken off after the index: every frame is promised, none is there."""
    film(path)
    _faststart(path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


def truncated_behind_the_index(path: Path) -> None:
    """A download broken off at half: the index promises 40 frames, half of the bytes are there."""
    _truncated(path, 0.6, index_first=True)


def truncated_mkv(path: Path) -> None:
    """A Matroska file cut off at 60 %."""
    film(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])


def damaged_middle(path: Path) -> None:
    """Noise over the second of three GOPs: the first and the third are good."""
    film(path, 60)
    overwrite(path, 0.4, 0.6)


def damaged_hevc(path: Path) -> None:
    """The same in HEVC."""
    film(
        path, 60, codec="libx265",
        options={"x265-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=0:log-level=none"},
    )  # fmt: skip
    overwrite(path, 0.4, 0.6)


def damaged_vp9(path: Path) -> None:
    """The same in VP9, which has no checksum: what decodes is taken."""
    film(path, 60, codec="libvpx-vp9", options={"g": "20", "deadline": "realtime", "cpu-used": "8"})
    overwrite(path, 0.4, 0.6)


def damaged_av1(path: Path) -> None:
    """The same in AV1."""
    os.environ.setdefault("SVT_LOG", "-1")  # it would greet
    film(path, 60, codec="libsvtav1", options={"g": "20", "preset": "12"})
    overwrite(path, 0.4, 0.6)


def all_media_is_noise(path: Path) -> None:
    """A good index over encrypted media."""
    film(path)
    overwrite(path, 0.0, 1.0)


def transport_stream_with_holes(path: Path) -> None:
    """A broadcast with packets lost on the way, begun in the middle of a GOP."""
    film(path, 100)
    data = path.read_bytes()
    n = len(data) // 188
    kept = [data[i * 188 : (i + 1) * 188] for i in range(n // 10, n) if not n // 2 <= i < n // 2 + 3]
    path.write_bytes(b"".join(kept))


def broken_sound(path: Path) -> None:
    """Good pictures beside a sound track that is noise."""
    with av.open(str(path), "w") as out:
        pictures = moving_square(40)
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
        sound = out.add_stream("aac", rate=44100, layout="mono")
        for shown in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        out.mux(stream.encode(None))
        for i in range(40):
            packet = av.Packet(np.random.default_rng(i).bytes(200))
            packet.stream, packet.pts, packet.dts = sound, i * 1024, i * 1024
            packet.time_base = Fraction(1, 44100)
            out.mux(packet)


# Odd, but good ------------------------------------------------------------------------------------------------


def one_frame(path: Path) -> None:
    """One picture."""
    film(path, 1)


def tiny(path: Path) -> None:
    """1 x 1 pixel, as beacons on web pages are."""
    write_video(path, np.full((10, 1, 1, 3), 90, np.uint8), codec="ffv1", pixel="bgr0", options={"g": "5"})


def odd_size(path: Path) -> None:
    """3 x 5 pixels: no even chroma."""
    write_video(path, np.full((10, 5, 3, 3), 90, np.uint8), codec="ffv1", pixel="yuv444p", options={"g": "5"})


def very_wide(path: Path) -> None:
    """16,384 x 2 pixels."""
    write_video(path, np.full((3, 2, 16_384, 3), 90, np.uint8), codec="ffv1", options={"g": "5"})


def changing_size(path: Path) -> None:
    """A stream that goes from 160 x 96 to 320 x 192 in its middle."""
    parts = [film(path.with_name(path.name + f".{i}.ts"), 25) for i in range(1)]
    larger = moving_square(25, width=320, height=192)
    parts.append(write_video(path.with_name(path.name + ".1.ts"), larger, options=GOPS))
    _join(parts, path)


def changing_pixel_format(path: Path) -> None:
    """A stream that goes from 4:2:0 to 4:4:4 in its middle."""
    parts = [film(path.with_name(path.name + f".{i}.ts"), 25, pixel=pixel) for i, pixel in enumerate(_PIXELS)]
    _join(parts, path)


_PIXELS = ("yuv420p", "yuv444p")


def _join(parts: list[Path], path: Path) -> None:
    """Remux transport streams one behind the other; each keyframe carries its own parameter sets."""
    with av.open(str(path), "w", format="mpegts") as out:
        stream = None
        for i, part in enumerate(parts):
            with av.open(str(part)) as made:
                stream = stream or out.add_stream_from_template(made.streams.video[0])
                for packet in made.demux(video=0):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        packet.stream = stream
                        packet.pts += i * 90_000
                        packet.dts += i * 90_000
                        out.mux(packet)
            part.unlink()


def negative_times(path: Path) -> None:
    """Timestamps that begin at minus two seconds."""
    mux(path, [-2000 + 40 * i for i in range(40)], form="nut")


def backward_times(path: Path) -> None:
    """Two recordings put one behind the other byte by byte: the clock starts again in the middle."""
    film(path, 40)
    path.write_bytes(path.read_bytes() * 2)


def equal_times(path: Path) -> None:
    """Every frame at time 0."""
    mux(path, [0] * 40, form="flv")


def huge_times(path: Path) -> None:
    """Timestamps of a clock that counts from 1970."""
    mux(path, [1_700_000_000_000 + 40 * i for i in range(40)], form="nut")


def gap_of_an_hour(path: Path) -> None:
    """A surveillance camera that slept for an hour."""
    mux(path, [40 * i + 3_600_000 * (i >= 20) for i in range(40)], form="matroska")


def extreme_vfr(path: Path) -> None:
    """Frame intervals from 1 ms to 4 s."""
    mux(path, list(np.cumsum([(1, 40, 4000, 17)[i % 4] for i in range(40)])), form="matroska")


def no_times(path: Path) -> None:
    """A bare H.264 stream, which has no timestamps."""
    film(path.with_name(path.name + ".h264")).rename(path)


def avi_b_frames(path: Path) -> None:
    """H.264 with B-frames in AVI, which cannot say when they are shown."""
    film(path, options={**GOPS, "bf": "3"})


def wrong_extension(path: Path) -> None:
    """A Matroska file named .mp4."""
    film(path.with_name(path.name + ".mkv")).rename(path)


def gif(path: Path) -> None:
    """An animated GIF."""
    write_video(path, moving_square(20), codec="gif", fps=10, pixel="rgb8")


def interlaced(path: Path) -> None:
    """Interlaced MPEG-2, as from a tape."""
    film(path, codec="mpeg2video", options={"flags": "+ildct+ilme", "top": "1", "g": "12"})


def ten_bit_444(path: Path) -> None:
    """10 bits, 4:4:4."""
    film(path, codec="libx265", pixel="yuv444p10le", options={"x265-params": "log-level=none"})


def alpha(path: Path) -> None:
    """A picture with transparency (QuickTime RLE)."""
    write_video(path, moving_square(20), codec="qtrle", pixel="argb", options={"g": "10"})


def motion_jpeg(path: Path) -> None:
    """Motion JPEG, as from an old camera."""
    film(path, codec="mjpeg", pixel="yuvj420p", options={"q": "3"})


@dataclass(frozen=True)
class Bad:
    """A file of the corpus.

    Attributes:
        make: writes it.
        suffix: of its name.
        status: what must become of it: ok, partial or failed; None if no row may appear.
        error: what its error must hold, or None if there must be none.
        n_frames: pictures that must be found, if literal.
    """

    make: Callable[[Path], None]
    suffix: str
    status: str | None
    error: str | None = None
    n_frames: int | None = None

    @property
    def name(self) -> str:
        return f"{self.make.__name__}{self.suffix}"


UNREADABLE = "not a readable video"
NO_LIST = "Playlists, still pictures and lists of files are not opened"
CORPUS = [
    Bad(zero_bytes, ".mp4", "failed", "the file is empty (0 bytes)"),
    Bad(text, ".mp4", "failed", UNREADABLE),
    Bad(noise, ".mp4", "failed", UNREADABLE),
    Bad(zeros, ".mp4", "failed", UNREADABLE),
    Bad(picture, ".mp4", "failed", NO_LIST),
    Bad(audio_only, ".mp4", "failed", "no video stream (the file holds audio streams only)"),
    Bad(cover_art, ".mp4", "failed", "no video stream"),
    Bad(folder, ".mp4", None),
    Bad(pipe, ".mp4", "failed", "not a regular file"),
    Bad(device, ".mp4", "failed", "not a regular file"),
    Bad(dangling_link, ".mp4", "failed", "No such file or directory"),
    Bad(link_loop, ".mp4", "failed", "Too many levels of symbolic links"),
    Bad(ffconcat, ".mp4", "failed", NO_LIST),
    Bad(hls, ".mp4", "failed", UNREADABLE),
    Bad(dash, ".mp4", "failed", UNREADABLE),
    Bad(sdp, ".mp4", "failed", UNREADABLE),
    Bad(bomb, ".mp4", "failed", NO_LIST),
    Bad(truncated_without_index, ".mp4", "failed", UNREADABLE),
    Bad(truncated_in_the_index, ".mp4", "failed", "container promises"),
    Bad(header_only, ".mp4", "failed", UNREADABLE),
    Bad(index_only, ".mp4", "failed", "container promises"),
    Bad(truncated_behind_the_index, ".mp4", "partial", "container promises", 20),
    Bad(truncated_mkv, ".mkv", "partial", "container promises", 20),
    Bad(damaged_middle, ".mp4", "partial", "decoding errors"),
    Bad(damaged_hevc, ".mp4", "partial", "decoding errors"),
    Bad(damaged_vp9, ".mp4", "partial", "decoding errors"),
    Bad(damaged_av1, ".mp4", "partial", "decoding errors"),
    Bad(all_media_is_noise, ".mp4", "failed", "decoding errors"),
    Bad(transport_stream_with_holes, ".ts", "partial"),
    Bad(broken_sound, ".mp4", "ok", None, 40),
    Bad(one_frame, ".mp4", "ok", None, 1),
    Bad(tiny, ".mkv", "ok", None, 10),
    Bad(odd_size, ".mkv", "ok", None, 10),
    Bad(very_wide, ".mkv", "ok", None, 3),
    Bad(changing_size, ".ts", "ok", None, 50),
    Bad(changing_pixel_format, ".ts", "ok", None, 50),
    Bad(negative_times, ".mp4", "ok", None, 40),
    Bad(backward_times, ".ts", "partial", "repeated or backward timestamp"),
    Bad(equal_times, ".flv", "partial", "repeated or backward timestamp"),
    Bad(huge_times, ".mp4", "ok", None, 40),
    Bad(gap_of_an_hour, ".mkv", "ok", None, 40),
    Bad(extreme_vfr, ".mkv", "ok", None, 40),
    Bad(no_times, ".mp4", "ok", None, 40),
    Bad(avi_b_frames, ".avi", "ok", None, 40),
    Bad(wrong_extension, ".mp4", "ok", None, 40),
    Bad(gif, ".gif", "ok", None, 20),
    Bad(interlaced, ".mpg", "ok", None, 40),
    Bad(ten_bit_444, ".mp4", "ok", None, 40),
    Bad(alpha, ".mov", "ok", None, 20),
    Bad(motion_jpeg, ".avi", "ok", None, 40),
]
