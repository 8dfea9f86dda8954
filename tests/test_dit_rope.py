"""Rotary positions: lengths stay, scores depend on distances alone, hand-computed angles."""

import math

import torch

from model.rope import axis_widths, rotary, rotate


def score(q: torch.Tensor, k: torch.Tensor, at: list[float], other: list[float]) -> float:
    places = torch.tensor([at, other])
    rotated = rotate(torch.stack([q, k])[:, None], rotary(places, 32))
    return float(rotated[0, 0] @ rotated[1, 0])


def test_scores_depend_on_distances_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 32)
    base = score(q, k, [0.0, 3.0, 5.0], [2.5, 1.0, 4.0])
    moved = score(q, k, [7.0, 13.0, 105.0], [9.5, 11.0, 104.0])
    assert abs(base - moved) < 1e-4
    assert abs(base - score(q, k, [0.0, 3.0, 5.0], [3.5, 1.0, 4.0])) > 1e-2  # another distance in time
    assert abs(base - score(q, k, [0.0, 3.0, 5.0], [2.5, 1.0, 6.0])) > 1e-2  # another distance in columns


def test_axes_share_a_head_as_in_wan() -> None:
    assert axis_widths(128) == (44, 42, 42)
    assert axis_widths(32) == (12, 10, 10)


def test_hand_computed_rotation() -> None:
    # A head of 8: 4 for time, 2 for rows, 2 for columns. Angles t, t/100, row, column.
    x = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 1]).view(1, 1, 8)
    turned = rotate(x, rotary(torch.tensor([[2.0, 3.0, 4.0]]), 8))[0, 0].tolist()
    expected = [
        math.cos(2), math.sin(2), -math.sin(0.02), math.cos(0.02),
        math.cos(3), math.sin(3), -math.sin(4), math.cos(4),
    ]  # fmt: skip
    assert all(abs(a - b) < 1e-6 for a, b in zip(turned, expected, strict=True))
