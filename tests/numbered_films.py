"""Films whose pictures tell their number, and the spans and clips cut from them, for the tests of cutting."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from curate.cut import Span
from curate.frames import Video

FPS = 25
WIDTH, HEIGHT, BLOCK, BITS = 128, 96, 32, 12


def numbered(n_frames: int) -> np.ndarray:
    """(T, 96, 128, 3) uint8: frame i shows i in binary as twelve blocks, dark or light."""
    bits = np.array([[i >> bit & 1 for bit in range(BITS)] for i in range(n_frames)], np.uint8)
    luma = (50 + 150 * bits).reshape(n_frames, HEIGHT // BLOCK, WIDTH // BLOCK)
    return np.repeat(luma.repeat(BLOCK, 1).repeat(BLOCK, 2)[..., None], 3, 3).astype(np.uint8)


def number_of(picture: np.ndarray) -> int:
    """The number that a picture of any size shows."""
    rows = np.array_split(picture.mean(2), HEIGHT // BLOCK)
    blocks = [block.mean() for row in rows for block in np.array_split(row, WIDTH // BLOCK, axis=1)]
    return sum(1 << bit for bit, luma in enumerate(blocks) if luma > 125)


def film(
    path: Path,
    n_frames: int = 120,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pts: list[int] | None = None,
    rotation: int = 0,
    pictures: np.ndarray | None = None,
    first_pts: int = 0,
) -> Path:
    """Encode a numbered film; `pts` and `first_pts` in frames of 25 fps, negative ones behind an edit list."""
    shown = numbered(n_frames) if pictures is None else pictures
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = shown.shape[1], shown.shape[2], "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, FPS)
        stream.options = options or {"crf": "18", "preset": "veryfast", "g": "30", "sc_threshold": "0"}
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if pts is None else pts[i]
            frame.time_base = Fraction(1, FPS)
            for packet in stream.encode(frame):
                mux(out, packet, first_pts)
        for packet in stream.encode(None):
            mux(out, packet, first_pts)
    return path


def mux(out: av.container.OutputContainer, packet: av.Packet, first_pts: int) -> None:
    shift = round(first_pts / FPS / packet.time_base)
    packet.pts += shift
    packet.dts += shift
    out.mux(packet)


def spans_of(path: Path, edges: list[tuple[int, int]]) -> list[Span]:
    """Spans of frames [first, end) of a file, whole picture, timed as the analysis times them."""
    with Video(str(path)) as video:
        frames = list(video.frames())
    times = [frame.time_s for frame in frames] + [frames[-1].time_s + (frames[-1].duration_s or 0.04)]
    width, height = frames[0].displayed_size
    return [
        Span(f"{first:012x}{end:012x}", times[first], times[end], end - first, 0, 0, width, height)
        for first, end in edges
    ]


def shown_in(path: Path) -> tuple[list[int], list[float]]:
    """Numbers and times of the pictures in a clip."""
    with Video(str(path)) as video:
        frames = [(number_of(frame.picture()), frame.time_s) for frame in video.frames()]
    return [number for number, _ in frames], [time_s for _, time_s in frames]
