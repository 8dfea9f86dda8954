"""Writes sampled videos picture by picture: mp4, gif, png.

with Mp4File(path, (48, 80), fps=8.0) as file:      # GifFile and PngFile alike
    file.write(pictures)                            # (T, H, W, 3) uint8 RGB, any number of times

A file appears under its name when it is whole; the pictures of a long video are never in memory together.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import numpy as np


BT709 = 1  # matrix, primaries and transfer, ITU-T H.273
#: GIF counts in hundredths of a second, and what is to be shown for less than two of them is shown for ten.
MOST_GIF_FPS = 50


class VideoFile(ABC):
    """A file under a temporary name until the `with` ends without an error."""

    suffix: ClassVar[str]

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """`size` is (height, width) in pixels."""
        self.path, self.temporary = path, path.with_name(f".{path.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
            os.replace(self.temporary, self.path)
        else:
            self.give_up()
            self.temporary.unlink(missing_ok=True)

    @abstractmethod
    def write(self, pictures: np.ndarray) -> None:
        """Add pictures (T, H, W, 3) uint8 RGB."""

    def finish(self) -> None:  # noqa: B027  # not every format holds something back
        """Write what is still held back."""

    def give_up(self) -> None:  # noqa: B027
        """Let go of the unfinished file."""


class Mp4File(VideoFile):
    """H.264 in yuv420p, which every player shows; odd sides lose one row or column.

    Colours are BT.709 in video range, and the file says so: players would guess it from the size.
    """

    suffix = ".mp4"

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        import av
        from av.video.reformatter import ColorRange

        super().__init__(path, size, fps)
        self.height, self.width = (side // 2 * 2 for side in size)
        self.out = av.open(str(self.temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self.stream: Any = self.out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self.stream.width, self.stream.height, self.stream.pix_fmt = self.width, self.height, "yuv420p"
        codec = self.stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = ColorRange.MPEG
        # Or the same video would now and then have other bytes.
        codec.options = {"crf": "14", "x264-params": "cpu-independent=1"}
        codec.thread_count = 1

    def write(self, pictures: np.ndarray) -> None:
        """Add pictures (T, H, W, 3) uint8 RGB."""
        import av
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        for picture in pictures[:, : self.height, : self.width]:
            frame = av.VideoFrame.from_ndarray(picture.copy(), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA,  # a pixel of chroma is the mean of its four
            )
            frame.color_primaries = frame.color_trc = BT709
            self.out.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.out.mux(self.stream.encode(None))
        self.out.close()

    def give_up(self) -> None:
        self.out.close()


class GifFile(VideoFile):
    """A GIF that plays for ever, each picture with the 256 colours that suit it best.

    Of more than MOST_GIF_FPS pictures per second every second, third, ... one is taken.
    """

    suffix = ".gif"

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        import av
        from av.filter import Graph

        super().__init__(path, size, fps)
        self.every = math.ceil(fps / MOST_GIF_FPS)
        rate = Fraction(fps).limit_denominator(1001) / self.every
        self.step, self.number = 1 / rate, 0
        self.out = av.open(str(self.temporary), "w", format="gif")
        self.stream: Any = self.out.add_stream("gif", rate=rate)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = "pal8"
        self.graph = Graph()
        rgb = av.VideoFormat("rgb24", size[1], size[0])
        source = self.graph.add_buffer(width=size[1], height=size[0], format=rgb, time_base=self.step)
        split, sink = self.graph.add("split"), self.graph.add("buffersink")
        colours = self.graph.add("palettegen", "stats_mode=single")
        painted = self.graph.add("paletteuse", "new=1")
        source.link_to(split)
        split.link_to(painted, 0, 0)
        split.link_to(colours, 1, 0)
        colours.link_to(painted, 0, 1)
        painted.link_to(sink)
        self.graph.configure()

    def write(self, pictures: np.ndarray) -> None:
        """Add pictures (T, H, W, 3) uint8 RGB."""
        import av

        for number, picture in enumerate(pictures, self.number):
            if number % self.every:
                continue
            frame = av.VideoFrame.from_ndarray(picture.copy(), format="rgb24")
            frame.pts, frame.time_base = number // self.every, self.step
            self.graph.push(frame)
            self._pass_on()
        self.number += len(pictures)

    def _pass_on(self) -> None:
        from av.error import BlockingIOError, EOFError

        while True:
            try:
                painted = self.graph.pull()
            except (BlockingIOError, EOFError):
                return
            self.out.mux(self.stream.encode(painted))

    def finish(self) -> None:
        self.graph.push(None)
        self._pass_on()
        self.out.mux(self.stream.encode(None))
        self.out.close()

    def give_up(self) -> None:
        self.out.close()


class PngFile(VideoFile):
    """The first picture, as it is."""

    suffix = ".png"

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        super().__init__(path, size, fps)
        self.is_empty = True

    def write(self, pictures: np.ndarray) -> None:
        """Take the first of pictures (T, H, W, 3) uint8 RGB; later ones are left out."""
        from PIL import Image

        if self.is_empty and len(pictures):
            Image.fromarray(pictures[0]).save(self.temporary, format="PNG")
            self.is_empty = False


def write_mp4(path: Path, pictures: np.ndarray, fps: float) -> None:
    """Pictures (T, H, W, 3) uint8 RGB as one mp4."""
    with Mp4File(path, (pictures.shape[1], pictures.shape[2]), fps) as file:
        file.write(pictures)
