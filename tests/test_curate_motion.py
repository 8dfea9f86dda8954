"""Motion against rendered footage of known speed, in every codec and frame rate, and against a peer's ranking."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from camera_views import film, painted_ground, pan, roll, wide, zoom
from conftest import write_video

from curate.analysis import AnalysisConfig, analyse
from curate.camera import camera_flow, camera_moves
from curate.frames import Video
from curate.motion import flow_fields, motion

SOURCE = "0123456789abcdef" * 2
SIZE = (256, 144)
DIAGONAL = float(np.hypot(*SIZE))
ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "23"},
    "libx265": {"preset": "ultrafast", "crf": "25", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
    "libsvtav1": {"preset": "12", "crf": "32"},
    "mpeg4": {"qscale": "4", "flags": "+qscale"},
}


def grays(pictures: np.ndarray) -> list[np.ndarray]:
    return [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]


def rendered(camera, *, hz: float = 8, seconds: float = 1.5, **more) -> tuple[list[np.ndarray], list[float]]:
    pictures = film(painted_ground(0), camera, fps=hz, seconds=seconds, size=SIZE, **more)
    return grays(pictures), [i / hz for i in range(len(pictures))]


def speed_of(pictures: list[np.ndarray], times_s: list[float]) -> float:
    fields = flow_fields(pictures, times_s)
    return motion(fields, camera_flow(fields, camera_moves(fields)))


def motion_of(path: Path) -> float:
    """Of the only shot, or the longest."""
    clips = analyse(str(path), SOURCE, AnalysisConfig()).clips
    return max(clips, key=lambda clip: clip["n_frames"])["motion"]


@pytest.mark.parametrize("speed", [3, 20, 50, 96, 150])
@pytest.mark.parametrize("direction_deg", [0, 65, 200])
def test_motion_of_a_pan_is_its_speed(speed: float, direction_deg: float) -> None:
    x, y = np.cos(np.radians(direction_deg)), np.sin(np.radians(direction_deg))
    assert speed_of(*rendered(pan(speed * x, speed * y))) == pytest.approx(speed, rel=0.1)


def test_motion_does_not_depend_on_how_often_it_is_sampled() -> None:
    for hz in (4, 8, 16):
        assert speed_of(*rendered(pan(24, 8), hz=hz)) == pytest.approx(np.hypot(24, 8), rel=0.05)
    pictures, times_s = rendered(pan(24, 8), hz=16)
    uneven = [0, 1, 4, 5, 8, 11, 12, 15, 18, 19, 22]
    found = speed_of([pictures[i] for i in uneven], [times_s[i] for i in uneven])
    assert found == pytest.approx(np.hypot(24, 8), rel=0.05)


def test_motion_of_a_turning_picture_is_its_points_mean_speed() -> None:
    """20 degrees a second; the mean distance of a point of a 16:9 picture from its centre is 0.265 diagonals."""
    expected = np.radians(20) * 26.5
    assert speed_of(*rendered(roll(20))) == pytest.approx(expected, rel=0.1)


def test_a_still_picture_with_noise_has_no_motion() -> None:
    pictures, times_s = rendered(pan())
    rng = np.random.default_rng(0)
    noisy = [np.clip(p + rng.normal(0, 2, p.shape), 0, 255).astype(np.uint8) for p in pictures]
    assert speed_of(noisy, times_s) < 0.3


def test_small_and_odd_pictures_are_no_trouble() -> None:
    pictures, times_s = rendered(pan(10))
    for height, width in ((144, 3), (5, 256), (1, 1), (31, 33), (47, 100)):
        parts = [np.ascontiguousarray(picture[:height, :width]) for picture in pictures]
        assert 0 <= speed_of(parts, times_s) < 100


SCENES = {
    "pan": (pan(18, 4), None),
    "fast pan": (pan(80), None),
    "moving object": (pan(), lambda t: (0.3 + 0.2 * t, 0.5)),
    "zoom": (zoom(0.25), None),
}


@pytest.mark.parametrize("scene", SCENES)
def test_motion_is_the_same_in_every_codec_and_frame_rate(scene: str, tmp_path: Path) -> None:
    camera, actor = SCENES[scene]
    found = {}
    for fps in (24, 30, 60):
        pictures = film(
            painted_ground(1), camera, fps=fps, seconds=1.25, size=SIZE, actor=actor, actor_size=0.6
        )
        for codec, options in ENCODERS.items():
            if codec in av.codecs_available:
                path = tmp_path / f"{codec}{fps}.mkv"
                found[codec, fps] = motion_of(
                    write_video(path, pictures, fps=fps, codec=codec, options=options)
                )
    middle = float(np.median(list(found.values())))
    assert {key: value for key, value in found.items() if abs(value / middle - 1) > 0.1} == {}
    assert len(found) >= 6


@pytest.mark.parametrize("name", ["AIyw1FO1aqs_57", "IBvtoadHBPA_14", "pKIEP-MOCu0_47"])
def test_motion_of_real_footage_is_the_same_in_every_codec_and_frame_rate(
    name: str, footage: Path, tmp_path: Path
) -> None:
    with Video(str(footage / f"clips/{name}.mp4")) as video:  # 59.94 frames a second, none of them repeated
        source = [
            (frame.time_s, frame.picture(height=SIZE[1])) for frame in video.frames() if frame.time_s < 1.5
        ]
    found = {}
    for fps in (24, 30, 60):
        shown = [min(source, key=lambda one: abs(one[0] - i / fps))[1] for i in range(round(1.5 * fps))]
        for codec, options in ENCODERS.items():
            if codec in av.codecs_available:
                path = tmp_path / f"{codec}{fps}.mkv"
                found[codec, fps] = motion_of(
                    write_video(path, np.stack(shown), fps=fps, codec=codec, options=options)
                )
    middle = float(np.median(list(found.values())))
    assert {key: value for key, value in found.items() if abs(value / middle - 1) > 0.1} == {}


def test_still_footage_is_still_in_every_codec(tmp_path: Path) -> None:
    pictures = film(painted_ground(2), pan(), fps=30, seconds=1, size=SIZE)
    for codec, options in ENCODERS.items():
        if codec in av.codecs_available:
            path = write_video(tmp_path / f"{codec}.mkv", pictures, fps=30, codec=codec, options=options)
            assert motion_of(path) < 0.3, codec


def test_motion_ranks_a_peers_videos_as_the_peer_does(footage: Path) -> None:
    """Data-Juicer's Farneback at 2 fps gives 1.869, 3.521 and 1.173 px for these."""
    found = []
    for number in (1, 2, 3):
        clips = analyse(str(footage / f"long/dj_video{number}.mp4"), SOURCE, AnalysisConfig()).clips
        frames = [clip["n_frames"] for clip in clips]
        found.append(float(np.average([clip["motion"] or 0 for clip in clips], weights=frames)))
    assert found[1] > found[0] > found[2]


