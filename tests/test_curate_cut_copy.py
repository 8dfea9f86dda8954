"""Copied clips: the source's own packets where a cut falls on keyframes, an encode everywhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_films import film, numbered, shown_in, spans_of

from curate.cut import CutConfig, Span, cut_clips

COPY = CutConfig(crf=12, preset="ultrafast", mode="copy")
GOP30 = {"crf": "18", "preset": "veryfast", "g": "30", "sc_threshold": "0"}
OPEN_GOP = {"x264-params": "open-gop=1:b-adapt=0:scenecut=0", "bf": "3"}
ON_KEYS = [(0, 30), (30, 90), (90, 120)]
HEVC = {"preset": "ultrafast", "crf": "18", "g": "30"}
VP9 = {"crf": "20", "b": "0", "cpu-used": "8", "g": "30", "deadline": "realtime"}


@pytest.mark.parametrize(
    ("name", "how", "edges", "copied"),
    [
        ("cut_on_keys.mp4", {}, ON_KEYS, [True] * 3),
        ("b_frames.mp4", {"options": GOP30 | {"bf": "3"}}, ON_KEYS, [True] * 3),
        # Matroska keeps no decoding times; FFmpeg cannot tell those of the first packets.
        ("b_frames.mkv", {"options": GOP30 | {"bf": "3"}}, ON_KEYS, [False, True, True]),
        ("b_frames.ts", {"options": GOP30 | {"bf": "3"}}, ON_KEYS, [True] * 3),
        ("vfr.mp4", {"pts": [i + i // 7 * 3 for i in range(120)]}, ON_KEYS, [True] * 3),
        ("starts_late.mp4", {"first_pts": 40, "options": GOP30 | {"bf": "2"}}, ON_KEYS, [True] * 3),
        ("within.mp4", {"options": GOP30 | {"bf": "3"}}, [(0, 31), (31, 60), (60, 89)],
         [True, False, False]),
        # What ends within a group can be copied if no picture of it needs a later one.
        ("no_b.mp4", {"options": GOP30 | {"bf": "0"}}, [(30, 50), (51, 60)], [True, False]),
        # Group two's first pictures, in order of showing, are stored behind its keyframe.
        ("open_gop.mp4", {"options": GOP30 | OPEN_GOP}, [(0, 120)], [True]),
        ("open_gop.mkv", {"options": GOP30 | OPEN_GOP}, [(29, 59), (30, 60), (60, 120)], [False] * 3),
        ("hidden.mp4", {"n_frames": 131, "first_pts": -11, "options": GOP30 | {"bf": "2"}},
         [(0, 19), (19, 49), (49, 120)], [False, True, True]),
        ("hevc.mp4", {"codec": "libx265", "options": HEVC | {"x265-params": "log-level=none:open-gop=0"}},
         ON_KEYS, [True] * 3),
        ("open_hevc.mp4", {"codec": "libx265", "options": HEVC | {"x265-params": "log-level=none:bframes=3"}},
         ON_KEYS[1:], [False] * 2),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": VP9}, ON_KEYS, [True] * 3),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"qscale": "2", "g": "30"}}, ON_KEYS, [False] * 3),
    ],
)  # fmt: skip
def test_copied_or_encoded_the_frames_are_those_of_the_span(
    tmp_path: Path, name: str, how: dict, edges: list[tuple[int, int]], copied: list[bool]
) -> None:
    path = film(tmp_path / name, **how)
    hidden = max(0, -how.get("first_pts", 0))
    spans = spans_of(path, edges)
    cuts = cut_clips(str(path), spans, str(tmp_path), COPY)
    assert [cut["error"] for cut in cuts] == [None] * len(edges)
    assert [cut["copied"] for cut in cuts] == copied
    for span, cut, (first, end) in zip(spans, cuts, edges, strict=True):
        numbers, times = shown_in(tmp_path / f"{span.clip_id}.mp4")
        assert numbers == list(range(first + hidden, end + hidden))
        assert times[0] == 0.0
        assert times[-1] < span.end_s - span.start_s
        assert cut["encoded_s"] == (0.0 if cut["copied"] else pytest.approx(span.end_s - span.start_s))


def test_copied_pictures_are_the_sources_to_the_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 40, (60, 96, 128, 3), np.uint8)
    path = film(tmp_path / "a.mp4", pictures=numbered(60) + noise, options=GOP30 | {"bf": "2"})
    (span,) = spans_of(path, [(30, 60)])
    (cut,) = cut_clips(str(path), [span], str(tmp_path), COPY)
    assert cut["copied"]
    assert cut["n_decoded"] == 0
    with av.open(str(path)) as source, av.open(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
        own = [frame.to_ndarray() for frame in source.decode(video=0)][30:]
        shown = [frame.to_ndarray() for frame in clip.decode(video=0)]
    assert all(np.array_equal(a, b) for a, b in zip(own, shown, strict=True))


def test_what_needs_another_picture_is_encoded(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 60)
    span = Span("a" * 24, 0.0, 1.2, 30, 0, 16, 128, 64)
    (bars,) = cut_clips(str(path), [span], str(tmp_path), COPY)
    assert (bars["copied"], bars["height"], bars["error"]) == (False, 64, None)
    (span,) = spans_of(path, [(0, 30)])
    (small,) = cut_clips(str(path), [span], str(tmp_path), replace(COPY, max_height=48))
    assert (small["copied"], small["height"], small["error"]) == (False, 48, None)
    turned = film(tmp_path / "turned.mp4", 30, rotation=90)
    (upright,) = cut_clips(str(turned), spans_of(turned, [(0, 30)]), str(tmp_path), COPY)
    assert (upright["copied"], upright["height"], upright["error"]) == (False, 128, None)


def test_shots_of_real_footage_that_begin_on_keyframes(footage: Path, tmp_path: Path) -> None:
    """testvideo.mp4 has keyframes at its cuts: what is copied begins and ends as the source does."""
    path = footage / "edge/testvideo.mp4"
    with av.open(str(path)) as source:
        pictures = [f.to_ndarray() for f in source.decode(video=0)]
    with av.open(str(path)) as source:
        keys = [i for i, f in enumerate(source.decode(video=0)) if f.key_frame]
    edges = [(keys[1], keys[2]), (keys[3], len(pictures))]
    spans = spans_of(path, edges)
    cuts = cut_clips(str(path), spans, str(tmp_path), COPY)
    assert [(cut["copied"], cut["error"]) for cut in cuts] == [(True, None)] * 2
    for span, (first, end) in zip(spans, edges, strict=True):
        with av.open(str(tmp_path / f"{span.clip_id}.mp4")) as clip:
            shown = [f.to_ndarray() for f in clip.decode(video=0)]
        assert len(shown) == end - first
        assert np.array_equal(shown[0], pictures[first])
        assert np.array_equal(shown[-1], pictures[end - 1])
