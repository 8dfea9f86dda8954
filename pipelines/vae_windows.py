"""Which part of a clip the VAE is shown: from when, at which rate, how large, and which square of it.

window = draw_window(span, CropConfig(), np.random.default_rng(7), frames=17)
middle_window(span, CropConfig(), frames=17)           # the whole picture, for validation
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from model.errors import BadInput

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CropConfig:
    """Which parts of clips the VAE is shown.

    Attributes:
        crop: side of the squares that are cut out, in pixels; a multiple of the VAE's spatial compression.
        frames: pictures per crop, temporal·k+1; shorter clips serve as pictures only.
        image_share: share of steps that show single pictures, four times as many as there are clips in other steps.
        fps: lowest and highest rate at which clips are read, drawn evenly by octaves; never above a clip's own.
        largest: clips are first shrunk so that their shorter side lies between `crop` and so many pixels, drawn
            evenly by octaves; never enlarged but to fill a crop.
        held_out: share of the sources that is never learnt from and serves the validation; at least one source, or
            none where it is 0.
    """

    crop: int = 128
    frames: int = 17
    image_share: float = 0.1
    fps: tuple[float, float] = (8.0, 30.0)
    largest: int = 512
    held_out: float = 0.02

    def __post_init__(self) -> None:
        low, high = self.fps
        shares = min(self.image_share, self.held_out), max(self.image_share, self.held_out)
        if not (
            0 < low <= high and shares[0] >= 0 and shares[1] <= 1 and self.crop >= 1 and self.frames >= 1
        ):
            raise BadInput(
                "crops: fps must be two rates above 0, the lower first; image_share and held_out from 0 to 1; "
                "crop and frames 1 or more."
            )


class Span(NamedTuple):
    """A clip in the shards: where its KEY.mp4 lies, and what it holds."""

    clip_id: str
    shard: str
    offset: int
    size: int
    width: int
    height: int
    fps: float
    n_frames: int


class Window(NamedTuple):
    """A part of a clip: from when, at which rate, how large before cropping, and where (in pixels of that size)."""

    start_s: float
    fps: float
    frames: int
    width: int
    height: int
    x: int
    y: int
    crop: tuple[int, int]  # width, height


def frames_at(span: Span, fps: float) -> int:
    """Pictures that a clip has at a rate, which is at most its own."""
    return math.floor((span.n_frames - 1) / span.fps * min(fps, span.fps) + 1e-6) + 1


def draw_window(span: Span, config: CropConfig, rng: np.random.Generator, frames: int) -> Window:
    """A random part of a clip that is long enough for `frames` at the lowest rate of the configuration."""
    duration_s = (span.n_frames - 1) / span.fps
    # The rate is at least what fits the frames into the clip.
    slowest = max(min(config.fps[0], span.fps), (frames - 1) / duration_s if duration_s else 0.0)
    fps = max(slowest, _by_octaves(rng, slowest, min(config.fps[1], span.fps)))
    start_s = rng.uniform(0.0, max(0.0, duration_s - (frames - 1) / fps))
    shorter = min(span.width, span.height)
    side = max(config.crop, _by_octaves(rng, config.crop, min(config.largest, shorter)))
    width, height = _scaled(span, side)
    x, y = rng.integers(width - config.crop + 1), rng.integers(height - config.crop + 1)
    return Window(start_s, fps, frames, width, height, int(x), int(y), (config.crop, config.crop))


def middle_window(span: Span, config: CropConfig, frames: int) -> Window:
    """The whole picture in the middle of a clip, its shorter side half of the largest (never enlarged)."""
    fps = min(config.fps[1], span.fps)
    start_s = max(0.0, ((span.n_frames - 1) / span.fps - (frames - 1) / fps) / 2)
    side = max(16, min(config.largest // 2, span.width, span.height))
    width, height = _scaled(span, side)
    return Window(start_s, fps, frames, width, height, 0, 0, (width, height))


def _by_octaves(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, as likely in each octave; `low` if there is nothing between."""
    return float(low * (max(high, low) / low) ** rng.random())


def _scaled(span: Span, side: float) -> tuple[int, int]:
    """(width, height) of a clip whose shorter side is `side`."""
    scale = side / min(span.width, span.height)
    return max(math.ceil(side), round(span.width * scale)), max(math.ceil(side), round(span.height * scale))
