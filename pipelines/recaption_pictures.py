"""The pictures that captioners see: at moments that were planned, or at the keyframes of the file.

    frames, found = read_pictures("film.mp4", [0.5, 1.5], 144)          # (2, 144, W, 3) uint8, PTS in seconds
    frames = crop_to(frames, [0, 12, 192, 120], 144 / 720)

`read_pictures` runs in a process that can be killed (`curate.isolate`): decoders hang on some files.
"""

from __future__ import annotations

import numpy as np

from curate.cut_frames import keyframe_times
from curate.frames import Video, read_frames
from recaption.moments import FrameChoice

Span = tuple[float, float]


def read_pictures(
    path: str, times_s: list[float], height: int, keyframes: tuple[Span, Span | None, int] | None = None
) -> tuple[np.ndarray, list[float]]:
    """Frames (T, H, W, 3) uint8 RGB shown at `times_s`, and their PTS.

    `keyframes` (span, span of the window before, most): at keyframes instead, as `keyframe_moments` says.
    """
    if keyframes:
        times_s = keyframe_moments(path, times_s, *keyframes)
    pictures, found = read_frames(path, times_s, height=height)
    return np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), np.uint8), found


def keyframe_moments(
    path: str, times_s: list[float], span: Span, before: Span | None, most: int
) -> list[float]:
    """Seconds of at most `most` keyframes in `span`; where it has none, `times_s`.

    With `before`, the last moment that was shown of that window comes first, as it does in `times_s`.
    """
    with Video(path) as video:
        next(video.frames(), None)  # times are counted from the first frame shown
        keys = keyframe_times(path, video)
    choice = FrameChoice(most=most)
    own = choice.among(keys, *span) or times_s[1 if before else 0 :]
    if before is None:
        return own
    return [(choice.among(keys, *before) or times_s[:1])[-1], *own]


def crop_to(frames: np.ndarray, crop: list[int] | None, scale: float) -> np.ndarray:
    """The part of frames (T, H, W, 3) that `crop` (x, y, w, h at full size) covers after scaling by `scale`."""
    if crop is None:
        return frames
    x, y, w, h = (round(side * scale) for side in crop)
    return frames[:, y : y + max(1, h), x : x + max(1, w)]
