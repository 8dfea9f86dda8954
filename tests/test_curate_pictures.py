"""Small pictures straight from decoded planes, against the picture that FFmpeg itself converts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_video

from curate.ahead import decoded_ahead
from curate.frames import Frame, Video
from curate.pictures import Shrink, shot_picture


def four_corners(width: int = 320, height: int = 180) -> np.ndarray:
    """Red, green; blue, white: one quarter each, with a black line between."""
    picture = np.zeros((height, width, 3), np.uint8)
    down, across = height // 2, width // 2
    picture[:down, :across] = (200, 30, 30)
    picture[:down, across:] = (30, 200, 30)
    picture[down:, :across] = (30, 30, 200)
    picture[down:, across:] = 230
    return picture


def first_frame(path: Path) -> Frame:
    with Video(str(path)) as video:
        return next(iter(video.frames()))


@pytest.mark.parametrize(
    ("pixel", "codec"),
    [
        ("yuv420p", "libx264"),
        ("yuv422p", "libx264"),
        ("yuv444p", "libx264"),
        ("yuv420p10le", "libx264"),
        ("yuvj420p", "libx264"),
        ("rgb24", "png"),
        ("gray", "png"),
    ],
)
def test_colours_and_places_in_every_pixel_format(pixel: str, codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", np.stack([four_corners()] * 2), codec=codec, pixel=pixel)
    frame = first_frame(path)
    assert frame.raw.format.name == pixel
    tiny = shot_picture(frame)
    assert tiny.shape == (27, 48, 3)
    truth = {(6, 12): (200, 30, 30), (6, 36): (30, 200, 30), (20, 12): (30, 30, 200), (20, 36): (230,) * 3}
    for (y, x), colour in truth.items():
        wanted = [round(float(np.dot(colour, (0.299, 0.587, 0.114))))] * 3 if pixel == "gray" else colour
        assert np.abs(tiny[y, x].astype(int) - wanted).max() <= 6, (y, x, tiny[y, x])
    shrink = Shrink(frame)
    luma = shrink(frame).luma()
    assert luma.shape == (144, 256)
    assert abs(int(luma[110, 190]) - 230) <= 3
    bgr = shrink(frame).planes().bgr(398, 224)
    assert bgr.shape == (224, 398, 3)
    if pixel != "gray":
        assert np.abs(bgr[50, 100].astype(int) - (30, 30, 200)).max() <= 6


@pytest.mark.parametrize(
    "name",
    [
        "edge/rotation_90.mov",
        "edge/rotation_180.mov",
        "edge/rotation_270.mov",
        "edge/rotated_phone.mp4",
        "edge/av1_video.mkv",
        "edge/h264_10bits.mp4",
        "edge/bt709_full_range.mp4",
        "long/yoga.mp4",
        "reels/mixed.mp4",
    ],
)
def test_pictures_are_those_that_ffmpeg_shows(name: str, footage: Path) -> None:
    frame = first_frame(footage / name)
    shrink = Shrink(frame)
    width, height = frame.displayed_size
    full = frame.picture()
    assert full.shape == (height, width, 3)
    truth = cv2.resize(full, (48, 27), interpolation=cv2.INTER_AREA).astype(int)
    # swscale's own rounding is up to two levels off.
    assert np.abs(shrink(frame).tiny_rgb() - truth).mean() < 3.1
    planes = shrink(frame).planes()
    assert min(planes.y.shape) >= min(270, *planes.y.shape)
    wide = shrink.width(224)
    assert wide == pytest.approx(224 * width / height, abs=1.01)
    small = cv2.resize(full, (wide, 224), interpolation=cv2.INTER_AREA).astype(int)[:, :, ::-1]
    assert np.abs(planes.bgr(wide, 224) - small).mean() < 4.5
    assert shrink(frame).luma().shape == (144, shrink.width(144))


def test_planes_stay_small_for_large_sources(tmp_path: Path) -> None:
    picture = cv2.resize(four_corners(), (1920, 1080), interpolation=cv2.INTER_NEAREST)
    frame = first_frame(write_video(tmp_path / "a.mp4", picture[None]))
    planes = Shrink(frame)(frame).planes()
    assert (planes.y.shape, planes.u.shape) == ((270, 480), (135, 240))
    assert planes.y.base is None  # a copy: the decoder's frame is not held
    odd = first_frame(write_video(tmp_path / "b.mp4", picture[None, :362, :642]))
    assert Shrink(odd)(odd).planes().y.shape == (362, 642)


def test_decoding_ahead_gives_the_same_frames(tmp_path: Path) -> None:
    pictures = np.stack([np.full((96, 128, 3), 2 * i, np.uint8) for i in range(110)])
    path = str(write_video(tmp_path / "a.mp4", pictures))
    with Video(path) as video:
        plain = [(f.time_s, f.raw.to_ndarray(format="gray").mean()) for f in video.frames()]
    with Video(path, threads=2) as video:
        ahead = [(f.time_s, f.raw.to_ndarray(format="gray").mean()) for f in decoded_ahead(video.frames())]
    assert ahead == plain
    assert len(ahead) == 110


def test_decoding_ahead_hands_over_errors_and_ends_when_left(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", np.zeros((300, 32, 32, 3), np.uint8)))

    def broken(video: Video) -> Iterator[Frame]:
        for i, frame in enumerate(video.frames()):
            if i == 5:
                raise RuntimeError("the disk is gone")
            yield frame

    seen = []
    with Video(path) as video, pytest.raises(RuntimeError, match="the disk is gone"):
        seen.extend(frame.time_s for frame in decoded_ahead(broken(video)))
    with Video(path) as video:
        frames = decoded_ahead(video.frames())
        assert next(frames).time_s == 0.0
        assert "decode" in [thread.name for thread in threading.enumerate()]
        frames.close()
    assert "decode" not in [thread.name for thread in threading.enumerate()]
    assert list(decoded_ahead(iter(()))) == []
