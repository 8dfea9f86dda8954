"""What the rows of each stage are counted as: files, clips and captions, by outcome and reason; bytes."""

from __future__ import annotations

import io

from PIL import Image

from curate.clip_scores import SkipClip
from pipelines.metrics import Counts
from pipelines.metrics_stages import (
    analysed,
    answered,
    captioned,
    clips_decoded,
    clips_encoded,
    frames_read,
    made,
    of_curate,
    requested,
    scored,
    text_read,
    told_of,
)
from pipelines.recaption_vllm_stages import ERROR


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


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
    taken = [{"keyframes": [[jpeg(40, 30), jpeg(40, 30)], [b"broken"]]}, {"keyframes": []}]
    outcomes = {("clips", "scored", ""): 1, ("clips", "failed", ""): 1}
    assert scored(taken, rows, "embedding") == Counts(2, outcomes, {"decoded": 2 * 40 * 30 * 3})


def test_reasons_are_filters_without_their_figures() -> None:
    whys = ["not read: motion 0.12 < 0.5", "not read: motion 0.2 < 0.5", "broken", "switched off"]
    clips = [clip(score_errors=[("nsfw", "no"), ("text_area", why)]) for why in whys]
    clips.append(clip(text_area=0.0, score_errors=[("nsfw", "no")]))
    taken = [{"keyframes": [[jpeg(40, 30)]] * 4 + [[jpeg(20, 10)] * 5]}]  # the last one alone is read
    counts = text_read(taken, [{"clips": clips}], frames=2)
    assert counts.bytes == {"decoded": 2 * 20 * 10 * 3}
    assert counts.outcomes == {
        ("clips", "rejected", "motion"): 2,
        ("clips", "failed", ""): 1,
        ("clips", "skipped", ""): 1,
        ("clips", "read", ""): 1,
    }


def test_rows_of_captions_shards_and_latents() -> None:
    good, bad = {"frames": b"1234", "error": None}, {"frames": None, "error": "broken"}
    clips = [
        {"views": [good, good], "read_bytes": 70},
        {"views": [good, bad], "read_bytes": 0},
        {"views": [], "read_bytes": 0},
    ]
    outcomes = {("clips", "read", ""): 2, ("clips", "failed", ""): 1}
    assert frames_read(clips) == Counts(3, outcomes, {"read": 70, "decoded": 12})

    cut = [{"clips": 2, "failed": 1, "read_bytes": n, "written_bytes": 3} for n in (5, 9)]
    outcomes = {("clips", "cut", ""): 4, ("clips", "failed", ""): 2}
    assert made(cut, "cut") == Counts(2, outcomes, {"read": 14, "written": 6})

    asked = [{"clips": [{"mp4_size": 7, "json_size": 2}, {"mp4_size": 1, "json_size": 1}]}]
    decoded = [{"clips": [{"error": None, "pixels": b"123"}, {"error": "gone"}]}]
    outcomes = {("clips", "decoded", ""): 1, ("clips", "failed", ""): 1}
    assert clips_decoded(asked, decoded) == Counts(2, outcomes, {"read": 11, "decoded": 3})
    parts = [{"clips": 3, "failed": 1, "written_bytes": 8}, {"clips": 1, "failed": 0, "written_bytes": 1}]
    counts = clips_encoded(parts)
    assert (counts.done, counts.bytes) == (5, {"read": 0, "written": 9})


def test_answers_that_are_asked_for_again_are_not_done() -> None:
    rows = [{"status": "repetitive", "again": True}, {"status": "ok", "again": False}, {"status": "error"}]
    assert captioned(rows) == Counts(
        2, {("captions", "again", ""): 1, ("captions", "ok", ""): 1, ("captions", "error", ""): 1}
    )
    answers = [{ERROR: "", "time_taken_llm": 1.5}, {ERROR: "", "time_taken_llm": 2.0}]
    assert answered(answers, rows).seconds == 3.5
    assert answered([{ERROR: "too long", "time_taken_llm": -1.0}], rows).seconds is None


def test_captions_that_cannot_be_asked_for_end_there() -> None:
    error = ("captions", "error", "")
    assert requested([{"wanted": ["a", "b"]}, {"wanted": ["c"]}], [{}, {}]) == Counts(
        3, {("captions", "asked", ""): 2, error: 1}, ended={error: 1}
    )
    assert requested([{"wanted": ["a"]}], [{}]) == Counts(1, {("captions", "asked", ""): 1})


def test_a_stage_that_nobody_described_is_told_of_by_its_rows() -> None:
    skip = SkipClip()
    assert told_of(skip, of_curate()).name == "clip"
    assert told_of(skip, {}).name == "SkipClip"
    assert told_of(skip, {}).count([], [{}, {}]) == Counts(2)
