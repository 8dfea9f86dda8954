"""What videos are measured by: direction by flow, flicker, Fréchet distance; and that a perfect model would pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.demo.prompts import VALUES
from pipelines.demo.world import Scene, draw_scene, render, stand_still
from pipelines.evaluate import EvaluateConfig
from pipelines.evaluate_flicker import flicker
from pipelines.evaluate_flow import object_course, object_direction
from pipelines.evaluate_frechet import frechet_distance
from pipelines.evaluate_judge import Judge, views
from pipelines.evaluate_models import Setting
from pipelines.evaluate_shares import blind_guess, figures, shares, standard_error
from pipelines.evaluate_table import share_told
from pipelines.evaluate_world import Measured, examined, held_out_prompts, true_clip

#: Scenes that no threshold was ever looked at with.
UNSEEN, COUNT = 20261126, 120
SETTING = Setting(frames=9, height=64, width=64, fps=6.0, vae="none")


@pytest.mark.parametrize(("width", "height", "frames", "fps"), [(64, 64, 9, 6.0), (80, 48, 17, 8.0)])
def test_flow_sees_which_way_the_object_moves_whatever_the_camera_does(
    width: int, height: int, frames: int, fps: float
) -> None:
    right = 0
    for number in range(COUNT):
        scene = draw_scene(np.random.default_rng((UNSEEN, number)), duration_s=frames / fps)
        video = render(scene, n_frames=frames, fps=fps, width=width, height=height)
        right += object_direction(video, fps) == scene.direction
    assert right / COUNT >= 0.95


@pytest.mark.parametrize("camera", ["static", "pan left", "pan right", "zoom in"])
def test_a_moving_camera_alone_moves_no_object(camera: str) -> None:
    scene = stand_still(Scene("star", "red", "large", "left", "city street"))
    video = render(replace(scene, camera=camera), n_frames=9, fps=6, width=64, height=64)
    assert object_direction(video, 6.0) == "still"
    assert object_direction(video[:1], 6.0) is None


def test_flow_sees_a_shape_that_is_as_bright_as_the_ground() -> None:
    rng = np.random.default_rng(0)
    video = np.repeat(rng.integers(90, 110, (1, 64, 64, 1)), 9, axis=0).repeat(3, axis=3).astype(np.uint8)
    for i in range(9):
        x = 8 + 4 * i
        video[i, 24:40, x : x + 16] = (155, 80, 60)  # luma 100
    assert object_direction(video, 6.0) == "right"


def test_a_course_has_the_length_that_the_object_went() -> None:
    scene = Scene("square", "red", "large", "right", "blue sea", start=(0.3, 0.5), speed=0.3)
    course = object_course(render(scene, n_frames=9, fps=6, width=96, height=64), 6.0)
    assert course.shape == (9, 2)
    assert course[-1] == pytest.approx((0.4, 0.0), abs=0.06)  # 0.3 of the width a second, 8/6 seconds


def test_flicker_is_zero_where_nothing_comes_back_and_grows_with_noise() -> None:
    still = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8).repeat(6, axis=0)
    assert flicker(still) == 0
    fading = np.linspace(0, 255, 6)[:, None, None, None] * np.ones((1, 4, 4, 3))
    assert flicker(fading.astype(np.uint8)) == 0
    blinking = still.copy()
    blinking[2] = 255 - still[2]  # comes and goes: frame 2 alone differs from its neighbours
    jump = np.abs(255 - 2 * still[0].astype(float)).mean()
    assert flicker(blinking) == pytest.approx(jump / 4)  # of four frames that have two neighbours
    assert flicker(still[:2]) is None
    rng, grey = np.random.default_rng(1), np.full((6, 32, 32, 3), 128.0)
    found = [flicker(np.round(grey + rng.normal(0, s, grey.shape)).astype(np.uint8)) for s in (2, 4, 8)]
    # The range of three normal draws is 3 s / √π on average, and one in three draws is at either end.
    assert found == pytest.approx([s / np.pi**0.5 for s in (2, 4, 8)], rel=0.05)


def test_frechet_distance_of_equal_sets_and_by_hand() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    trace = float(np.trace(np.cov(x, rowvar=False)))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * trace)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9 * trace)
    shift = np.array([3.0, 0, 4, 0, 0, 0])
    assert frechet_distance(x, x + shift) == pytest.approx(25)
    # 3x has nine times the covariance C: tr(C + 9C - 2·3C) = 4 tr C.
    centred = x - x.mean(axis=0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * trace)
    # Independent axes: the sum of (s1 - s2)² of the axes.
    one = np.array([[-1.0, -2], [-1, 2], [1, -2], [1, 2]])
    two = np.array([[-3.0, -1], [-3, 1], [3, -1], [3, 1]])
    assert frechet_distance(one, two) == pytest.approx((4 / 3) * ((1 - 3) ** 2 + (2 - 1) ** 2))
    assert frechet_distance(x[:3], x[3:6]) > 0  # fewer rows than columns: covariances without an inverse
    with pytest.raises(ValueError, match="at least two rows"):
        frechet_distance(x[:1], x)


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    """True renderings in the place of sampled videos, each for its own prompt, and each for another one's."""
    prompts = held_out_prompts(EvaluateConfig("", prompts=48), SETTING)
    clips = {id(prompt): true_clip(prompt, SETTING) for prompt in prompts}
    other = {id(a): clips[id(b)] for a, b in zip(prompts, prompts[7:] + prompts[:7], strict=True)}
    judge = Judge()
    true = judge.features(list(clips.values()))
    return {
        name: examined(
            None, SETTING, prompts, lambda batch, v=videos: [v[id(p)] for p in batch], judge, true, 20
        )
        for name, videos in {"perfect": clips, "shuffled": other}.items()
    }


