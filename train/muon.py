"""Muon: each weight matrix moves by its orthogonalised momentum, everything else as in AdamW.

    optimizer = Muon(model.parameters(), lr=3e-3)

Jordan et al. 2024, "Muon: an optimizer for hidden layers"; step size after Moonshot (arXiv:2502.16982), so that
one learning rate serves both kinds of weights. Convolutions are taken as matrices (outputs, inputs·kernel),
which torch.optim.Muon does not do. In 70 s of one core the tiny VAE comes to 25.1 dB, by AdamW to 24.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from train.ranks import Ranks
from train.shards import own_rows, whole

SMALLEST = 8  # rows and columns from which orthogonalising pays
AT_ONCE = 2**25  # numbers that the ranks exchange together: 128 MiB


class Muon(torch.optim.Optimizer):
    """Args: learning rate `lr`, `momentum` of the matrices, `betas` of the rest, `weight_decay` (decoupled) of all."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        ranks: Ranks | None = None,
    ) -> None:
        """`params`: weights, or groups of them with settings of their own, as every optimizer of torch takes them.

        `ranks` share the work of orthogonalising; all of them must have the same weights and gradients.
        """
        self.ranks = ranks or Ranks(0, 1, torch.device("cpu"))
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient; `closure` is not supported."""
        number, held = 0, 0
        waiting: list[tuple[Tensor, float, Tensor]] = []
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                local, gradient = own_rows(weight)[0], own_rows(weight.grad)[0]
                if group["weight_decay"]:
                    local.mul_(1.0 - group["lr"] * group["weight_decay"])
                rows, columns = (len(weight), weight[0].numel()) if weight.ndim > 1 else (weight.numel(), 1)
                if min(rows, columns) < SMALLEST:
                    self._adam(local, gradient, weight, group)
                    continue
                mean = own_rows(state.setdefault("mean", torch.zeros_like(weight)))[0]
                mean.lerp_(gradient, 1.0 - group["momentum"])
                # Nesterov; under FSDP2 its rows are gathered on every rank.
                ahead = whole(weight.grad.lerp(state["mean"], group["momentum"]))
                if number % self.ranks.size == self.ranks.rank:
                    update = orthogonal(ahead.reshape(rows, columns)).flatten()
                else:
                    update = torch.zeros_like(ahead).flatten()
                # 0.2 is the usual size of an AdamW step, per entry.
                waiting.append((weight, 0.2 * max(rows, columns) ** 0.5 * group["lr"], update))
                number, held = number + 1, held + len(update)
                if held >= AT_ONCE:
                    self._move(waiting)
                    waiting, held = [], 0
        self._move(waiting)

    def _move(self, waiting: list[tuple[Tensor, float, Tensor]]) -> None:
        """Move matrices by step size and update, of which each rank has made some and zeros for the others."""
        if not waiting:
            return
        together = self.ranks.sum_(torch.cat([update for _, _, update in waiting]))
        parts = together.split([len(update) for _, _, update in waiting])
        for (weight, size, _), update in zip(waiting, parts, strict=True):
            local, start, _ = own_rows(weight)
            local.add_(update.view(weight.shape)[start : start + len(local)], alpha=-size)

    def _adam(self, local: Tensor, gradient: Tensor, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        mean = own_rows(state.setdefault("mean", torch.zeros_like(weight)))[0]
        square = own_rows(state.setdefault("square", torch.zeros_like(weight)))[0]
        state["steps"] = state.get("steps", torch.zeros((), device=weight.device)) + 1
        decay, square_decay = group["betas"]
        mean.lerp_(gradient, 1.0 - decay)
        square.lerp_(gradient.square(), 1.0 - square_decay)
        unbiased = square / (1.0 - square_decay ** state["steps"])
        mean = mean / (1.0 - decay ** state["steps"])
        local.addcdiv_(mean, unbiased.sqrt() + 1e-8, value=-group["lr"])


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix whose singular values are all 1 (they come out between 0.7 and 1.2).

    A quintic Newton-Schulz iteration in bfloat16, whose coefficients are Jordan's.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    upright = x.shape[0] > x.shape[1]
    if upright:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if upright else x).to(matrix.dtype)
