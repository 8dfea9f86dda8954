"""Rotary positions: lengths stay, scores depend on distances alone, hand-computed angles."""

import math

import pytest
import torch

from model.config import DiTConfig, Stretch
from model.dit import DiT
from model.errors import BadInput
from model.pack import Clip, Span, make_pack
from model.rope import axis_widths, rotary, rotate


def score(q: torch.Tensor, k: torch.Tensor, at: list[float], other: list[float]) -> float:
    places = torch.tensor([at, other])
    rotated = rotate(torch.stack([q, k])[:, None], rotary(places, 32))
    return float(rotated[0, 0] @ rotated[1, 0])


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["time", "rows", "columns"])
def test_scores_depend_on_distances_alone(axis: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 32)
    at, other = [0.0, 3.0, 5.0], [2.5, 1.0, 4.0]
    base = score(q, k, at, other)
    assert abs(base - score(q, k, [7.0, 13.0, 105.0], [9.5, 11.0, 104.0])) < 1e-4
    for by in (1.0, -2.0, 40.0):
        moved_at, moved_other = list(at), list(other)
        moved_at[axis] += by
        assert abs(base - score(q, k, moved_at, other)) > 1e-2  # another distance along this axis alone
        moved_other[axis] += by
        assert abs(base - score(q, k, moved_at, moved_other)) < 1e-4


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


def test_a_model_sees_distances_in_time_spans_included() -> None:
    torch.manual_seed(0)
    # Without `places`, which tell the first frame and the place in the picture.
    dit = DiT(DiTConfig(width=48, depth=2, heads=2, ffn=96, text_width=12, places=False))
    for p in dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    clip = Clip(torch.randn(16, 3, 4, 4), 24.0, None, 0.5, None, (Span(torch.randn(16, 1, 4, 4), 2),))
    pack = make_pack([clip], dit.config)
    base = dit(pack)
    pack.positions.add_(torch.tensor([7.5, 3.0, 11.0]))
    torch.testing.assert_close(dit(pack), base, atol=1e-5, rtol=0)
    pack.positions[12:, 0] += 1.0  # the span alone
    assert (dit(pack)[:12] - base[:12]).abs().max() > 1e-3


def angles(stretch: Stretch, places: torch.Tensor, width: int = 32) -> torch.Tensor:
    """(S, width / 2) angles, as long as none passes half a turn."""
    cos, sin = rotary(places, width, stretch=stretch)
    return torch.atan2(sin, cos)[:, 0]


def test_no_stretch_changes_nothing() -> None:
    places = torch.rand(50, 3) * 100
    for method in ("interpolate", "ntk"):
        for a, b in zip(rotary(places, 32), rotary(places, 32, stretch=Stretch(method=method)), strict=True):
            assert torch.equal(a, b)


def test_interpolation_divides_positions() -> None:
    places = torch.tensor([[2.0, 1.0, 1.5]])
    found = angles(Stretch(time=2.0, columns=3.0, method="interpolate"), places)
    torch.testing.assert_close(found, angles(Stretch(), torch.tensor([[1.0, 1.0, 0.5]])))


def test_ntk_keeps_the_fastest_frequency_and_divides_the_slowest() -> None:
    places = torch.tensor([[2.0, 1.0, 1.5]])
    base, found = angles(Stretch(), places)[0], angles(Stretch(time=2.0, columns=3.0), places)[0]
    # A head of 32: 12, 10 and 10 features, so pairs 0-5, 6-10 and 11-15.
    ratio = (base / found).tolist()
    assert ratio[6:11] == [1.0] * 5
    assert ratio[0] == pytest.approx(1.0)
    assert ratio[5] == pytest.approx(2.0)
    assert ratio[11] == pytest.approx(1.0)
    assert ratio[15] == pytest.approx(3.0)
    assert ratio[:6] == sorted(ratio[:6])
    assert ratio[1] == pytest.approx(2.0 ** (1 / 5))  # the same factor from pair to pair
    narrow = [angles(stretch, places, 8) for stretch in (Stretch(), Stretch(rows=2.0))]
    torch.testing.assert_close(*narrow)  # one pair for rows: there is no slower frequency


def test_a_stretch_is_as_large_as_it_must_be() -> None:
    assert Stretch.over((30.0, 45, 80), (10.0, 45, 100)) == Stretch(time=3.0)
    with pytest.raises(BadInput, match="above 0"):
        Stretch(time=0.0)


def test_a_model_is_stretched_when_it_is_run() -> None:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(width=48, depth=1, heads=2, ffn=96, text_width=12))
    for p in dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    latent = torch.randn(16, 5, 4, 4)
    fast, slow = (make_pack([Clip(latent, fps, None, 0.5)], dit.config) for fps in (24.0, 12.0))
    at_24, at_12 = dit(fast), dit(slow)
    dit.stretch = Stretch(time=2.0, method="interpolate")  # at half the rate a clip takes twice the time
    torch.testing.assert_close(dit(slow), at_24, atol=1e-5, rtol=0)
    assert (dit(fast) - at_24).abs().max() > 1e-3
    assert (at_12 - at_24).abs().max() > 1e-3
    assert "stretch" not in "".join(dit.state_dict())
