"""The average of the weights over the last steps, which samples are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average in float32: average ← decay·average + (1 - decay)·weights after each step.

    The decay ramps up as (1 + n) / (10 + n) after n updates, so that a short run forgets its first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average: dict[str, Tensor] = {
            name: p.detach().float().clone() for name, p in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = [p.detach().float() for p in model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)
