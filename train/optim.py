"""The optimizer of the transformer and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch

from model.dit import DiT
from train.config import OptimConfig
from train.muon import Muon
from train.ranks import Ranks


def build_optimizer(model: DiT, config: OptimConfig, ranks: Ranks | None = None) -> torch.optim.Optimizer:
    """AdamW, or Muon, whose weight decay spares all but the weight matrices of linear layers."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.endswith("weight")]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and name.endswith("weight"))]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    betas, decay = (config.beta1, config.beta2), config.weight_decay
    if config.name == "muon":
        return Muon(groups, lr=config.lr, betas=betas, weight_decay=decay, ranks=ranks)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=decay, fused=True)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of step `step` (from 0) of `steps`.

    A linear warm-up; then constant, or a cosine to lr / 20 at the last step; times a line to zero over the cool-down.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    lr = config.lr
    if config.schedule == "cosine":
        done = (step - config.warmup) / max(1, steps - config.warmup)
        lr *= 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
    return lr * min(1.0, (steps - step) / config.cooldown) if config.cooldown else lr
