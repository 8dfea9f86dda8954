"""Pictures of the procedural world, measured: the object is where, what and of which colour the scene says."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipelines.demo.backgrounds import paint
from pipelines.demo.world import BACKGROUNDS, COLOURS, KINDS, LIGHTS, RGB, Scene, draw_scene, render

SCENE = Scene("disc", "red", "large", "right", "snowy field", start=(0.25, 0.5), speed=0.3)


def mask(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where the picture has an object's colour; saturated colours occur nowhere else."""
    distance = np.abs(picture.astype(int) - np.array(RGB[colour])).max(-1)
    return distance < 42


def centre(picture: np.ndarray, colour: str) -> tuple[float, float]:
    y, x = np.nonzero(mask(picture, colour))
    return float(x.mean() + 0.5), float(y.mean() + 0.5)


@pytest.mark.parametrize(
    ("direction", "start", "expected"),
    [
        ("right", (0.25, 0.5), (0.55 * 192, 0.5 * 108)),
        ("left", (0.75, 0.5), (0.45 * 192, 0.5 * 108)),
        ("up", (0.5, 0.65), (0.5 * 192, 0.35 * 108)),
        ("down", (0.5, 0.35), (0.5 * 192, 0.65 * 108)),
        ("still", (0.4, 0.6), (0.4 * 192, 0.6 * 108)),
    ],
)
def test_after_one_second_the_object_is_speed_further(
    direction: str, start: tuple[float, float], expected: tuple[float, float]
) -> None:
    scene = replace(SCENE, size="small", direction=direction, start=start)
    video = render(scene, n_frames=11, fps=10, width=192, height=108)
    assert video.shape == (11, 108, 192, 3)
    assert video.dtype == np.uint8
    assert centre(video[0], "red") == pytest.approx((start[0] * 192, start[1] * 108), abs=0.7)
    assert centre(video[10], "red") == pytest.approx(expected, abs=0.7)


@pytest.mark.parametrize("camera", ["static", "pan left", "pan right", "zoom in"])
def test_motion_is_a_function_of_time(camera: str) -> None:
    scene = replace(SCENE, camera=camera)
    slow = render(scene, n_frames=13, fps=24, width=64, height=64)
    fast = render(scene, n_frames=40, fps=30, width=64, height=64)
    np.testing.assert_array_equal(slow[12], fast[15])  # both at 0.5 s


def test_a_seed_looks_the_same_at_any_size() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        scene = draw_scene(rng)
        small = render(scene, n_frames=1, fps=1, width=96, height=54)[0]
        big = render(scene, n_frames=1, fps=1, width=384, height=216)[0]
        shrunk = cv2.resize(big, (96, 54), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - shrunk).mean() < 6


def test_an_object_that_leaves_comes_back_on_the_other_side() -> None:
    video = render(replace(SCENE, size="small"), n_frames=50, fps=10, width=64, height=64)
    x = [centre(picture, "red")[0] if mask(picture, "red").any() else None for picture in video]
    gone = x.index(None)
    back = next(i for i in range(gone, 50) if x[i] is not None)
    assert x[gone - 1] > 54  # type: ignore[operator]
    assert x[back] < 10  # type: ignore[operator]


# Area of the shape in units of its diameter squared, by hand from its corners.
AREAS = {"disc": 0.72, "ring": 0.59, "square": 0.67, "triangle": 0.46, "star": 0.37, "cross": 0.55}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_shape(kind: str) -> None:
    scene = replace(SCENE, kind=kind, colour="purple", direction="still", start=(0.5, 0.5))
    picture = render(scene, n_frames=1, fps=1, width=256, height=256)[0]
    diameter = 0.42 * 256
    assert mask(picture, "purple").sum() / diameter**2 == pytest.approx(AREAS[kind], rel=0.04)
    assert mask(picture, "purple")[128, 128] == (kind != "ring")


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_is_legible_on_every_background(colour: str) -> None:
    for background in BACKGROUNDS:
        for light in LIGHTS:
            scene = replace(
                SCENE, colour=colour, size="small", background=background, light=light, start=(0.5, 0.5)
            )
            picture = render(scene, n_frames=1, fps=1, width=32, height=32)[0].astype(int)
            middle = picture[15:17, 15:17].mean((0, 1))
            nearest = min(COLOURS, key=lambda name: np.abs(middle - np.array(RGB[name])).sum())
            assert nearest == colour
            # A dark line and a pale one around it part the object from any ground.
            across = render(scene, n_frames=1, fps=1, width=128, height=128)[0, 64].mean(-1)
            assert across[44:56].min() < 60
            assert across[44:56].max() > 180


@pytest.mark.parametrize(("camera", "shift"), [("pan right", -6.4), ("pan left", 6.4), ("static", 0.0)])
def test_a_pan_moves_the_background_the_other_way(camera: str, shift: float) -> None:
    scene = replace(SCENE, background="city street", size="small", camera=camera, camera_speed=0.05)
    out_of_sight = replace(scene, direction="still", start=(-0.12, 0.5))
    first, last = render(out_of_sight, n_frames=2, fps=2, width=256, height=144)
    before, after = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float32) for p in (first, last))
    (dx, dy), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow((256, 144), cv2.CV_32F))
    assert (dx, dy) == pytest.approx((shift, 0), abs=0.4)


def test_a_zoom_spreads_the_background_from_the_middle() -> None:
    scene = replace(SCENE, background="city street", camera="zoom in", camera_speed=0.05)
    out_of_sight = replace(scene, direction="still", size="small", start=(0.5, -0.12))
    first, last = render(out_of_sight, n_frames=2, fps=1, width=256, height=144)
    moved = []
    for part in (np.s_[:, :96], np.s_[:, 160:]):
        before, after = (cv2.cvtColor(p[part], cv2.COLOR_RGB2GRAY).astype(np.float32) for p in (first, last))
        window = cv2.createHanningWindow((96, 144), cv2.CV_32F)
        moved.append(cv2.phaseCorrelate(before, after, window)[0][0])
    # The parts' middles lie 80 pixels from the picture's, which grow by 5 %.
    assert moved == pytest.approx([-4, 4], abs=1.5)


def test_backgrounds_are_told_apart_at_32_pixels_in_any_light() -> None:
    def features(seeds: range) -> tuple[np.ndarray, np.ndarray]:
        pictures = [
            cv2.resize(paint(b, width=32, height=32, seed=s, light=LIGHTS[s % 3]), (8, 8)).ravel()
            for b in BACKGROUNDS
            for s in seeds
        ]
        return np.array(pictures, float), np.repeat(np.arange(6), len(seeds))

    known, names = features(range(60))
    seen, truth = features(range(60, 90))
    nearest = np.linalg.norm(seen[:, None] - known[None], axis=-1).argmin(1)
    assert (names[nearest] == truth).mean() >= 0.98