def test_a_perfect_model_gets_nearly_everything_and_a_shuffled_one_what_a_guess_gets(
    measured: dict[str, Measured],
) -> None:
    perfect, shuffled = figures(measured["perfect"]), figures(measured["shuffled"])
    guess = blind_guess(measured["perfect"].prompts)
    for judge in ("captioner", "pixels"):
        assert perfect[judge]["all"]["accuracy"] > 0.95
        assert min(one["accuracy"] for one in perfect[judge].values()) > 0.85
        assert shuffled[judge]["all"]["accuracy"] == pytest.approx(guess["all"], abs=0.12)
        assert perfect[judge]["all"]["asked"] == 5 * 48
    assert perfect["flow"]["direction"]["accuracy"] > 0.93
    assert shuffled["flow"]["direction"]["accuracy"] < 0.45
    # The same set of clips in another order: no distance between sets can tell.
    assert perfect["coca_frechet"] == pytest.approx(0, abs=1e-3)
    assert shuffled["coca_frechet"] == pytest.approx(0, abs=1e-3)
    assert perfect["flicker"] == shuffled["flicker"] > 0


def test_broken_videos_are_further_away_and_flicker(measured: dict[str, Measured]) -> None:
    prompts, judge, rng = measured["perfect"].prompts[:24], Judge(), np.random.default_rng(0)
    clips = [true_clip(prompt, SETTING) for prompt in prompts]
    true = judge.features(clips)
    noisy = [np.clip(clip + rng.normal(0, 30, clip.shape), 0, 255).astype(np.uint8) for clip in clips]
    whole, broken = (
        figures(examined(None, SETTING, prompts, lambda _, v=videos: v, judge, true, 24))
        for videos in (clips, noisy)
    )
    assert broken["coca_frechet"] > 10 * max(whole["coca_frechet"], 0.01)
    assert broken["flicker"] > whole["flicker"] + 5


def test_prompts_are_held_out_and_a_function_of_the_seed() -> None:
    from pipelines.demo.world import is_held_out

    config = EvaluateConfig("", prompts=30)
    prompts = held_out_prompts(config, SETTING)
    assert prompts == held_out_prompts(config, SETTING)
    assert prompts[:10] == held_out_prompts(replace(config, prompts=10), SETTING)
    assert not {p.text for p in prompts} & {
        p.text for p in held_out_prompts(replace(config, seed=1), SETTING)
    }
    scenes = [prompt.scene for prompt in prompts]
    assert all(is_held_out(scene.kind, scene.colour, scene.background) for scene in scenes)
    assert {scene.camera for scene in scenes} > {"static"}
    still = held_out_prompts(replace(config, cameras="still"), SETTING)
    assert {(prompt.scene.camera, prompt.scene.light) for prompt in still} == {("static", "soft")}
    assert len({prompt.seed for prompt in prompts}) == 30
    assert all(len(prompt.asked) == 5 for prompt in prompts)


