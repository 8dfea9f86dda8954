"""Guidance: the algebra by hand, the interval, and contrast taken back."""

from dataclasses import replace

import pytest
import torch

from model.errors import BadInput
from model.guidance import guide, rescaled, weigh, weigh_at
from model.sample_config import SampleConfig


def test_three_passes_are_those_of_instruct_pix2pix() -> None:
    """none + s_I·(no_text - none) + s_T·(full - no_text), with s_I = 2, s_T = 5."""
    weights = weigh(text=5.0, image=2.0, has_text=True, has_image=True)
    assert weights == {"full": 5.0, "no_text": -3.0, "none": -1.0}
    passes = {"full": torch.tensor([3.0]), "no_text": torch.tensor([2.0]), "none": torch.tensor([1.0])}
    assert guide(passes, weights).tolist() == [1 + 2 * (2 - 1) + 5 * (3 - 2)]


@pytest.mark.parametrize(
    ("text", "image", "has_text", "has_image", "weights"),
    [
        (1, 1, True, True, {"full": 1}),  # one pass
        (4, 1, True, True, {"full": 4, "no_text": -3}),  # the pictures are always given
        (1, 3, True, True, {"full": 1, "no_text": 2, "none": -2}),
        (3, 3, True, True, {"full": 3, "none": -2}),  # text and pictures as one condition
        (0, 0, True, True, {"none": 1}),
        (4, 2, True, False, {"full": 4, "no_text": -3}),
        (1, 2, True, False, {"full": 1}),
        (4, 2, False, True, {"full": 2, "none": -1}),
        (4, 1, False, True, {"full": 1}),
        (4, 2, False, False, {"full": 1}),
    ],
)
def test_only_passes_with_a_weight_are_needed(
    text: float, image: float, has_text: bool, has_image: bool, weights: dict[str, float]
) -> None:
    found = weigh(text=text, image=image, has_text=has_text, has_image=has_image)
    assert found == weights
    assert sum(found.values()) == 1


def test_one_pass_of_weight_one_is_left_as_it_is() -> None:
    v = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert guide({"full": v}, {"full": 1.0}) is v


def test_outside_the_interval_there_is_no_guidance() -> None:
    config = SampleConfig(guidance=4.0, image_guidance=2.0, guidance_interval=(0.2, 0.7))
    for t in (0.1, 0.19, 0.71, 1.0):
        assert weigh_at(t, config, has_text=True, has_image=True) == {"full": 1.0}
    for t in (0.2, 0.5, 0.7):
        assert len(weigh_at(t, config, has_text=True, has_image=True)) == 3


def test_contrast_is_taken_back() -> None:
    """Clean clips: guided (0, 4, 8, 12), plain (1, 2, 3, 4): σ is 4 times as large. The last frame is given."""
    t = 0.5
    x = torch.zeros(1, 5, 1, 1)
    clean = torch.tensor([0.0, 4, 8, 12, 99]).view(1, 5, 1, 1)
    plain = torch.tensor([1.0, 2, 3, 4, -50]).view(1, 5, 1, 1)
    free = torch.tensor([True, True, True, True, False])

    def found(share: float) -> torch.Tensor:
        v = rescaled((x - clean) / t, (x - plain) / t, x, t, share, free)
        return (x - t * v)[0, :4, 0, 0]

    assert found(0.0).tolist() == [0, 4, 8, 12]
    torch.testing.assert_close(found(1.0), torch.tensor([0.0, 1, 2, 3]))
    # Half and half: 0.5·¼ + 0.5 = 0.625
    torch.testing.assert_close(found(0.5), torch.tensor([0.0, 2.5, 5, 7.5]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "sampler.steps is 0, must be 1 or more"),
        ({"token_budget": 0}, "sampler.token_budget is 0"),
        ({"guidance": float("nan")}, "sampler.guidance is nan"),
        ({"rescale": 1.5}, "sampler.rescale is 1.5, must be from 0 to 1"),
        ({"guidance_interval": (0.7, 0.2)}, r"guidance_interval is \[0.7, 0.2\]"),
        ({"guidance_interval": (0.0, 1.2)}, "two noise levels from 0 to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(SampleConfig(), **changed)  # type: ignore[arg-type]
