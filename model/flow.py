"""Flow matching on straight paths (Lipman et al., arXiv:2210.02747; Esser et al., arXiv:2403.03206).

    t = draw_time(FlowConfig(), n_tokens, generator)     # noise level of one clip
    x_t = mix(x_0, noise, t)                             # (1 - t)·x_0 + t·noise
    v = velocity(x_0, noise)                             # what the model predicts: noise - x_0

t = 0 is a clean clip, t = 1 pure noise. Larger clips need more noise to hide the same content, so t is shifted
by the token count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import FlowConfig


def mix(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t)·x_0 + t·noise; t broadcasts over x_0, 0 gives x_0 exactly."""
    return x0 * (1 - t) + noise * t


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """d x_t / d t = noise - x_0, the same at every t."""
    return noise - x0


def shift_for(n_tokens: int, config: FlowConfig) -> float:
    """sqrt(n_tokens / base_tokens) between 1 and max_shift: Esser et al., equation 23, with tokens for pixels."""
    return min(max((n_tokens / config.base_tokens) ** 0.5, 1.0), config.max_shift)


def shift_time(t: Tensor, shift: float) -> Tensor:
    """s·t / (1 + (s - 1)·t): moves noise levels towards 1 for s > 1; 0 and 1 stay."""
    # Rounding may carry 1 beyond itself.
    return (shift * t / (1 + (shift - 1) * t)).clamp(max=1.0)


def draw_time(config: FlowConfig, n_tokens: int, generator: torch.Generator) -> Tensor:
    """A noise level in (0, 1) for one clip: logit-normal, sometimes uniform, then shifted; a scalar tensor."""
    # All three are always drawn, so that later draws from the generator do not depend on the choice.
    choice, uniform = torch.rand(2, generator=generator)
    normal = torch.sigmoid(config.mean + config.std * torch.randn((), generator=generator))
    return shift_time(uniform if choice < config.uniform_share else normal, shift_for(n_tokens, config))


def time_grid(steps: int, n_tokens: int, config: FlowConfig) -> Tensor:
    """Noise levels of a sampler, (steps + 1,), from 1 to 0, even before the shift."""
    return shift_time(torch.linspace(1, 0, steps + 1), shift_for(n_tokens, config))
