"""What the rows of each stage are counted as: files, clips and captions, by outcome and reason; bytes."""

from __future__ import annotations

from curate.clip_scores import SkipClip
from pipelines.metrics import Counts
from pipelines.metrics_stages import (
    analysed,
    clips_decoded,
    clips_encoded,
    frames_read,
    of_curate,
    scored,
    shards_packed,
    text_read,
    told_of,
)


def clip(**scores: object) -> dict:
    return {"score_errors": None, "embedding": None, "text_area": None} | scores


def test_files_and_what_is_in_them() -> None:
    rows = [
        {"source": {"status": "ok", "failure": None, "size_bytes": 100}, "clips": [clip(), clip()]},
        {"source": {"status": "failed", "failure": "transient", "size_bytes": None}, "clips": []},
    ]
    assert analysed([], rows) == Counts(
        2,
        {("files", "ok", ""): 1, ("files", "failed", "transient"): 1, ("clips", "found", ""): 2},
        {"read": 100},
    )
    rows[0]["clips"][0]["embedding"] = [1.0]
    assert scored(rows, "embedding") == Counts(2, {("clips", "scored", ""): 1, ("clips", "failed", ""): 1})


def test_reasons_are_filters_without_their_figures() -> None:
    whys = ["not read: motion 0.12 < 0.5", "not read: motion 0.2 < 0.5", "broken", "switched off"]
    clips = [clip(score_errors=[("nsfw", "no"), ("text_area", why)]) for why in whys]
    clips.append(clip(text_area=0.0, score_errors=[("nsfw", "no")]))
    assert text_read([{"clips": clips}]).outcomes == {
        ("clips", "rejected", "motion"): 2,
        ("clips", "failed", ""): 1,
        ("clips", "skipped", ""): 1,
        ("clips", "read", ""): 1,
    }


def test_rows_of_captions_shards_and_latents() -> None:
    good, bad = {"frames": b"1234", "error": None}, {"frames": None, "error": "broken"}
    counts = frames_read([{"views": [good, good]}, {"views": [good, bad]}, {"views": []}])
    assert counts == Counts(3, {("clips", "read", ""): 2, ("clips", "failed", ""): 1}, {"decoded": 12})

    members = [{"cut": {"mp4_size": 10}, "json": b"{}"}, {"cut": {"mp4_size": 5}, "json": b"{}"}]
    counts = shards_packed([{"members": members}], [{"clips": 2, "failed": 0}])
    assert (counts.done, counts.bytes) == (1, {"written": 19})

    asked = [{"clips": [{"mp4_size": 7, "json_size": 2}, {"mp4_size": 1, "json_size": 1}]}]
    decoded = [{"clips": [{"error": None, "pixels": b"123"}, {"error": "gone"}]}]
    outcomes = {("clips", "decoded", ""): 1, ("clips", "failed", ""): 1}
    assert clips_decoded(asked, decoded) == Counts(2, outcomes, {"read": 11, "decoded": 3})
    assert clips_encoded([{"clips": 3, "failed": 1}, {"clips": 1, "failed": 0}]).done == 5


def test_a_stage_that_nobody_described_is_told_of_by_its_rows() -> None:
    skip = SkipClip()
    assert told_of(skip, of_curate()).name == "clip"
    assert told_of(skip, {}).name == "SkipClip"
    assert told_of(skip, {}).count([], [{}, {}]) == Counts(2)
