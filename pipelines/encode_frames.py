"""Which frames of a clip the VAE sees, and how large: the rate, their number, and a size of few buckets.

fit(256, 144, FrameConfig())                  # (80, 48): the nearest shape that the area budget allows
read_clip(mp4, Shape(17, 48, 80), fps=8.0)    # (17, 48, 80, 3) uint8
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING

from curate.errors import BadInput
from pipelines.clip_frames import nearest_frames

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class FrameConfig:
    """Which frames of a clip are encoded and how large, and which of them once more by themselves.

    Attributes:
        pixels: most pixels of a frame; its sides keep the clip's aspect as nearly as buckets allow.
        side: both sides are multiples of this (the VAE's spatial compression times the DiT's patch).
        fps: frames per second; a slower clip keeps its own rate.
        max_frames: most frames, taken from the start of the clip; the VAE takes 4k+1 of them, some take 8k+1.
        keyframes: single pictures encoded by themselves, spread over the clip after its first frame, the last
            picture among them; 0 for none. VAEs that are not causal encode the first picture so as well.
        suffix: latent frames at the end that are encoded as a clip of their own; 0 for none.
    """

    pixels: int = 64 * 64
    side: int = 16
    fps: float = 8.0
    max_frames: int = 17
    keyframes: int = 2
    suffix: int = 2

    def check(self) -> None:
        """Raises BadInput if a value makes no sense for any VAE."""
        if not 0 < self.fps < math.inf:
            raise BadInput(f"frames.fps {self.fps} must be a rate above 0, in frames per second.")
        if min(self.side, self.max_frames) < 1 or self.pixels < self.side**2:
            raise BadInput(
                f"frames.side {self.side} and frames.max_frames {self.max_frames} must be at least 1, and "
                f"frames.pixels {self.pixels} at least the square of frames.side."
            )
        if min(self.keyframes, self.suffix) < 0:
            raise BadInput("frames.keyframes and frames.suffix must not be negative; 0 leaves them out.")


@dataclass(frozen=True)
class Shape:
    """Frames, height and width in pixels."""

    frames: int
    height: int
    width: int

    @property
    def size_bytes(self) -> int:
        return 3 * self.frames * self.height * self.width


@lru_cache(maxsize=4096)
def fit(width: int, height: int, config: FrameConfig) -> tuple[int, int]:
    """(width, height) to encode a picture at: multiples of `side` within the budget, never more pixels.

    Of all such sizes the one that crops least; a fifth of the doubling lost in area weighs as much as that
    change of aspect, so that an exact but tiny fit loses to a good large one.
    """
    side = config.side
    budget = max(1, min(config.pixels, width * height) // side**2)  # in squares of side x side
    aspect = math.log(width / height)

    def loss(size: tuple[int, int]) -> tuple[float, int]:
        w, h = size
        return abs(math.log(w / h) - aspect) + 0.2 * math.log2(budget / (w * h)), w

    sizes = [(w, h) for w in range(1, budget + 1) for h in range(1, budget // w + 1)]
    w, h = min(sizes, key=loss)
    return w * side, h * side


def timing(n_frames: int, fps: float, config: FrameConfig, temporal: int) -> tuple[int, float]:
    """(frames, frames per second) to take of a clip: temporal·k+1 frames, the clip's own rate if slower.

    `temporal` is the pictures that the VAE takes at a time after the first, so that none must be repeated.
    """
    rate = min(config.fps, fps)
    there = math.floor((n_frames - 1) / fps * rate + 1e-6) + 1  # frames between the first and the last
    most = max(1, min(there, config.max_frames))
    return (most - 1) // temporal * temporal + 1, rate


def read_clip(file: IO[bytes], shape: Shape, fps: float) -> np.ndarray:
    """The frames nearest to 0, 1/fps, 2/fps, ... s by PTS: (T, H, W, 3) uint8 RGB, scaled and centre-cropped.

    Raises BadInput or FFmpegError when the file cannot be decoded, ValueError when it ends too early or is damaged.
    """
    import numpy as np

    # Filled in place: of a long clip there should be one copy.
    pictures = np.empty((shape.frames, shape.height, shape.width, 3), np.uint8)
    last = None
    for i, frame in enumerate(nearest_frames(file, shape.frames, fps)):
        pictures[i] = pictures[i - 1] if frame is last else _covering(frame, shape.width, shape.height)
        last = frame
    return pictures


def _covering(frame, width: int, height: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    shown_w, shown_h = frame.displayed_size
    scale = max(width / shown_w, height / shown_h)
    w, h = max(width, round(shown_w * scale)), max(height, round(shown_h * scale))
    left, top = (w - width) // 2, (h - height) // 2
    return frame.picture(height=h, width=w)[top : top + height, left : left + width]
