"""Shots put together again: which neighbours, never too long, and every score of the result by hand."""

from __future__ import annotations

import numpy as np
import pytest

from curate.analysis import clip_id
from curate.sources import ANALYSED
from curate.stitch import LARGEST, MEANS, SAME, Stitch, StitchConfig, merged
from curate.tables import CLIPS

A, B = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)


def clip(start_s: float, end_s: float, **scores: object) -> dict:
    known = {name: None for name in CLIPS.names} | {
        "source_id": "f" * 32, "start_s": start_s, "end_s": end_s, "n_frames": round(25 * (end_s - start_s)),
        "transition_in": "cut", "transition_out": "cut", "score_errors": [],
    }  # fmt: skip
    return known | scores


def stitched(clips: list[dict], features: list[list[np.ndarray]], max_s: float = 20.0) -> tuple[list, dict]:
    row = {
        "unit": "u", "source": {}, "clips": clips,
        "keyframes": [[b"%d" % i] for i in range(len(clips))],
        "features": [[f.tobytes() for f in frames] for frames in features],
    }  # fmt: skip
    (done,) = Stitch(StitchConfig(min_similarity=0.9), max_s)([row])
    assert list(done) == ANALYSED.names
    return [(c["start_s"], c["end_s"]) for c in done["clips"]], done


def test_edges_that_look_alike_are_joined_in_a_chain() -> None:
    """A|A and B|B agree; within the third and at its end the picture has changed."""
    clips = [clip(0, 2), clip(2, 3), clip(3, 5), clip(5, 8)]
    spans, row = stitched(clips, [[A, A], [A, B], [B, A], [B, B]])
    assert spans == [(0, 5), (5, 8)]
    assert [c["index"] for c in row["clips"]] == [0, 1]
    assert row["keyframes"] == [[b"0", b"1", b"2"], [b"3"]]
    assert row["clips"][0]["clip_id"] == clip_id("f" * 32, 0, 5)


@pytest.mark.parametrize("kind", ["dissolve", "fade", "division"])
def test_only_cuts_are_undone(kind: str) -> None:
    spans, _ = stitched([clip(0, 2, transition_out=kind), clip(2, 4, transition_in=kind)], [[A], [A]])
    assert spans == [(0, 2), (2, 4)]


def test_never_longer_than_max_s() -> None:
    spans, _ = stitched([clip(0, 4), clip(4, 8), clip(8, 12)], [[A]] * 3, max_s=8.0)
    assert spans == [(0, 8), (8, 12)]


def test_gaps_and_unknown_embeddings_part() -> None:
    assert stitched([clip(0, 2), clip(2.5, 4)], [[A], [A]])[0] == [(0, 2), (2.5, 4)]
    assert stitched([clip(0, 2), clip(2, 4)], [[A], []])[0] == [(0, 2), (2, 4)]


def test_scores_of_the_result() -> None:
    one = clip(
        1.0, 4.0, motion=1.0, luma=100.0, overlay_area=0.1, nsfw=0.2, camera="pan", motion_source="flow",
        crop={"x": 10, "y": 0, "w": 80, "h": 50}, phash="aa-bb", clip_text_sim=0.6, transition_in="edge",
        score_errors=[("aesthetic", "no head"), ("object_motion", "flat")],
    )  # fmt: skip
    two = clip(
        4.0, 5.0, motion=5.0, luma=None, overlay_area=0.3, nsfw=0.1, camera="tilt", motion_source="flow",
        crop={"x": 0, "y": 5, "w": 60, "h": 60}, phash="cc", clip_text_sim=0.8, transition_out="fade",
        object_motion=2.0, score_errors=[("aesthetic", "no head"), ("luma", "too short")],
    )  # fmt: skip
    text = np.array([0.6, 0.8])
    found = merged([(one, np.stack([A, A])), (two, B[None])])
    assert found["motion"] == (1.0 * 3 + 5.0 * 1) / 4
    assert (found["luma"], found["object_motion"]) == (100.0, 2.0)
    assert (found["overlay_area"], found["nsfw"]) == (0.3, 0.2)
    assert (found["camera"], found["motion_source"], found["phash"]) == ("mixed", "flow", "aa-bb-cc")
    assert found["crop"] == {"x": 0, "y": 0, "w": 90, "h": 65}
    assert (found["n_frames"], found["fps"]) == (100, 25.0)
    assert (found["transition_in"], found["transition_out"]) == ("edge", "fade")
    assert found["score_errors"] == [("aesthetic", "no head")]
    mean = np.array([0.75, 0.25])
    unit = mean / np.linalg.norm(mean)
    assert np.allclose(found["embedding"], unit)
    assert found["clip_text_sim"] == pytest.approx(unit @ text)
    assert found["embedding_spread"] == pytest.approx(1 - (0.75 * unit[0] + 0.25 * unit[1]))


def test_every_column_is_joined() -> None:
    """A new column of clips/ must be given a way."""
    by_hand = {
        "clip_id", "index", "start_s", "end_s", "n_frames", "fps", "transition_in", "transition_out", "crop", "camera",
        "motion_source", "phash", "embedding", "embedding_spread", "clip_text_sim", "score_errors", "text_area",
    }  # fmt: skip
    assert {*MEANS, *LARGEST, *SAME, *by_hand} == set(CLIPS.names)
