"""Scenes of the procedural world: what is drawn, what is held out, and that a seed decides everything."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from pipelines.demo.world import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    KINDS,
    LIGHTS,
    SIZES,
    draw_scene,
    is_held_out,
    stand_still,
)


def test_one_combination_in_six_is_held_out_and_every_pair_remains() -> None:
    everything = list(product(KINDS, COLOURS, BACKGROUNDS))
    trained = [combination for combination in everything if not is_held_out(*combination)]
    assert len(everything) == 288
    assert len(trained) == 240
    for first, second in combinations(range(3), 2):
        seen = {(c[first], c[second]) for c in trained}
        assert seen == {(c[first], c[second]) for c in everything}


@pytest.mark.parametrize("held_out", [True, False])
def test_held_out_draws_only_or_never_those(held_out: bool) -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, held_out) for _ in range(300)]
    assert {is_held_out(s.kind, s.colour, s.background) for s in scenes} == {held_out}


def test_every_value_occurs_and_a_seed_decides_everything() -> None:
    scenes, again = ([draw_scene(rng) for _ in range(300)] for rng in map(np.random.default_rng, (3, 3)))
    assert scenes == again
    for name, values in (
        ("kind", KINDS),
        ("colour", COLOURS),
        ("size", SIZES),
        ("direction", DIRECTIONS),
        ("background", BACKGROUNDS),
        ("camera", CAMERAS),
        ("light", LIGHTS),
    ):
        assert {getattr(scene, name) for scene in scenes} == set(values)


@pytest.mark.parametrize("duration_s", [0.7, 1.5, 3.0, 6.0])
def test_the_object_crosses_a_good_part_and_stays_in_the_picture(duration_s: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        scene = draw_scene(rng, duration_s=duration_s)
        velocity = np.array(scene.velocity)
        travel = abs(velocity).sum() * duration_s
        assert 0.35 <= travel <= 0.81
        if duration_s == 1.5:
            assert travel <= 0.6
        for place in (np.array(scene.start), np.array(scene.start) + velocity * duration_s):
            assert place.min() > 0.05
            assert place.max() < 0.95


def test_stand_still_stops_object_and_camera() -> None:
    scene = stand_still(replace(draw_scene(np.random.default_rng(2)), camera="pan left"))
    assert scene.direction == "still"
    assert scene.velocity == (0, 0)
    assert scene.camera == "static"


def test_the_world_needs_no_torch_ray_or_decoder() -> None:
    code = "import sys, pipelines.demo.world as w; print(sorted({'torch', 'ray', 'av', 'pyarrow'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
