"""Flow matching: paths, velocities, shift and the law of the noise levels."""

import torch

from model.config import FlowConfig
from model.flow import draw_time, mix, shift_for, shift_time, time_grid, velocity


def test_paths_and_velocities() -> None:
    x0, noise = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    assert mix(x0, noise, torch.tensor(0.25)).tolist() == [1.5, -0.5]
    assert velocity(x0, noise).tolist() == [2.0, 6.0]
    assert torch.equal(mix(x0, noise, torch.tensor(0.0)), x0)
    # The derivative of the path is the velocity.
    t = torch.tensor(0.4, dtype=torch.float64)
    step = mix(x0.double(), noise.double(), t + 1e-6) - mix(x0.double(), noise.double(), t)
    torch.testing.assert_close(step / 1e-6, velocity(x0, noise).double())


def test_shift_at_hand_computed_points() -> None:
    config = FlowConfig(base_tokens=256, max_shift=12)
    assert shift_for(4096, config) == 4.0
    assert shift_for(100, config) == 1.0  # never towards less noise
    assert shift_for(10_000_000, config) == 12.0
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    torch.testing.assert_close(shift_time(t, 4.0), torch.tensor([0.0, 1 / 1.75, 0.8, 1.0]))
    assert torch.equal(shift_time(t, 1.0), t)


def test_noise_levels_are_logit_normal_with_a_uniform_share() -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.stack([draw_time(FlowConfig(), 256, generator) for _ in range(20_000)])
    assert t.min() > 0
    assert t.max() < 1
    # P(t < 0.1) is P(z < -2.197) = 0.0140 for the logit-normal and 0.1 for the uniform: 0.9·0.0140 + 0.1·0.1.
    assert abs((t < 0.1).float().mean() - 0.0226) < 0.004
    assert abs(t.mean() - 0.5) < 0.01
    shifted = torch.stack([draw_time(FlowConfig(), 4096, generator) for _ in range(20_000)])
    assert abs(shifted.median() - 0.8) < 0.01


def test_time_grid_runs_from_noise_to_clip() -> None:
    torch.testing.assert_close(time_grid(4, 256, FlowConfig()), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    torch.testing.assert_close(time_grid(2, 4096, FlowConfig()), torch.tensor([1.0, 0.8, 0.0]))


def test_noise_levels_never_exceed_1_by_rounding() -> None:
    firsts = {time_grid(20, n_tokens, FlowConfig(base_tokens=8))[0].item() for n_tokens in range(8, 1200)}
    assert 1 - 1e-6 < min(firsts) <= max(firsts) <= 1.0
