"""Rotary positions in three axes (Su et al., arXiv:2104.09864): attention sees distances, not places.

    rotation = rotary(positions, head_width)      # positions (S, 3): time, row, column
    rotation = rotary(positions, head_width, stretch=Stretch(time=2.0))     # twice as long as trained
    q, k = rotate(q, rotation), rotate(k, rotation)

Each head's features are shared out over time, rows and columns as in Wan 2.1: a third each, rounded down to
even for rows and columns, the rest for time. Neighbouring features form the pairs that turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import Stretch

NO_STRETCH = Stretch()

#: cos and sin of each token's angles, each (S, 1, head_width / 2)
Rotation = tuple[Tensor, Tensor]


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """Features of a head for time, rows and columns: 44, 42, 42 of 128."""
    space = 2 * (head_width // 6)
    return head_width - 2 * space, space, space


def rotary(
    positions: Tensor, head_width: int, theta: float = 10_000.0, stretch: Stretch = NO_STRETCH
) -> Rotation:
    """Angles position · theta^(-2i/d) for pair i of the d features of an axis; positions (S, 3), any unit.

    `stretch` is for clips longer or larger than trained; without it nothing changes.
    """
    angles = []
    for axis, (width, factor) in enumerate(zip(axis_widths(head_width), stretch.factors, strict=True)):
        pairs = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device)
        # float64: long clips at high theta lose the slow frequencies in float32.
        place, base = positions[:, axis].double()[:, None], theta
        if stretch.method == "interpolate":
            place = place / factor
        elif width > 2:  # one pair alone has but the frequency 1
            base = theta * factor ** (width / (width - 2))
        angles.append(place * base ** (-pairs / width))
    angle = torch.cat(angles, dim=1)[:, None]  # (S, 1, head_width / 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs of x (S, H, head_width) by their angles; the dtype of x stays."""
    cos, sin = rotation
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (S, H, head_width / 2)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
