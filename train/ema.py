"""The average of the weights over the last steps, which samples are drawn from.

ema = Ema(model, 0.9999)
ema.update(model)                                        # after each step
with ema.shown(model):                                   # the model has the averaged weights
    ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.shards import forget_gathered, own_rows


class Ema:
    """Exponential moving average in float32: average ← decay·average + (1 - decay)·weights after each step.

    The decay ramps up as (1 + n) / (10 + n) after n updates, so that a short run forgets its first weights. Each
    process averages the rows of the weights that it holds.

    Attributes:
        average: by name, the rows held here.
        updates: how many there were.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average: dict[str, Tensor] = {
            name: own_rows(p)[0].float().clone() for name, p in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = [own_rows(p)[0].float() for p in model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)

    @contextmanager
    @torch.no_grad()
    def shown(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again behind."""
        held = {name: own_rows(p)[0] for name, p in model.named_parameters()}
        own = {name: x.clone() for name, x in held.items()}
        try:
            for name, x in held.items():
                x.copy_(self.average[name])
            yield
        finally:
            forget_gathered(model)
            for name, x in held.items():
                x.copy_(own[name])
