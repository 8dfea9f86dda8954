"""Frames are timed by PTS and shown upright; cuts hold exactly the frames of their span."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video

from curate.cut import CutConfig, Span, cut_clips
from curate.errors import BadInput
from curate.frames import Video, read_frames


def numbered(n_frames: int) -> np.ndarray:
    """Frame i shows i in binary as eight upright stripes, so that a picture tells its number."""
    stripes = np.array([[40 + 160 * (i >> bit & 1) for bit in range(8)] for i in range(n_frames)], np.uint8)
    return np.broadcast_to(np.repeat(stripes, 12, 1)[:, None, :, None], (n_frames, 64, 96, 3)).copy()


def number_of(picture: np.ndarray) -> int:
    luma = picture.mean(axis=(0, 2)).reshape(8, -1).mean(1)
    return sum(1 << bit for bit in range(8) if luma[bit] > 120)


def test_read_frames_gives_the_frame_on_screen_at_each_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(100), fps=25)
    pictures, times = read_frames(str(path), [0.0, 0.5, 1.019, 3.0, 99.0])
    assert [number_of(p) for p in pictures] == [0, 12, 25, 75, 99]
    assert times == pytest.approx([0.0, 0.48, 1.0, 3.0, 3.96])


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = [0, 1, 2, 10, 11, 20, 40]
    path = write_video(tmp_path / "vfr.mp4", numbered(7), fps=25, pts=pts)
    with Video(str(path)) as video:
        assert [round(f.time_s * 25) for f in video.frames()] == pts


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("rotation_0.mov", 568, 320),
        ("rotation_90.mov", 320, 568),
        ("rotation_180.mov", 568, 320),
        ("rotation_270.mov", 320, 568),
    ],
)
def test_rotation_by_metadata(footage: Path, name: str, width: int, height: int) -> None:
    (picture,), _ = read_frames(str(footage / "edge" / name), [0.0])
    assert picture.shape == (height, width, 3)


def test_a_cut_holds_its_own_frames_and_no_neighbours(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(100), fps=25)
    spans = [Span("aa" * 12, 0.4, 0.8, 10, 0, 0, 96, 64), Span("bb" * 12, 0.8, 2.0, 30, 0, 8, 96, 48)]
    first, second = cut_clips(str(path), spans, str(tmp_path), CutConfig(crf=10))
    assert (first["error"], first["n_frames"], first["width"], first["height"]) == (None, 10, 96, 64)
    assert (second["error"], second["n_frames"], second["width"], second["height"]) == (None, 30, 96, 48)
    for span, numbers in zip(spans, (range(10, 20), range(20, 50)), strict=True):
        with Video(str(tmp_path / f"{span.clip_id}.mp4")) as video:
            frames = list(video.frames())
        assert [number_of(f.picture()) for f in frames] == list(numbers)
        assert frames[1].time_s == pytest.approx(0.04)


def test_a_span_with_missing_frames_is_an_error_and_spares_the_others(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(25), fps=25)
    spans = [Span("aa" * 12, 0.0, 0.4, 10, 0, 0, 96, 64), Span("bb" * 12, 0.8, 2.0, 30, 0, 0, 96, 64)]
    first, second = cut_clips(str(path), spans, str(tmp_path), CutConfig())
    assert first["error"] is None
    assert second["error"] == "ValueError: 5 frames were cut, but 30 were found when the clip was measured"


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("these are words")
    with pytest.raises(BadInput, match="not a readable video"):
        Video(str(text))


def test_cropped_cut_shows_the_inside_of_the_bars(tmp_path: Path) -> None:
    pictures = moving_square(20)
    pictures[:, :16] = 0
    pictures[:, -16:] = 0
    path = write_video(tmp_path / "bars.mp4", pictures)
    (cut,) = cut_clips(
        str(path), [Span("cc" * 12, 0.0, 0.8, 20, 0, 16, 160, 64)], str(tmp_path), CutConfig(crf=10)
    )
    (picture,), _ = read_frames(str(tmp_path / f"{'cc' * 12}.mp4"), [0.2])
    assert cut["height"] == 64
    assert np.abs(picture.astype(int) - pictures[5, 16:-16]).mean() < 4
