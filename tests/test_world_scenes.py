"""The procedural world says what it shows: captions and their parser, motion, held-out combinations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.demo.world import DIRECTIONS, KINDS, RGB, Scene, draw_scene, is_held_out, position, render
from pipelines.demo.world_captions import ATTRIBUTES, describe, parse, truth


@pytest.mark.parametrize("kind", ["short", "dense"])
def test_parse_reads_back_every_attribute(kind: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(2000):
        scene = draw_scene(rng)
        if i % 8 == 0:
            scene = dataclasses.replace(scene, direction="still")
        text = describe(scene, kind, rng)  # type: ignore[arg-type]
        assert parse(text) == truth(scene), text


def test_original_captions_are_true_and_often_incomplete() -> None:
    rng = np.random.default_rng(1)
    complete = 0
    for _ in range(500):
        scene = draw_scene(rng)
        said = parse(describe(scene, "original", rng))
        assert all(said[name] in (None, truth(scene)[name]) for name in ATTRIBUTES)
        complete += None not in said.values()
    assert 0 < complete < 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A tiny red circle going left.", {"kind": "disc", "colour": "red", "size": "small", "direction": "left"}),
        ("a red or blue square", {"kind": "square", "colour": None}),
        ("moves left, then moves right", {"direction": None}),
        ("a green hill", {"colour": None, "background": "green hill"}),
        ("a star under the night sky full of stars", {"kind": "star", "background": "night sky"}),
        ("it crosses the picture from left to right", {"kind": None, "direction": "right"}),
        ("", dict.fromkeys(ATTRIBUTES)),
    ],
)
def test_parse_by_hand(text: str, expected: dict) -> None:
    said = parse(text)
    assert {name: said[name] for name in expected} == expected


def test_motion_is_a_function_of_time() -> None:
    scene = draw_scene(np.random.default_rng(2))
    slow = render(scene, n_frames=9, fps=8, width=64, height=64)
    fast = render(scene, n_frames=17, fps=16, width=64, height=64)
    assert np.array_equal(slow, fast[::2])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_shape_goes_where_the_caption_says(direction: str) -> None:
    """The centre of the red pixels moves along the named axis by 0.28 of the picture in a second."""
    scene = Scene("disc", "red", "small", direction, "snowy field")
    video = render(scene, n_frames=9, fps=8, width=100, height=100).astype(int)
    red = (abs(video - np.array(RGB["red"])).sum(-1) < 60).nonzero()
    first, last = (np.array([red[2][red[0] == t].mean(), red[1][red[0] == t].mean()]) for t in (0, 8))
    step = {"left": (-28, 0), "right": (28, 0), "up": (0, -28), "down": (0, 28)}[direction]
    assert last - first == pytest.approx(np.array(step), abs=1.0)
    assert position(scene, 0.0) == (0.5, 0.5)


def test_every_kind_looks_different() -> None:
    pictures = [
        render(Scene(kind, "red", "large", "still", "snowy field"), n_frames=1, fps=8, width=64, height=64)[0]
        for kind in KINDS
    ]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (abs(one.astype(int) - other).sum(-1) > 100).mean() > 0.01


def test_held_out_combinations_are_a_tenth_and_never_drawn_for_training() -> None:
    rng = np.random.default_rng(3)
    share = np.mean([is_held_out(draw_scene(rng)) for _ in range(3000)])
    assert 0.06 < share < 0.15
    assert not any(is_held_out(draw_scene(rng, held_out=False)) for _ in range(300))
    assert all(is_held_out(draw_scene(rng, held_out=True)) for _ in range(30))
