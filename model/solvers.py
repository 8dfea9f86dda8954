"""Solvers of dx/dt = v(x, t) along a grid of falling noise levels, each a generator that asks for velocities.

    run = euler(noise, grid)                             # grid (n + 1,) falls to 0
    x, t = next(run)                                     # where the solver wants to know v
    x, t = run.send(v)                                   # ... until StopIteration, whose value is the clip

Clips of different sizes have different grids: each has a generator of its own, and whoever drives them can answer
many with one pass of the model. No solver asks at t = 0, which tells the model that a frame is given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

from torch import Tensor

from model.errors import BadInput

#: Asks for the velocity of x at level t, and returns the clip.
Solver = Generator[tuple[Tensor, float], Tensor, Tensor]


def euler(x: Tensor, grid: Tensor) -> Solver:
    """x + (s - t)·v(x, t) for each step from t to s: one call per step, error of order 1."""
    for t, s in pairwise(grid.tolist()):
        v = yield x, t
        x = x + (s - t) * v
    return x


def heun(x: Tensor, grid: Tensor) -> Solver:
    """The mean of the velocities at both ends of a step: two calls per step, error of order 2.

    The last step, to 0, is Euler's, as in Karras et al. (arXiv:2206.00364); its error is of order 2 too.
    """
    for t, s in pairwise(grid.tolist()):
        v = yield x, t
        ahead = x + (s - t) * v
        if s > 0:
            ahead = x + (s - t) * (v + (yield ahead, s)) / 2
        x = ahead
    return x


def unipc(x: Tensor, grid: Tensor) -> Solver:
    """UniPC of order 2 (Zhao et al., arXiv:2302.04867), by diffusers: one call per step, error of order 2.

    Each velocity corrects the step that led to it and, with the one before, predicts the next. Raises BadInput where
    diffusers is missing.
    """
    if len(grid) < 2:
        return x
    scheduler = _unipc_scheduler(grid)
    for t, step in zip(grid.tolist(), scheduler.timesteps, strict=False):
        v = yield x, t
        # Its formulas know a batch axis.
        x = scheduler.step(v[None], step, x[None], return_dict=False)[0][0]
    return x


def _unipc_scheduler(grid: Tensor) -> Any:
    try:
        from diffusers import UniPCMultistepScheduler
    except ImportError as error:
        raise BadInput(
            "the solver unipc is that of diffusers, which is not installed here: install it, or give "
            "--sampler.solver=heun."
        ) from error
    scheduler: Any = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    scheduler.set_timesteps(sigmas=grid[:-1].double().numpy())
    scheduler.set_begin_index(0)  # its timesteps are whole numbers, of which two can be the same
    return scheduler


SOLVERS: dict[str, Callable[[Tensor, Tensor], Solver]] = {"euler": euler, "heun": heun, "unipc": unipc}


def n_calls(solver: str, steps: int) -> int:
    """How often a solver asks for a velocity along a grid of so many steps to 0."""
    return 2 * steps - 1 if solver == "heun" and steps else steps
