"""Every clip holds the frames of its span, first to last, whatever the source is; a source is decoded once."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numbered_films import film, number_of, numbered, shown_in, spans_of

import curate.cut
from curate.cut import CutConfig, Span, cut_clips
from curate.frames import Video

FAST = CutConfig(crf=12, preset="ultrafast")
X264 = {"crf": "18", "preset": "veryfast", "g": "30"}
# Within groups of pictures, on their borders, beside each other and apart, up to the last frame.
EDGES = [(0, 7), (7, 30), (30, 31), (45, 60), (61, 90), (112, 120)]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("cfr.mp4", {}),
        ("b_frames.mp4", {"options": X264 | {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal"}}),
        ("open_gop.mp4", {"options": X264 | {"bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}}),
        ("open_gop.mkv", {"options": X264 | {"bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}}),
        ("open_gop.ts", {"options": X264 | {"bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}}),
        ("vfr.mp4", {"pts": [i + i // 7 * 3 + (i > 50) * 40 for i in range(120)]}),
        ("starts_late.mp4", {"first_pts": 40}),
        ("starts_late.mkv", {"first_pts": 40}),
        ("stream.ts", {"options": X264 | {"bf": "2"}}),
        ("edit_list.mp4", {"n_frames": 131, "first_pts": -11, "options": X264 | {"bf": "2"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"preset": "ultrafast", "crf": "18", "g": "30",
                                                      "x265-params": "log-level=none:bframes=3"}}),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"qscale": "2", "g": "30"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0", "cpu-used": "8", "g": "30",
                                                         "deadline": "realtime"}}),
    ],
)  # fmt: skip
def test_clips_hold_the_frames_of_their_spans_to_the_number(tmp_path: Path, name: str, how: dict) -> None:
    path = film(tmp_path / name, **how)
    hidden = max(0, -how.get("first_pts", 0))
    spans = spans_of(path, EDGES)
    with Video(str(path)) as video:
        times = [frame.time_s for frame in video.frames()]
    assert len(times) == 120
    cuts = cut_clips(str(path), spans, str(tmp_path), FAST)
    assert [cut["error"] for cut in cuts] == [None] * len(spans)
    for span, cut, (first, end) in zip(spans, cuts, EDGES, strict=True):
        numbers, shown_s = shown_in(tmp_path / f"{span.clip_id}.mp4")
        assert numbers == list(range(first + hidden, end + hidden))
        assert shown_s == pytest.approx([t - span.start_s for t in times[first:end]], abs=2e-5)
        assert cut["n_frames"] == end - first
        with av.open(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
            stream = clip.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(
                span.end_s - span.start_s, abs=2e-3
            )
    assert sum(cut["encoded_s"] for cut in cuts) == pytest.approx(sum(s.end_s - s.start_s for s in spans))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_pictures_are_cut_upright(tmp_path: Path, turn: int) -> None:
    """Stored turned, with a display matrix that says so: a clip shows the numbers upright."""
    stored = np.ascontiguousarray(np.rot90(numbered(60), -turn // 90, axes=(1, 2)))
    path = film(tmp_path / "turned.mp4", pictures=stored, rotation=turn)
    spans = spans_of(path, [(5, 20), (20, 60)])
    assert (spans[0].w, spans[0].h) == (128, 96)
    cuts = cut_clips(str(path), spans, str(tmp_path), FAST)
    assert [(cut["width"], cut["height"], cut["error"]) for cut in cuts] == [(128, 96, None)] * 2
    for span, numbers in zip(spans, (range(5, 20), range(20, 60)), strict=True):
        assert shown_in(tmp_path / f"{span.clip_id}.mp4")[0] == list(numbers)


def close_to(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(own.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("edge/vfr_dropped_frames.mp4", [(20, 50), (50, 80)]),
        ("edge/h265_video.mp4", [(2, 5), (5, 9)]),
        ("edge/av1_video.mkv", [(1, 5)]),
        ("edge/rotated_phone.mp4", [(10, 40), (200, 230)]),
        ("edge/rotation_270.mov", [(0, 1), (1, 2)]),
        ("edge/bt709_full_range.mp4", [(3, 12)]),
        ("edge/h264_10bits.mp4", [(3, 12)]),
        ("edge/fades.mp4", [(30, 60), (60, 75)]),
    ],
)
def test_real_footage_first_and_last_frames_are_not_the_neighbours(
    footage: Path, tmp_path: Path, name: str, edges: list[tuple[int, int]]
) -> None:
    path = footage / name
    lines = 120
    with Video(str(path)) as video:
        own = [frame.picture(height=lines) for frame in video.frames()]
    for (first, end), cut in zip(
        edges, cut_clips(str(path), spans_of(path, edges), str(tmp_path), FAST), strict=True
    ):
        assert cut["error"] is None
        with Video(str(tmp_path / f"{first:012x}{end:012x}.mp4")) as clip:
            shown = [frame.picture(height=lines) for frame in clip.frames()]
        assert len(shown) == end - first
        for picture, place in ((shown[0], first), (shown[-1], end - 1)):
            distance = close_to(picture, own[place])
            assert distance < 6
            for neighbour in (place - 1, place + 1):
                if 0 <= neighbour < len(own) and close_to(own[place], own[neighbour]) > 0.3:
                    assert distance < close_to(picture, own[neighbour])


def test_one_decode_at_most_and_gaps_are_skipped(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 600)
    back_to_back = spans_of(path, [(first, first + 40) for first in range(0, 600, 40)])
    for threads in (1, 3):
        cuts = cut_clips(
            str(path), back_to_back, str(tmp_path), CutConfig(preset="ultrafast", threads=threads)
        )
        # One frame is read at the start of the file, and one past the end of a passage that is cut alone.
        assert 600 <= sum(cut["n_decoded"] for cut in cuts) <= 600 + 8
    apart = spans_of(path, [(95, 115), (500, 520)])
    cuts = cut_clips(str(path), apart, str(tmp_path), FAST)
    assert [cut["n_decoded"] for cut in cuts] == [1 + 5 + 20 + 1, 20 + 20 + 1]  # from 90 and 480


def test_bytes_do_not_depend_on_threads_nor_on_the_other_clips(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 600)
    spans = spans_of(path, [(first, first + 37) for first in range(3, 560, 37)])
    made = []
    for number, (threads, some) in enumerate([(1, spans), (2, spans), (4, spans), (2, spans[5:9])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        cut_clips(str(path), some, str(folder), CutConfig(preset="superfast", threads=threads))
        made.append({file.name: file.read_bytes() for file in folder.glob("*.mp4")})
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == len(spans)
    assert {name: made[0][name] for name in made[3]} == made[3]
    assert CutConfig(threads=1).recipe() == CutConfig(threads=8, deadline_base_s=1.0).recipe()
    assert CutConfig(crf=21).recipe() != CutConfig(crf=20).recipe()


@pytest.mark.parametrize("limit_bytes", [1, 10**6])
def test_clips_that_no_seek_can_part_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int
) -> None:
    """One group of pictures: a single decoder feeds several encoders, whatever memory there is."""
    monkeypatch.setattr(curate.cut, "_WAITING_BYTES", limit_bytes)
    path = film(tmp_path / "a.mp4", 400, options=X264 | {"g": "999", "sc_threshold": "0"})
    spans = spans_of(path, [(first, first + 23) for first in range(5, 380, 23)])
    made = []
    for threads in (1, 3):
        cuts = cut_clips(str(path), spans, str(tmp_path), CutConfig(preset="superfast", threads=threads))
        assert [cut["error"] for cut in cuts] == [None] * len(spans)
        assert sum(cut["n_decoded"] for cut in cuts) <= 400
        made.append([(tmp_path / f"{span.clip_id}.mp4").read_bytes() for span in spans])
    assert made[0] == made[1]
    assert shown_in(tmp_path / f"{spans[-1].clip_id}.mp4")[0] == list(range(373, 396))


@pytest.mark.parametrize("gop", [1, 12, 24])
def test_keyframes_lie_no_further_apart_than_gop(tmp_path: Path, gop: int) -> None:
    path = film(tmp_path / "a.mp4", 100)
    (span,) = spans_of(path, [(10, 90)])
    cut_clips(str(path), [span], str(tmp_path), CutConfig(preset="veryfast", gop=gop))
    with av.open(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
        order = sorted((p.pts, p.is_keyframe) for p in clip.demux(video=0) if p.size)
    keys = [place for place, (_, is_key) in enumerate(order) if is_key]
    assert keys[0] == 0
    assert max(b - a for a, b in zip(keys, [*keys[1:], 80], strict=True)) <= gop


def test_colours_keep_their_values_and_their_meaning(footage: Path, tmp_path: Path) -> None:
    """A full-range BT.709 source becomes BT.709 in video range, by the formula of ITU-R BT.709."""
    path = footage / "edge/bt709_full_range.mp4"
    (span,) = spans_of(path, [(0, 2)])
    cut_clips(str(path), [span], str(tmp_path), CutConfig(crf=1, preset="ultrafast"))
    planes = []
    for name in (path, tmp_path / f"{span.clip_id}.mp4"):
        with Video(str(name)) as video:
            raw = next(video.frames()).raw
        planes.append((raw.to_ndarray()[: raw.height], raw.to_ndarray()[raw.height :]))
    assert (raw.format.name, raw.color_range, raw.colorspace) == ("yuv420p", 1, 1)
    (luma, chroma), (cut_luma, cut_chroma) = planes
    assert np.abs(16 + luma * (219 / 255) - cut_luma).mean() < 1
    assert np.abs(128 + (chroma - 128.0) * (224 / 255) - cut_chroma).mean() < 1


def test_a_clip_that_fails_costs_no_other(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    good, other = spans_of(path, [(0, 30), (60, 90)])
    wrong = Span("f" * 24, 1.2, 2.4, 29, 0, 0, 128, 96)  # one frame less than there is
    beyond = Span("e" * 24, 77.0, 78.0, 25, 0, 0, 128, 96)
    cuts = cut_clips(str(path), [good, wrong, other, beyond], str(tmp_path), FAST)
    assert [cut["error"] is None for cut in cuts] == [True, False, True, False]
    assert "30 frames were cut, but 29 were found" in cuts[1]["error"]
    assert "no frame between 77.000 and 78.000 s" in cuts[3]["error"]
    assert sorted(file.stem for file in tmp_path.glob("*.mp4")) == sorted(["a", good.clip_id, other.clip_id])


def test_pictures_are_cropped_and_scaled(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 30)
    span = Span("a" * 24, 0.0, 1.2, 30, 32, 0, 64, 96)  # the middle two columns of blocks
    (cut,) = cut_clips(str(path), [span], str(tmp_path), CutConfig(crf=12, max_height=48))
    assert (cut["width"], cut["height"]) == (32, 48)
    with Video(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
        pictures = [frame.picture() for frame in clip.frames()]
    for number, picture in enumerate(pictures):
        whole = np.pad(picture, ((0, 0), (16, 16), (0, 0)))
        assert number_of(whole) == number & 0b0110_0110_0110
