"""The pictures and videos that a command names, as its stories read them; and blanks in their place.

    read = Files(form, counts={})
    read.count("film.mp4"), read.video("film.mp4"), read.picture("first.png")

    Blanks(form, counts)                             # the same numbers of pictures, of no pixels

A story told with blanks tells what it would draw, without a pixel in memory: see pipelines/sample_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.sample_format import Format
from pipelines.sample_pictures import PART, count_pictures, read_picture, video_pictures


class Files:
    """Files at the frame rate and the size of a format. All methods raise BadInput for what cannot be read."""

    def __init__(self, form: Format, counts: dict[tuple[str, float], int]) -> None:
        """`counts` keeps how many pictures a video has at a rate, for all who share it."""
        self.form, self._counts = form, counts

    def count(self, path: str) -> int:
        """How many pictures a video has."""
        key = path, self.form.fps
        if key not in self._counts:
            self._counts[key] = count_pictures(*key)
        return self._counts[key]

    def video(self, path: str) -> Iterator[np.ndarray]:
        """All pictures of a video, (T, H, W, 3) uint8 RGB, a few at a time."""
        return video_pictures(path, self.form.fps, self.form.size)

    def picture(self, path: str) -> np.ndarray:
        """A picture, (1, H, W, 3) uint8 RGB."""
        return read_picture(path, self.form.size)


class Blanks(Files):
    """Pictures of no pixels, as many as there are."""

    def video(self, path: str) -> Iterator[np.ndarray]:
        count = self.count(path)
        return (blank(min(PART, count - first)) for first in range(0, count, PART))

    def picture(self, path: str) -> np.ndarray:
        return blank(1)


def blank(frames: int) -> np.ndarray:
    """(frames, 0, 0, 3) uint8."""
    return np.empty((frames, 0, 0, 3), np.uint8)
