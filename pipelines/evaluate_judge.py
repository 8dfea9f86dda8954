"""What is seen in a video of the procedural world, by judges that know nothing of the prompt.

    judge = Judge()
    seen = judge(videos, fps=8)                 # one Seen for each (T, H, W, 3) uint8

captioner     the embedded CoCa writes a short caption, rules read the attributes from it: the closed loop
pixels        pixel_oracle.look: knows how the renderer draws, is no model and has no part in any training
flow          the direction of what moves otherwise than the camera, by optical flow (evaluate_flow.py)
flicker       evaluate_flicker.py
features      of the visual tower of the embedded CoCa, over all moments of the clip; for a Fréchet distance

The tower sees four moments at once, woven into one picture, so that its features tell movement. But four frames are
not the clip: of 17 frames it looked at the 3rd, 7th, 11th and 15th, and clips of which every second frame was a
negative had the distance 0 (2026-11-22). So it looks at views of four moments until each frame was in one, and the
features are the mean of those of the views and the mean absolute difference between neighbouring ones: 2 x 128 numbers.
500 clips are enough for them: their covariance has rank 255, and 500 other scenes are 5.4 away.
Fréchet distances of 200 true clips (17 frames, 96x64) from themselves, changed, with the four frames and with all of
them (other scenes: 12.4 and 12.6):

    each frozen at its middle frame                        148      151
    frames shuffled, for each clip anew                     88      176
    every second frame a negative                            0      381
    every second frame half as bright                        0      229
    every second frame swapped with the one after it       0.2      0.2
    half as fast                                             5        6
    backwards                                                5        4
    backwards, of clips in which all objects go left       185      183

Backwards alone is no other set of clips: in this world as many objects go left as right. Steps of one frame at 8 a
second it hardly sees; flicker does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipelines.demo.pixel_oracle import look
from pipelines.demo.weights import embedded
from pipelines.demo.world_oracle import parse
from pipelines.demo.written import written
from pipelines.evaluate_flicker import flicker
from pipelines.evaluate_flow import object_direction
from recaption.coca import model as coca
from recaption.coca.captioner import CocaCaptioner

VIEWS_AT_ONCE = 64
LEAST_SIDE = 32  # pixels; on smaller pictures the judges see nothing


@dataclass(frozen=True)
class Seen:
    """What was seen in one video.

    Attributes:
        caption: what the captioner wrote, or null where nothing of it can stand.
        captioner: attribute -> value that the caption names, or null.
        pixels: attribute -> value that the pixel oracle sees, or null.
        flow: direction of the object, or null.
        flicker: levels of 255, or null for fewer than three frames.
        features: (2 D,) float32, as `Judge.features` gives them.
    """

    caption: str | None
    captioner: dict[str, str | None]
    pixels: dict[str, str | None]
    flow: str | None
    flicker: float | None
    features: np.ndarray

    def told(self) -> dict[str, Any]:
        """All but the features, for JSON."""
        return {name: value for name, value in vars(self).items() if name != "features"}


class Judge:
    """All judges at once."""

    def __init__(self, device: str = "cpu") -> None:
        self.captioner = CocaCaptioner(embedded("coca"), device=device)
        self.tower, self.device = coca.load(embedded("coca"))[0].to(device), device

    def __call__(self, videos: Sequence[np.ndarray], fps: float) -> list[Seen]:
        captions = written(videos, "short", fps, self.captioner)
        return [
            Seen(
                caption=caption,
                captioner=parse(caption or ""),
                pixels=look(video, fps),
                flow=object_direction(video, fps),
                flicker=flicker(video),
                features=features,
            )
            for video, caption, features in zip(videos, captions, self.features(videos), strict=True)
        ]

    @torch.inference_mode()
    def features(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """(N, 2 D) float32, D the width of the tower: mean over the views, and mean |difference| of neighbours.

        As the tower gives them: not scaled to unit length. The differences of a video with one view are 0.
        """
        return np.stack([self._features_of(video) for video in videos])

    def _features_of(self, video: np.ndarray) -> np.ndarray:
        pictures, found = views(video), []
        for first in range(0, len(pictures), VIEWS_AT_ONCE):
            woven = coca.prepare(pictures[first : first + VIEWS_AT_ONCE], self.tower)
            pooled, _ = self.tower.visual(woven.to(self.device))
            found.append(pooled.float().cpu().numpy())
        features = np.concatenate(found)  # (views, D)
        steps = np.abs(np.diff(features, axis=0)) if len(features) > 1 else np.zeros_like(features)
        return np.concatenate([features.mean(axis=0), steps.mean(axis=0)])


def views(video: np.ndarray) -> list[np.ndarray]:
    """Four frames each, a quarter of the video apart, each view a frame later than the one before.

    Together they hold every frame of `video` (T, H, W, 3). One of fewer than four frames is its own only view.
    """
    apart = max(1, len(video) // 4)
    return [video[first : first + 3 * apart + 1 : apart] for first in range(max(1, len(video) - 3 * apart))]