def test_codec_vectors_agree_with_flow_and_fall_back_to_it(tmp_path: Path) -> None:
    flow, codec = [], []
    for speed in (0, 4, 10, 25, 60):
        pictures = film(painted_ground(3), pan(speed), fps=25, seconds=1, size=SIZE)
        path = str(write_video(tmp_path / f"{speed}.mp4", pictures))
        (clip,) = analyse(path, SOURCE, AnalysisConfig()).clips
        flow.append(clip["motion"])
        (clip,) = analyse(path, SOURCE, AnalysisConfig(motion_source="codec")).clips
        codec.append(clip["motion"])
        assert clip["motion_source"] == "codec"
    assert np.argsort(codec).tolist() == [0, 1, 2, 3, 4]
    assert codec == pytest.approx(flow, rel=0.25, abs=0.5)
    for name in ("libx265", "libvpx-vp9", "libsvtav1"):
        if name in av.codecs_available:
            path = str(
                write_video(tmp_path / f"{name}.mkv", pictures, fps=25, codec=name, options=ENCODERS[name])
            )
            (clip,) = analyse(path, SOURCE, AnalysisConfig(motion_source="codec")).clips
            assert clip["motion_source"] == "flow"
            assert clip["motion"] == pytest.approx(60, rel=0.1)


def test_codec_vectors_of_intra_frames_only_fall_back_to_flow(tmp_path: Path) -> None:
    pictures = film(painted_ground(3), pan(20), fps=25, seconds=1, size=SIZE)
    path = write_video(tmp_path / "a.mp4", pictures, options={"g": "1", "preset": "veryfast"})
    (clip,) = analyse(str(path), SOURCE, AnalysisConfig(motion_source="codec")).clips
    assert (clip["motion_source"], clip["camera"]) == ("flow", "pan")


def test_codec_vectors_tell_the_camera_of_a_turned_video(tmp_path: Path, footage: Path) -> None:
    path = str(footage / "edge/rotated_phone.mp4")
    flow = analyse(path, SOURCE, AnalysisConfig()).clips
    codec = analyse(path, SOURCE, AnalysisConfig(motion_source="codec")).clips
    assert [clip["motion_source"] for clip in codec] == ["codec"] * len(flow)
    for one, other in zip(flow, codec, strict=True):
        assert other["motion"] == pytest.approx(one["motion"], rel=0.6, abs=1.0)


def test_wide_is_large_enough() -> None:
    assert wide(np.zeros((360, 640, 3), np.uint8)).shape == (1080, 1920, 3)
