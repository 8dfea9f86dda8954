"""The camera of rendered footage: every kind, slow and fast, over painted and real grounds, with an actor or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_views import Camera, film, painted_ground, pan, roll, shake, wide, zoom
from conftest import write_video

from curate.analysis import AnalysisConfig, analyse
from curate.camera import camera, camera_flow, camera_moves
from curate.frames import Video
from curate.motion import flow_fields, object_motion
from pipelines.demo.scene import draw_scene
from pipelines.demo.world import render

SIZE = (256, 144)
HZ = 8
Actor = Callable[[float], tuple[float, float]]


def seen(ground: np.ndarray, how: Camera, actor: Actor | None = None, size: float = 0.3):
    """The camera's kind and the object motion of two seconds."""
    pictures = film(ground, how, fps=HZ, seconds=2, size=SIZE, actor=actor, actor_size=size)
    return told([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])


def told(grays: list[np.ndarray]) -> tuple[str, float]:
    fields = flow_fields(grays, [i / HZ for i in range(len(grays))])
    moves = camera_moves(fields)
    return camera(moves, fields.times_s), object_motion(fields, camera_flow(fields, moves))


def cases(number: int) -> list[tuple[str, Camera]]:
    """Nine films of every kind of camera; speeds and directions differ from ground to ground."""
    rng = np.random.default_rng(number)
    side, speed = rng.choice([-1, 1], 6), rng.uniform(0.5, 1.5)
    return [
        ("pan", pan(side[0] * 6 * speed, 0.3 * side[1] * 6 * speed)),
        ("pan", pan(side[1] * 40 * speed, 5 * side[0])),
        ("tilt", pan(0.2 * side[2] * 5 * speed, side[3] * 5 * speed)),
        ("tilt", pan(0, side[4] * 30 * speed)),
        ("zoom_in", zoom(0.12 * speed)),
        ("zoom_out", zoom(-0.12 * speed)),
        ("roll", roll(side[5] * 10 * speed)),
        ("shake", shake(1.2 * speed, number)),
        ("static", pan()),
    ]


def real_grounds(footage: Path) -> list[np.ndarray]:
    grounds = []
    for path in sorted((footage / "clips").glob("*.mp4"))[::9]:
        with Video(str(path)) as video:
            picture = next(frame for frame in video.frames() if frame.time_s >= 0.5).picture()
        grounds.append(wide(cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)))
    return grounds


@pytest.mark.parametrize("with_actor", [False, True])
def test_camera_over_painted_grounds(with_actor: bool) -> None:
    wrong = []
    for number in range(4):
        ground = painted_ground(number)
        actor = (lambda t: (0.35 + 0.15 * t, 0.6 - 0.05 * t)) if with_actor else None
        for want, how in cases(number):
            got, _ = seen(ground, how, actor)
            if got != want:
                wrong.append((number, want, got))
    assert len(wrong) <= 1, wrong  # of 36


def test_camera_over_real_grounds(footage: Path) -> None:
    wrong = []
    grounds = real_grounds(footage)
    for number, ground in enumerate(grounds):
        for want, how in cases(number + 10):
            got, _ = seen(ground, how)
            if got != want:
                wrong.append((number, want, got))
    assert len(grounds) == 7
    assert len(wrong) <= 3, wrong  # of 63


def test_what_is_steady_and_what_is_both() -> None:
    ground = painted_ground(0)
    assert seen(ground, pan(20, 20))[0] == "mixed"
    assert seen(ground, pan(0.2))[0] == "static"
    # A quarter of a second of trembling now and then does not make a pan another thing.
    assert seen(ground, lambda t: pan(15)(t) if t < 1 else shake(0.1, 1)(t))[0] != "static"


def test_camera_survives_encoding(tmp_path: Path) -> None:
    for want, how in cases(3)[::2]:
        pictures = film(painted_ground(3), how, fps=24, seconds=1.5, size=(320, 180))
        path = write_video(tmp_path / "a.mp4", pictures, fps=24, options={"crf": "28", "preset": "veryfast"})
        (clip,) = analyse(str(path), "ab" * 16, AnalysisConfig()).clips
        assert clip["camera"] == want


def test_camera_of_the_procedural_world() -> None:
    """Its grounds are smooth and its object is large: the one with texture must not pass for the camera."""
    wrong, seen_kinds = [], set()
    for seed in range(40):
        scene = draw_scene(np.random.default_rng(seed), duration_s=2)
        pictures = render(scene, n_frames=16, fps=HZ, width=256, height=144)
        want = {"static": "static", "zoom in": "zoom_in"}.get(scene.camera, "pan")
        got, _ = told([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
        seen_kinds.add(want)
        if got != want:
            wrong.append((seed, want, got, scene.background))
    assert seen_kinds == {"static", "pan", "zoom_in"}
    assert len(wrong) <= 2, wrong  # of 40


def test_object_motion_is_what_the_camera_does_not_explain() -> None:
    """A disc of 0.6 heights covers 15.9 % of a 16:9 picture; 30 % of the width is 26.1 % of the diagonal."""
    ground = painted_ground(5)

    def actor(t: float) -> tuple[float, float]:
        return 0.25 + 0.3 * t, 0.5

    assert seen(ground, pan())[1] < 0.1
    assert seen(ground, pan(25))[1] < 0.5
    still = seen(ground, pan(), actor, 0.6)[1]
    assert still == pytest.approx(0.159 * 26.1, rel=0.25)
    # Seen through a moving camera the disc has the same path on the screen, and passes faster over the ground.
    assert seen(ground, pan(25), actor, 0.6)[1] == pytest.approx(0.159 * (26.1 + 25), rel=0.35)
