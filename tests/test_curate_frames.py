"""Frames are timed by PTS and shown upright; cuts hold exactly the frames of their span."""

from __future__ import annotations

from pathlib import Path

import av
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


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.h264"])
def test_read_frames_is_exact_by_seeking_too(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, numbered(200), options={"g": "20", "bf": "3"})
    pictures, times = read_frames(str(path), [0.0, 1.99, 2.0, 2.01, 5.18, 7.96])
    assert [number_of(p) for p in pictures] == [0, 49, 50, 50, 129, 199]
    assert times == pytest.approx([0.0, 1.96, 2.0, 2.0, 5.16, 7.96])


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


FIXED_GOPS = {"g": "25", "keyint_min": "25", "sc_threshold": "0", "crf": "18", "preset": "veryfast"}


def damaged(
    path: Path, frames: range, codec: str = "libx264", options: dict[str, str] = FIXED_GOPS, seed: int = 0
) -> Path:
    """A film of 100 numbered frames, a keyframe every 25, with noise in the packets of `frames`."""
    noise = np.random.default_rng(seed)
    pictures = numbered(100) + noise.integers(0, 60, (100, 64, 96, 3), np.uint8)
    write_video(path, pictures, codec=codec, options=options)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    assert [i for i, packet in enumerate(packets) if packet[2]] == [0, 25, 50, 75]
    for i in frames:
        begin, size, _ = packets[i]
        data[begin + 8 : begin + size] = noise.bytes(size - 8)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", FIXED_GOPS),
        ("libx265", {"x265-params": "keyint=25:min-keyint=25:scenecut=0:open-gop=0:log-level=none"}),
        ("mpeg4", {"g": "25", "sc_threshold": "1000000000"}),
    ],
)
def test_damage_costs_the_pictures_up_to_the_next_keyframe(
    tmp_path: Path, codec: str, options: dict[str, str], threads: int
) -> None:
    path = damaged(tmp_path / "a.mp4", range(35, 38), codec, options)
    with Video(str(path), threads=threads) as video:
        frames = {round(f.time_s * 25): number_of(f.picture()) for f in video.frames()}
    assert set(frames) >= {*range(25), *range(50, 100)}
    assert not set(frames) & set(range(38, 50))
    assert all(shown == number for number, shown in frames.items())  # what is left is not smeared
    assert 1 <= video.faults.error_count <= 15
    assert video.faults.error_count + video.faults.lost_pictures >= 12
    assert "Invalid data found" in video.faults.errors[0]
    assert f"decoding errors: {video.faults.error_count}, pictures lost" in str(video.damage)


def test_a_file_cut_off_between_two_packets_does_not_pass_for_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", numbered(100), options=FIXED_GOPS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Video(str(path)) as video:
        end_s = list(video.frames())[-1].time_s + 0.04
    assert end_s < 3
    assert f"ends at {end_s:.3f} s, {4 - end_s:.3f} s before the end that the container promises" in str(
        video.damage
    )


def test_encrypted_film_is_given_up(tmp_path: Path) -> None:
    path = damaged(tmp_path / "a.mp4", range(100))
    with Video(str(path)) as video:
        assert not list(video.frames())
    assert video.faults.error_count >= 20
    assert len(video.faults.errors) == 20


@pytest.mark.parametrize("threads", [1, 2])
def test_a_keyframe_that_comes_out_late_does_not_end_the_damage_behind_it(
    tmp_path: Path, threads: int
) -> None:
    detected = 0
    for seed in range(20):
        # The packets right behind the keyframe, which the decoder still holds back then.
        path = damaged(tmp_path / "a.mp4", range(26, 30), seed=seed)
        with Video(str(path), threads=threads) as video:
            times = {round(f.time_s * 25) for f in video.frames_from(1.1)}
        assert times >= set(range(50, 100))
        if video.faults.error_count:  # a little noise may read as pictures
            detected += 1
            assert not times & set(range(31, 50))
    assert detected >= 15


def test_avi_with_b_frames_keeps_every_frame_and_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered(100), options={"bf": "3", "g": "25"})
    with Video(str(path)) as video:
        frames = [(round(f.time_s * 25), number_of(f.picture())) for f in video.frames()]
    assert frames == [(i, i) for i in range(100)]


def test_elementary_stream_without_timestamps_is_timed_by_its_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", numbered(50), fps=25)
    path = path.rename(tmp_path / "a.mp4")
    with Video(str(path)) as video:
        assert [f.time_s for f in video.frames()] == pytest.approx([i / 25 for i in range(50)])
    with Video(str(path)) as video:
        assert number_of(next(video.frames_from(1.0)).picture()) == 25


def test_long_still_before_the_wanted_time_is_what_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(4), pts=[0, 1, 200, 201], options={"g": "1"})
    (picture,), (time_s,) = read_frames(str(path), [6.0])
    assert (number_of(picture), time_s) == (1, pytest.approx(0.04))


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
