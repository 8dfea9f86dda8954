"""Frames of a clip at a steady rate, whatever its own is.

for frame in nearest_frames(io.BytesIO(mp4), 17, fps=8.0, start_s=1.5): frame.picture(height=144)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice, pairwise
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from curate.frames import Frame


def nearest_frames(file: IO[bytes], count: int, fps: float, start_s: float = 0.0) -> Iterator[Frame]:
    """`count` frames, those nearest to start_s, start_s + 1/fps, ... by PTS; some may come twice.

    Raises BadInput or FFmpegError when the file cannot be decoded, ValueError when it ends too early, or pictures
    among them are lost to damage: others would stand in for them, frozen.
    """
    from curate.frames import Video

    found = 0
    with Video(file) as video:  # type: ignore[arg-type]  # PyAV opens file objects as well
        frames = video.frames_around(start_s) if start_s > 0 else video.frames()
        first = list(islice(frames, 1))
        before = video.faults.error_count if start_s > 0 else 0  # by a seek
        for frame, following in pairwise(chain(first, frames, [None])):
            assert frame is not None
            if following is not None and following.time_s <= start_s:
                before = video.faults.error_count  # what was lost before the start does not matter
                continue
            if video.faults.error_count > before:
                raise ValueError(f"pictures were lost: {video.damage}")
            # A frame is the nearest one until half way to the next.
            until_s = (frame.time_s + following.time_s) / 2 if following else frame.time_s + 0.5 / fps
            wanted = min(count, math.floor((until_s - start_s) * fps + 1e-6) + 1)
            while found < wanted:
                found += 1
                yield frame
            if found == count:
                return
        why = f"pictures were lost: {video.damage}" if video.damage else "the video ends too early"
    raise ValueError(f"{found} of {count} frames were found: {why}")
