"""Clips and configurations that make no sense: one clear message each, none in silence."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.config import PRESETS, DiTConfig, FlowConfig, SizeConfig
from model.errors import BadInput
from model.pack import Clip, Span, make_pack

SHAPE = DiTConfig(width=48, depth=2, heads=2, ffn=96, text_width=12)
GOOD = Clip(torch.zeros(16, 3, 4, 6), 24.0, torch.zeros(7, 12), 0.3)
NAN, INF = float("nan"), float("inf")


def test_good_ones_are_taken() -> None:
    span = Span(torch.zeros(16, 2, 4, 6), 1)
    clean = torch.tensor([True, False, False])
    for clip in (
        GOOD,
        replace(GOOD, fps=None, text=None, t=0),
        replace(GOOD, t=torch.tensor(1.0), text=torch.zeros(0, 12)),
        replace(GOOD, is_clean=clean, spans=(span, replace(span, at=0))),
    ):
        make_pack([clip], SHAPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": torch.zeros(4, 3, 4, 6)}, r"latent of shape \(4, 3, 4, 6\): give .* with 16 channels"),
        ({"latent": torch.zeros(16, 4, 6)}, r"latent of shape \(16, 4, 6\)"),
        ({"latent": torch.zeros(1, 16, 3, 4, 6)}, r"latent of shape \(1, 16, 3, 4, 6\)"),
        ({"latent": torch.zeros(16, 0, 4, 6)}, r"latent of shape \(16, 0, 4, 6\)"),
        ({"text": torch.zeros(7, 13)}, r"text of shape \(7, 13\): give \(tokens, 12\), or None"),
        ({"text": torch.zeros(12)}, r"text of shape \(12,\)"),
        ({"t": 1.01}, "noise level t of 1.01: give 0"),
        ({"t": -0.1}, "noise level t of -0.1"),
        ({"t": NAN}, "noise level t of nan"),
        ({"fps": 0.0}, "0.0 frames per second: give a number above 0, or None"),
        ({"fps": -24.0}, "-24.0 frames per second"),
        ({"fps": NAN}, "nan frames per second"),
        ({"fps": INF}, "inf frames per second"),
        ({"is_clean": torch.tensor([True, False])}, r"is_clean of \(2,\) torch.bool: give \(3,\) bool"),
        ({"is_clean": torch.tensor([1, 0, 0])}, r"is_clean of \(3,\) torch.int64"),
        (
            {"spans": (Span(torch.zeros(16, 1, 6, 4), 2),)},
            r"span of shape \(16, 1, 6, 4\): give \(16, frames, 4, 6\)",
        ),
        ({"spans": (Span(torch.zeros(16, 0, 4, 6), 2),)}, r"span of shape \(16, 0, 4, 6\)"),
        ({"spans": (Span(torch.zeros(16, 4, 6), 2),)}, r"span of shape \(16, 4, 6\)"),
        (
            {"spans": (Span(torch.zeros(16, 2, 4, 6), 2),)},
            "span at latent frames 2 to 3: the clip has 0 to 2",
        ),
        ({"spans": (Span(torch.zeros(16, 1, 4, 6), -1),)}, "span at latent frames -1 to -1"),
    ],
)
def test_clips_that_no_pack_can_hold_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=rf"clip 1 of the pack has (a |an )?{message}"):
        make_pack([GOOD, replace(GOOD, **changes)], SHAPE)


def test_a_pack_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="a pack needs at least one clip"):
        make_pack([], SHAPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 0}, {"depth": 0}, {"depth": -2}, {"ffn": 0}, {"ffn": -5}, {"text_width": 0},
        {"reference_fps": 0.0}, {"reference_fps": -16.0}, {"reference_fps": NAN}, {"rope_theta": 0.0},
        {"width": 0}, {"heads": 0}, {"windows": ()}, {"patch": (0, 2, 2)},
    ],
)  # fmt: skip
def test_shapes_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(BadInput, match=name):
        DiTConfig(**changes)


@pytest.mark.parametrize("name", ["width", "depth", "heads", "ffn"])
def test_sizes_of_0_are_no_presets_sizes(name: str) -> None:
    for value in (0, -2):
        with pytest.raises(BadInput, match=f"model.{name} is {value}, must be 1 or more"):
            SizeConfig(**{name: value})


def test_sizes_left_out_are_the_presets() -> None:
    assert SizeConfig("S").config(channels=16, text_width=128) == PRESETS["S"]
    wide = SizeConfig("S", width=128, depth=3, patch=(2, 2, 2)).config(channels=4, text_width=8)
    assert (wide.width, wide.heads, wide.ffn, wide.depth, wide.patch) == (128, 2, 512, 3, (2, 2, 2))
    with pytest.raises(BadInput, match=r"no preset 'L': choose one of tiny, S, B, XL, 1\.3B"):
        SizeConfig("L")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"base_tokens": 0}, "1 or more"), ({"base_tokens": -256}, "1 or more"), ({"std": -1.0}, "0 or more"),
        ({"std": NAN}, "0 or more"), ({"mean": NAN}, "finite"), ({"uniform_share": 1.1}, "from 0 to 1"),
        ({"uniform_share": -0.1}, "from 0 to 1"), ({"max_shift": 0.0}, "above 0"), ({"max_shift": -1.0}, "above 0"),
    ],
)  # fmt: skip
def test_noise_levels_that_make_no_sense_are_refused(changes: dict[str, Any], limit: str) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(BadInput, match=rf"flow.{name} is {value}, must be {limit}"):
        FlowConfig(**changes)
