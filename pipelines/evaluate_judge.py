"""What is seen in a video of the procedural world, by judges that know nothing of the prompt.

    judge = Judge()
    seen = judge(videos, fps=8)                 # one Seen for each (T, H, W, 3) uint8

captioner     the embedded CoCa writes a short caption, rules read the attributes from it: the closed loop
pixels        pixel_oracle.look: knows how the renderer draws, is no model and has no part in any training
flow          the direction of what moves otherwise than the camera, by optical flow (evaluate_flow.py)
flicker       evaluate_flicker.py
features      of the visual tower of the embedded CoCa, four moments of the clip; for a Fréchet distance
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

FEATURES_AT_ONCE = 64
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
        features: (D,) float32.
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
        """(N, D) float32, as the tower gives them: not scaled to unit length."""
        found = []
        for first in range(0, len(videos), FEATURES_AT_ONCE):
            pictures = coca.prepare(list(videos[first : first + FEATURES_AT_ONCE]), self.tower)
            pooled, _ = self.tower.visual(pictures.to(self.device))
            found.append(pooled.float().cpu().numpy())
        return np.concatenate(found)
