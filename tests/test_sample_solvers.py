"""The solvers on a flow whose solution is known, and UniPC against diffusers' own loop."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model.config import FlowConfig
from model.flow import time_grid
from model.solvers import SOLVERS, n_calls

MEAN, STD = 0.7, 0.4


def velocity(x: Tensor, t: float) -> Tensor:
    """E[noise - x_0 | x_t = x] where x_0 is normal with MEAN and STD."""
    spread = (1 - t) ** 2 * STD**2 + t**2
    away = x - (1 - t) * MEAN
    return t / spread * away - (MEAN + (1 - t) * STD**2 / spread * away)


def solve(name: str, noise: Tensor, grid: Tensor) -> tuple[Tensor, list[float]]:
    """The clip, and the levels at which the solver asked."""
    solver, asked = SOLVERS[name](noise, grid), []
    x, t = next(solver)
    while True:
        asked.append(t)
        try:
            x, t = solver.send(velocity(x, t))
        except StopIteration as end:
            return end.value, asked


def error(name: str, steps: int) -> float:
    """Distance from the true end of each path: MEAN + STD · noise."""
    noise = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = time_grid(steps, 256, FlowConfig()).double()
    found, _ = solve(name, noise, grid)
    return float((found - (MEAN + STD * noise)).square().mean().sqrt())


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("unipc", 2)])
def test_the_error_falls_with_the_order(name: str, order: int) -> None:
    """Twice the steps, a 2^order-th of the error."""
    errors = [error(name, steps) for steps in (80, 160, 320)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine > 0.8 * 2**order
    if order == 1:
        assert errors[0] / errors[1] < 3  # or the test could not tell


@pytest.mark.parametrize("calls", [19, 39])
def test_at_equal_calls_higher_order_wins(calls: int) -> None:
    euler, heun, unipc = error("euler", calls), error("heun", (calls + 1) // 2), error("unipc", calls)
    assert heun < 0.5 * euler
    assert unipc < 0.5 * euler


@pytest.mark.parametrize("name", SOLVERS)
def test_calls_are_as_many_as_told_and_none_is_at_zero(name: str) -> None:
    """Level 0 tells the model that a frame is given."""
    for steps in (1, 2, 5):
        _, asked = solve(name, torch.ones(1, 1, 1, 1), torch.linspace(1, 0, steps + 1))
        assert len(asked) == n_calls(name, steps)
        assert min(asked) > 0
        assert asked[0] == 1
    assert n_calls("heun", 0) == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_without_steps_nothing_is_asked(name: str) -> None:
    x = torch.ones(1, 1, 1, 1)
    with pytest.raises(StopIteration) as end:
        next(SOLVERS[name](x, torch.tensor([0.0])))
    assert torch.equal(end.value.value, x)


def test_one_euler_and_one_heun_step_by_hand() -> None:
    """v = x·t from x = 2 over the levels 1, 0.5, 0."""
    grid = torch.tensor([1.0, 0.5, 0.0])

    def ends(name: str) -> float:
        solver = SOLVERS[name](torch.tensor([2.0]), grid)
        x, t = next(solver)
        while True:
            try:
                x, t = solver.send(x * t)
            except StopIteration as end:
                return float(end.value)

    # 2 - 0.5·2 = 1; 1 - 0.5·0.5 = 0.75
    assert ends("euler") == 0.75
    # ahead 1, velocities 2 and 0.5: 2 - 0.5·1.25 = 1.375; then Euler: 1.375 - 0.5·0.6875
    assert ends("heun") == 1.03125


def test_unipc_is_that_of_diffusers() -> None:
    """The same numbers as a pipeline of diffusers gets from its scheduler, shift included."""
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    steps, flow = 12, FlowConfig(base_tokens=100)
    scheduler.set_timesteps(steps)
    noise = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    x = noise[None]
    for i, step in enumerate(scheduler.timesteps):
        v = velocity(x, float(scheduler.sigmas[i]))
        x = scheduler.step(v, step, x, return_dict=False)[0]
    grid = torch.cat([scheduler.sigmas[:-1].float(), torch.zeros(1)])
    found, asked = solve("unipc", noise, grid)
    torch.testing.assert_close(found, x[0], atol=1e-6, rtol=0)
    assert len(asked) == steps
    # Its levels are nearly ours: even before a shift of 3, that of 9 times as many tokens.
    torch.testing.assert_close(torch.tensor(asked), time_grid(steps, 900, flow)[:-1], atol=3e-3, rtol=0)