def test_the_distance_sees_time() -> None:
    """True clips of which all objects go left against the same ones, their frames in another order or changed."""
    prompts, rng = held_out_prompts(EvaluateConfig("", prompts=96), SETTING), np.random.default_rng(0)
    lefts = [
        replace(p.scene, direction="left", start=(0.8, p.scene.start[1]), camera="static") for p in prompts
    ]
    clips = [render(scene, n_frames=9, fps=6, width=64, height=64) for scene in lefts]
    judge, every = Judge(), np.arange(9)
    features = judge.features(clips)
    true, other = features[:48], features[48:]
    assert true.shape == (48, 2 * 128)
    floor = frechet_distance(other, true)  # of other scenes that move alike

    def distance(order: np.ndarray | None = None, even: float = 1) -> float:
        changed = [clip[rng.permutation(9) if order is None else order].copy() for clip in clips[:48]]
        for clip in changed:
            clip[::2] = clip[::2] * even  # four moments of nine frames are odd ones and see nothing of it
        return frechet_distance(judge.features(changed), true)

    found = {
        "the same": distance(every),
        "reversed": distance(every[::-1]),
        "frozen": distance(every * 0 + 4),
        "shuffled": distance(),
        "every second frame black": distance(every, even=0),
        "every second frame dim": distance(every, even=0.5),
    }
    assert found.pop("the same") == 0
    assert min(found.values()) > 2 * floor, (floor, found)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7, 8, 9, 17, 33])
def test_views_hold_every_frame(frames: int) -> None:
    video = np.arange(frames)[:, None, None, None]
    found = [view.ravel().tolist() for view in views(video)]
    assert {number for view in found for number in view} == set(range(frames))
    assert {len(view) for view in found} == {min(4, frames)}
    if frames == 9:
        assert found == [[0, 2, 4, 6], [1, 3, 5, 7], [2, 4, 6, 8]]


def test_shares_by_hand() -> None:
    asked = [
        {"kind": "disc", "size": "large"},
        {"kind": "star"},
        {"kind": "ring", "size": "small"},
        {"kind": "cross"},
    ]
    seen: list[dict[str, str | None]] = [
        {"kind": "disc", "size": "large"}, {"kind": "star", "size": None}, {"kind": "ring", "size": None},
        {"kind": None, "size": "small"},
    ]  # fmt: skip
    found = shares(asked, [{**dict.fromkeys(VALUES), **one} for one in seen])
    assert found["kind"] == {
        "asked": 4,
        "right": 3,
        "none": 1,
        "accuracy": 0.75,
        "error": pytest.approx((0.75 * 0.25 / 4) ** 0.5),
    }
    assert found["size"]["accuracy"] == 0.5
    assert (found["colour"]["accuracy"], found["colour"]["error"]) == (None, None)
    assert found["all"]["accuracy"] == 4 / 6
    # 2 of 2, 1 of 1, 1 of 2 and 0 of 1 right: off by 2/3, 1/3, -1/3 and -2/3.
    assert found["all"]["error"] == pytest.approx((10 / 9) ** 0.5 / 6)


def test_attributes_that_are_right_together_tell_no_more_than_one() -> None:
    """The error is the spread of shares over other prompts, which independent attributes would halve and more."""
    rng = np.random.default_rng(0)
    right = 5 * (rng.random((4000, 100)) < 0.7)  # per video all five or none
    spread = right.sum(axis=1).std() / 500
    assert standard_error([(int(one), 5) for one in right[0]]) == pytest.approx(spread, rel=0.15)
    assert standard_error([(5, 5)]) is None


def test_shares_are_told_with_their_errors() -> None:
    assert share_told({"accuracy": 0.74, "error": 0.0196}) == "0.740 ± 0.020"
    assert share_told({"accuracy": 1 / 6, "error": None}) == "0.167"
    assert share_told({"accuracy": None, "error": None}) == "–"
