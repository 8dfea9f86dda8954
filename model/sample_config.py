"""How clips are drawn from the model, as plain data that needs no torch.

config = SampleConfig(solver="unipc", steps=20, guidance=5.0, guidance_interval=(0.1, 0.9))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model.errors import BadInput


@dataclass(frozen=True)
class SampleConfig:
    """How a clip is drawn from the model.

    Attributes:
        solver: how noise levels are stepped down (model/solvers.py). euler calls the model once per step, heun
            twice but for the last step, unipc once, and remembers the step before.
        steps: steps from noise to clip.
        guidance: strength of the text (classifier-free guidance); 1 switches it off and saves a pass.
        image_guidance: strength of given pictures; 1 leaves them to the model and saves a pass.
        guidance_interval: least and most noise level at which the two apply; elsewhere both are 1.
        rescale: from 0 to 1, how much of the contrast that guidance adds is taken back.
        token_budget: most tokens in one forward pass.
        precision: bf16 computes the model in half precision, which GPUs have the fastest attention for; the steps
            between its calls are in full precision all the same.
    """

    solver: Literal["euler", "heun", "unipc"] = "euler"
    steps: int = 30
    guidance: float = 4.0
    image_guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    token_budget: int = 32_768
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        for name in ("steps", "token_budget"):
            if getattr(self, name) < 1:
                raise BadInput(f"sampler.{name} is {getattr(self, name)}, must be 1 or more.")
        for name in ("guidance", "image_guidance"):
            if not math.isfinite(getattr(self, name)):
                raise BadInput(f"sampler.{name} is {getattr(self, name)}, must be a number such as 4.")
        if not 0 <= self.rescale <= 1:
            raise BadInput(f"sampler.rescale is {self.rescale}, must be from 0 to 1.")
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise BadInput(
                f"sampler.guidance_interval is {list(interval)}, must be two noise levels from 0 to 1, the smaller "
                "one first."
            )
