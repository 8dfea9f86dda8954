"""Shots, scores and borders against footage whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import moving_square, write_video

from curate.analysis import AnalysisConfig, _Shots, analyse, clip_id
from curate.frames import Frame, Video
from curate.measures import SCORES, Kept, sharpness, shot_scores
from curate.shots import ShotConfig
from curate.tables import CLIPS, SOURCES, describe

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
    assert [span[0] for span in spans[1:]] == [span[1] for span in spans[:-1]]
    assert (spans[0][0], len(spans), spans[-1][1]) == (0.0, 3, pytest.approx(5.2))
    assert all(1.2 <= end - start <= 2.0 for start, end in spans)
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


def test_still_footage_has_no_motion(tmp_path: Path) -> None:
    pictures = np.repeat(moving_square(1), 40, 0)
    (clip,) = analyse(str(write_video(tmp_path / "a.mp4", pictures)), SOURCE, AnalysisConfig()).clips
    assert clip["motion"] < 0.1
    assert clip["static_ratio"] == 1.0


def test_light() -> None:
    grays = [np.full((144, 256), value, np.uint8) for value in (0, 0, 100, 100)]
    scores, errors = shot_scores(Kept(grays, [0, 0.125, 0.25, 0.375]), (1280, 720))
    assert scores["luma"] == 50.0
    assert scores["black_ratio"] == 0.5
    assert scores["static_ratio"] == pytest.approx(2 / 3)
    assert scores["crop"] == {"x": 0, "y": 0, "w": 1280, "h": 720}
    assert scores["sharpness"] == 0.0
    assert set(errors) == {"camera", "object_motion", "overlay_area"}
    assert errors["camera"] == "too little texture to follow: 0.0 % of the picture"


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """A chessboard of single pixels 0 and 10: the Laplacian is 40 or -40 everywhere, its variance 1600."""
    board = (np.indices((144, 256)).sum(0) % 2 * 10).astype(np.uint8)
    assert sharpness(board) == pytest.approx(1600)
    assert sharpness(cv2.GaussianBlur(board, (5, 5), 0)) < 10


def test_luma_spans_0_to_255_in_limited_and_full_range(tmp_path: Path) -> None:
    pictures = np.concatenate([np.zeros((8, 96, 160, 3), np.uint8), np.full((8, 96, 160, 3), 255, np.uint8)])
    for pixel in ("yuv420p", "yuvj420p"):
        path = str(write_video(tmp_path / f"{pixel}.mp4", pictures, fps=16, pixel=pixel))
        black, white = analyse(path, SOURCE, AnalysisConfig()).clips
        assert (black["luma"], black["black_ratio"]) == (pytest.approx(0, abs=0.5), 1.0)
        assert (white["luma"], white["black_ratio"]) == (pytest.approx(255, abs=1), 0.0)


def test_scores_that_cannot_be_had_are_null_with_a_reason() -> None:
    scores, errors = shot_scores(Kept([np.full((144, 256), 90, np.uint8)], [0.0]), (640, 360))
    assert scores["motion"] is None
    assert "two sampled pictures" in errors["motion"]
    assert scores["luma"] == 90.0
    assert {name for name, value in scores.items() if value is None} == set(errors)
    scores, errors = shot_scores(Kept([], []), (640, 360))
    assert set(scores.values()) == {None}
    assert set(scores) == set(errors)


def test_every_score_is_a_column_with_a_description() -> None:
    described = describe(CLIPS)
    assert [name for name in SCORES if not described[name]] == []
    assert describe(SOURCES)["decode_passes"]


def test_a_source_is_decoded_once_and_opened_once(tmp_path: Path) -> None:
    class Counting(Video):
        opened = 0

        def __init__(self, path: str, *, threads: int = 1) -> None:
            Counting.opened += 1
            super().__init__(path, threads=threads)

    pictures = np.concatenate([moving_square(40, seed=1), 255 - moving_square(35, seed=2)])
    path = str(write_video(tmp_path / "a.mp4", pictures))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.analysis.Video", Counting)
        for source in ("flow", "codec"):
            result = analyse(path, SOURCE, AnalysisConfig(motion_source=source))
            assert len(result.clips) == 2
            assert result.facts["decode_passes"] == 1
    assert Counting.opened == 2


def test_threads_do_not_change_a_figure(tmp_path: Path) -> None:
    pictures = np.concatenate([moving_square(60, seed=1), 255 - moving_square(45, seed=2)])
    path = str(write_video(tmp_path / "a.mp4", np.repeat(np.repeat(pictures, 2, 1), 2, 2)))
    one = analyse(path, SOURCE, AnalysisConfig(threads=1))
    two = analyse(path, SOURCE, AnalysisConfig(threads=2))
    assert one == two
    assert len(one.clips) == 2


def clock(n_frames: int, height: int, width: int) -> np.ndarray:
    """A still ground whose upper left quarter grows lighter by one level a frame, from 20: it tells the frame."""
    ground = np.random.default_rng(0).integers(60, 180, (height, width, 3)).astype(np.uint8)
    pictures = np.repeat(cv2.GaussianBlur(ground, (5, 5), 0)[None], n_frames, 0)
    for i in range(n_frames):
        pictures[i, : height // 2, : width // 2] = 20 + i
    return pictures


def clock_frames(keyframes: list[bytes]) -> list[float]:
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in keyframes]
    return [float(picture[20:90, 20:90].mean()) - 20 for picture in decoded]


def test_keyframes_lie_at_even_centres_and_at_the_edges_if_wanted(tmp_path: Path) -> None:
    """10 s, candidates every 0.25 s."""
    path = str(write_video(tmp_path / "a.mp4", clock(200, 96, 160), fps=20))

    def times(config: AnalysisConfig) -> list[float]:
        (keyframes,) = analyse(path, SOURCE, config).keyframes
        assert cv2.imdecode(np.frombuffer(keyframes[0], np.uint8), cv2.IMREAD_COLOR).shape == (224, 374, 3)
        return [frame / 20 for frame in clock_frames(keyframes)]

    assert times(AnalysisConfig()) == pytest.approx([10 / 6, 5, 50 / 6], abs=0.2)
    found = times(AnalysisConfig(edge_keyframes=True))
    assert found == pytest.approx([0.5, 10 / 6, 5, 50 / 6, 9.5], abs=0.2)


def test_what_is_kept_of_a_long_shot_is_bounded(tmp_path: Path) -> None:
    """38 s without a cut, 152 candidates at 4 a second: never more than 64 at a time, and still even keyframes."""
    path = str(write_video(tmp_path / "a.mp4", np.repeat(clock(190, 64, 96), 2, 0), fps=10))
    most = 0

    class Watching(_Shots):
        def push(self, frame: Frame) -> None:
            nonlocal most
            super().push(frame)
            most = max(most, sum(sample.planes is not None for sample in self._open))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.analysis._Shots", Watching)
        patch.setattr("curate.analysis.MOST_CANDIDATES", 64)
        (keyframes,) = analyse(path, SOURCE, AnalysisConfig(shots=ShotConfig(max_s=40))).keyframes
    assert most == 64
    found = [frame / 5 for frame in clock_frames(keyframes)]
    assert found == pytest.approx([38 / 6, 19, 5 * 38 / 6], abs=0.8)


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


def test_clip_id_is_a_function_of_source_and_span() -> None:
    assert clip_id(SOURCE, 0.0, 1.6) == clip_id(SOURCE, 0.0, 1.6000000001)
    assert clip_id(SOURCE, 0.0, 1.6) != clip_id(SOURCE, 0.0, 1.64)
    assert clip_id(SOURCE, 0.0, 1.6).startswith("0123456789abcdef")
