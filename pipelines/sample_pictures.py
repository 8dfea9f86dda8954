"""What a user gives to `reelmill sample`: pictures and videos, read at the frame rate and size of the result.

for parts in video_pictures("film.mp4", fps=8.0, size=(48, 80)):     # (T, 48, 80, 3) uint8 RGB, T at most 16
displayed_size("film.mp4")                                           # (width, height) as shown
read_picture("first.png", (48, 80))                                  # (1, 48, 80, 3)
count_pictures("film.mp4", fps=8.0)                                  # 81, without looking at them

Pictures are scaled to cover the size, and what stands out at the sides is cut off evenly. Where a picture is
transparent, it is white.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, pairwise

import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps, UnidentifiedImageError

from curate.errors import BadInput
from curate.frames import Frame, Video

PART = 16  # pictures of a video that are handed on at a time


def read_picture(path: str, size: tuple[int, int]) -> np.ndarray:
    """A picture file as (1, height, width, 3) uint8 RGB, for `size` (height, width). Raises BadInput."""
    with _open(path) as opened:
        return _fitted(_opaque(ImageOps.exif_transpose(opened)), size)[None]


def video_pictures(path: str, fps: float, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """All pictures of a video, those nearest to 0, 1/fps, 2/fps, ... s by PTS: parts (T, height, width, 3).

    Raises BadInput if it cannot be decoded or has no picture.
    """
    return _in_parts(_each(path, fps, size))


def count_pictures(path: str, fps: float) -> int:
    """How many pictures `video_pictures` gives. Raises BadInput likewise."""
    with _reading(path), Video(path) as video:
        return sum(times for _, times in _chosen(video, fps))


def first_pictures(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Up to `count` pictures from the beginning of parts (T, height, width, 3)."""
    return np.stack(list(islice((picture for part in parts for picture in part), count)))


def displayed_size(path: str, *, is_video: bool) -> tuple[int, int]:
    """(width, height) in pixels of a picture or a video as shown. Raises BadInput if it cannot be read."""
    if not is_video:
        with _open(path) as opened:
            return ImageOps.exif_transpose(opened).size
    with _reading(path):
        with Video(path) as video:
            first = next(video.frames(), None)
        if first is None:
            raise BadInput("it has no picture that can be decoded")
        return first.displayed_size


def _each(path: str, fps: float, size: tuple[int, int]) -> Iterator[np.ndarray]:
    with _reading(path), Video(path) as video:
        for frame, times in _chosen(video, fps):
            picture = _of_frame(frame, size)
            for _ in range(times):
                yield picture
        if video.damage:
            print(f"warning: {path}: {video.damage}", file=sys.stderr)


def _chosen(video: Video, fps: float) -> Iterator[tuple[Frame, int]]:
    """The frames that are shown at a rate, and how many times. Raises BadInput if there is none."""
    found, gap_s = 0, 1 / fps
    for frame, following in pairwise(chain(video.frames(), [None])):
        assert frame is not None
        # A frame is the nearest one until half way to the next; the last one as long as it would be before another.
        gap_s = following.time_s - frame.time_s if following else min(gap_s, 1 / fps)
        until_s = frame.time_s + gap_s / 2
        wanted = math.floor(until_s * fps + 1e-6) + 1
        if wanted > found:
            yield frame, wanted - found
            found = wanted
    if not found:
        raise BadInput("it has no picture that can be decoded")


def _of_frame(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    return _fitted(Image.fromarray(frame.picture()), size)


def _fitted(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.asarray(ImageOps.fit(picture, (width, height)))


def _opaque(picture: Image.Image) -> Image.Image:
    """As RGB, on white: what a transparent pixel holds was never meant to be seen."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _in_parts(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while part := list(islice(pictures, PART)):
        yield np.stack(part)


def _open(path: str) -> Image.Image:
    try:
        opened = Image.open(path)
        opened.load()
        return opened
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInput(f"cannot read the picture {path}: {error}. Give a PNG, JPEG or WebP file.") from error


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Errors while reading a video say which one."""
    try:
        yield
    except (BadInput, FFmpegError, OSError) as error:
        raise BadInput(
            f"cannot read the video {path}: {str(error).rstrip('.')}. Give a video file such as mp4."
        ) from error
