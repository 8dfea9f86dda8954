"""Shots, scores and borders against footage whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import moving_square, write_video

from curate.analysis import AnalysisConfig, analyse, clip_id
from curate.measures import borders, motion, phash, shot_scores
from curate.shots import ShotConfig

SOURCE = "0123456789abcdef" * 2


def test_cut_is_found_at_its_frame(tmp_path: Path) -> None:
    pictures = np.concatenate([moving_square(40, seed=1), 255 - moving_square(35, seed=2)])
    result = analyse(str(write_video(tmp_path / "a.mp4", pictures)), SOURCE, AnalysisConfig())
    assert [(c["start_s"], c["end_s"], c["n_frames"]) for c in result.clips] == [(0, 1.6, 40), (1.6, 3.0, 35)]
    assert [c["transition_in"] for c in result.clips] == ["edge", "cut"]
    assert result.facts["n_frames"] == 75
    assert result.facts["is_vfr"] is False


def test_long_shot_is_divided_and_no_frame_is_lost(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_square(130), fps=25)
    result = analyse(str(path), SOURCE, AnalysisConfig(shots=ShotConfig(max_s=2.0)))
    spans = [(c["start_s"], c["end_s"]) for c in result.clips]
    assert spans == [(0.0, 2.0), (2.0, pytest.approx(3.6)), (pytest.approx(3.6), pytest.approx(5.2))]
    assert sum(c["n_frames"] for c in result.clips) == 130
    assert [c["transition_out"] for c in result.clips] == ["division", "division", "edge"]


def test_hard_cuts_of_the_reel(footage: Path) -> None:
    truth = json.loads((footage / "reels/hard.json").read_text())["boundaries"]
    found = [
        c["end_s"] for c in analyse(str(footage / "reels/hard.mp4"), SOURCE, AnalysisConfig()).clips[:-1]
    ]
    hits = sum(any(b["start"] - 0.08 <= f <= b["end"] + 0.08 for f in found) for b in truth)
    assert (hits, len(truth)) == (35, 35)
    assert len(found) - hits <= 1


@pytest.mark.parametrize("step", [1, 2])
def test_motion_of_a_pan_is_its_speed_and_does_not_depend_on_the_frame_rate(step: int) -> None:
    """A picture that slides 60 * step pixels a second over a diagonal of 186.6: 32.2 % a second per step."""
    wide = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 800)).astype(np.uint8), (9, 9), 0)
    speeds = []
    for fps in (30, 60):
        offsets = [60 * step * i / fps for i in range(fps)]
        grays = [np.ascontiguousarray(wide[:, round(x) : round(x) + 160]) for x in offsets[:: fps // 15]]
        times = [i / fps for i in range(0, fps, fps // 15)]
        speeds.append(motion(grays, times))
    assert speeds[0] == pytest.approx(speeds[1], rel=0.1)
    assert speeds[0] == pytest.approx(100 * 60 * step / np.hypot(160, 96), rel=0.15)


def test_still_footage_has_no_motion(tmp_path: Path) -> None:
    pictures = np.repeat(moving_square(1), 40, 0)
    (clip,) = analyse(str(write_video(tmp_path / "a.mp4", pictures)), SOURCE, AnalysisConfig()).clips
    assert clip["motion"] < 0.1
    assert clip["static_ratio"] == 1.0


def test_light(tmp_path: Path) -> None:
    grays = [np.full((144, 256), value, np.uint8) for value in (0, 0, 100, 100)]
    scores, errors = shot_scores(grays, [0, 0.125, 0.25, 0.375])
    assert scores["luma"] == 50.0
    assert scores["black_ratio"] == 0.5
    assert errors == {}


def test_scores_that_cannot_be_had_are_null_with_a_reason() -> None:
    scores, errors = shot_scores([np.full((144, 256), 90, np.uint8)], [0.0])
    assert scores["motion"] is None
    assert "two sampled pictures" in errors["motion"]
    assert scores["luma"] == 90.0


@pytest.mark.parametrize(("top", "left"), [(18, 0), (0, 32), (18, 32)])
def test_borders(top: int, left: int) -> None:
    gray = np.random.default_rng(0).integers(60, 200, (144, 256)).astype(np.uint8)
    bars = np.zeros_like(gray)
    bars[top : 144 - top, left : 256 - left] = gray[top : 144 - top, left : 256 - left]
    assert borders([bars, bars]) == (left, top, 256 - 2 * left, 144 - 2 * top)


def test_crop_is_in_pixels_of_the_displayed_picture(tmp_path: Path) -> None:
    pictures = np.repeat(np.repeat(moving_square(40), 4, 1), 4, 2)  # 640 x 384
    pictures[:, :64] = 0
    pictures[:, -64:] = 0
    (clip,) = analyse(str(write_video(tmp_path / "a.mp4", pictures)), SOURCE, AnalysisConfig()).clips
    crop = clip["crop"]
    assert (crop["x"], crop["w"]) == (0, 640)
    assert abs(crop["y"] - 64) <= 4
    assert abs(crop["y"] + crop["h"] - 320) <= 4
    assert crop["y"] >= 64  # never a line of the bar


def test_phash_survives_a_resize_and_tells_pictures_apart() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        cv2.GaussianBlur(rng.integers(0, 255, (144, 256)).astype(np.uint8), (31, 31), 0) for _ in "ab"
    )
    small = cv2.resize(one, (128, 72), interpolation=cv2.INTER_AREA)

    def bits(a: str, b: str) -> int:
        return (int(a, 16) ^ int(b, 16)).bit_count()

    assert bits(phash(one), phash(small)) <= 4
    assert bits(phash(one), phash(other)) >= 20


def test_clip_id_is_a_function_of_source_and_span() -> None:
    assert clip_id(SOURCE, 0.0, 1.6) == clip_id(SOURCE, 0.0, 1.6000000001)
    assert clip_id(SOURCE, 0.0, 1.6) != clip_id(SOURCE, 0.0, 1.64)
    assert clip_id(SOURCE, 0.0, 1.6).startswith("0123456789abcdef")
