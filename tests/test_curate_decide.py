"""Decisions: reasons with figures, policies for null, copies, and 100,000 clips at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import DecideConfig, Range, decide, reason_name
from curate.semantic import SemanticConfig
from curate.tables import CLIPS, DECISIONS


def clip(number: int, **columns: object) -> dict:
    good = {
        "clip_id": f"{number:024x}",
        "source_id": f"{number:032x}",
        "start_s": 0.0,
        "end_s": 3.0,
        "width": 640,
        "height": 360,
        "motion": 2.0,
        "luma": 100.0,
        "black_ratio": 0.0,
        "static_ratio": 0.0,
        "sharpness": 500.0,
    }
    return good | columns


def run(*clips: dict, config: DecideConfig | None = None) -> list[dict]:
    table = pa.Table.from_pylist(list(clips), schema=CLIPS)
    return decide(table, config or DecideConfig()).to_pylist()


def test_reasons_carry_their_figures_and_all_are_given() -> None:
    good, bad = run(clip(1), clip(2, motion=0.12, luma=7.5))
    assert (good["keep"], good["reason"], good["reasons"]) == (True, None, [])
    assert bad["keep"] is False
    assert bad["reason"] == "luma 7.50 < 20"
    assert bad["reasons"] == ["luma 7.50 < 20", "motion 0.12 < 0.3"]


def test_a_value_on_the_bound_is_kept_and_one_beside_it_shows_the_difference() -> None:
    config = DecideConfig(motion=Range(min=0.5))
    on, under = run(clip(1, motion=0.5), clip(2, motion=0.499), config=config)
    assert on["keep"] is True
    assert under["reason"] == "motion 0.499 < 0.5"


@pytest.mark.parametrize(("policy", "kept"), [("keep", True), ("reject", False)])
def test_null_is_decided_by_policy_alone(policy: str, kept: bool) -> None:
    config = DecideConfig(motion=Range(min=0.5, if_null=policy))  # type: ignore[arg-type]
    (row,) = run(clip(1, motion=None), config=config)
    assert row["keep"] is kept
    assert row["reason"] == (None if kept else "motion is null")


def test_without_a_bound_null_is_no_reason() -> None:
    config = DecideConfig(aesthetic=Range(if_null="reject"))
    assert run(clip(1, aesthetic=None), config=config)[0]["keep"] is True


def test_of_copies_the_larger_stays_and_is_named() -> None:
    same = "f0f0f0f0f0f0f0f0-1234567890abcdef-00ff00ff00ff00ff"
    near = "f0f0f0f0f0f0f0f1-1234567890abcdef-00ff00ff00ff00fe"
    far = "0f0f0f0f0f0f0f0f-1234567890abcdef-ff00ff00ff00ff00"
    small, large, other = run(
        clip(1, phash=near, width=320, height=180), clip(2, phash=same), clip(3, phash=far)
    )
    assert small["duplicate_of"] == large["clip_id"]
    assert small["reason"] == f"copy of {large['clip_id']} (0.7 of 64 bits differ <= 13)"
    assert reason_name(small["reason"]) == "copy"
    assert large["keep"] is True
    assert other["keep"] is True


def test_copies_must_last_about_as_long() -> None:
    same = "f0f0f0f0f0f0f0f0-1234567890abcdef-00ff00ff00ff00ff"
    rows = run(clip(1, phash=same), clip(2, phash=same, end_s=6.0))
    assert [row["keep"] for row in rows] == [True, True]


def test_a_rejected_clip_cannot_be_the_better_copy() -> None:
    same = "f0f0f0f0f0f0f0f0-1234567890abcdef-00ff00ff00ff00ff"
    dark, bright = run(clip(1, phash=same, luma=1.0, width=1280, height=720), clip(2, phash=same))
    assert dark["reason"] == "luma 1.00 < 20"
    assert bright["keep"] is True


def test_hundred_thousand_clips() -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    columns = {name: pa.nulls(n, CLIPS.field(name).type) for name in CLIPS.names}
    columns |= {
        "clip_id": pa.array([f"{i:024x}" for i in range(n)]),
        "source_id": pa.array([f"{i:032x}" for i in range(n)]),
        "start_s": pa.array(np.zeros(n)),
        "end_s": pa.array(np.full(n, 3.0)),
        "motion": pa.array(rng.random(n).astype(np.float32)),
    }
    clips = pa.Table.from_arrays([columns[name] for name in CLIPS.names], schema=CLIPS)
    decisions = decide(clips, DecideConfig(motion=Range(min=0.5)))
    assert decisions.schema == DECISIONS
    expected = int((np.asarray(columns["motion"]) >= np.float32(0.5)).sum())
    assert sum(decisions["keep"].to_pylist()) == expected


def test_a_bound_that_float32_cannot_hold_is_still_kept() -> None:
    config = DecideConfig(motion=Range(min=0.7), text_area=Range(max=0.1))
    on, under = run(clip(1, motion=0.7, text_area=0.1), clip(2, motion=0.699), config=config)
    assert on["reasons"] == []
    assert under["reason"] == "motion 0.699 < 0.7"


def test_a_length_that_falls_short_only_in_arithmetic_is_kept() -> None:
    assert 4.1 - 3.1 < 1.0  # in doubles
    on, under = run(clip(1, start_s=3.1, end_s=4.1), clip(2, start_s=3.1, end_s=4.0999))
    assert on["keep"]
    assert under["reason"] == "duration_s 0.9999 < 1"


def test_a_near_copy_of_a_semantic_copy_names_the_clip_that_is_kept() -> None:
    same = "f0f0f0f0f0f0f0f0-1234567890abcdef-00ff00ff00ff00ff"
    other = "0f0a3f0f1f0c0f0f-9234a67b90f1cde0-f300ff12ff00ff04"
    rows = run(
        clip(1, phash=other, width=1280, height=720, embedding=[1.0, 0.0], embedding_model="a"),
        clip(2, phash=same, embedding=[1.0, 0.1], embedding_model="a"),
        clip(3, phash=same, width=320, height=180, embedding=[1.0, 0.1], embedding_model="a"),
        config=DecideConfig(semantic=SemanticConfig(min_similarity=0.95)),
    )
    assert [row["keep"] for row in rows] == [True, False, False]
    assert [row["duplicate_of"] for row in rows] == [None, rows[0]["clip_id"], rows[0]["clip_id"]]


# The word of a person ------------------------------------------------------------------------------------

SAME = "f0f0f0f0f0f0f0f0-1234567890abcdef-00ff00ff00ff00ff"


def judged(
    words: dict[int, tuple[bool | None, str | None]], *clips: dict, config: DecideConfig | None = None
) -> list[dict]:
    """Decisions where Ann said (keep, note) of the clips with these numbers."""
    overrides = {
        clip(n)["clip_id"]: {"keep": keep, "note": note, "author": "ann"} for n, (keep, note) in words.items()
    }
    table = pa.Table.from_pylist(list(clips), schema=CLIPS)
    return decide(table, config or DecideConfig(), overrides).to_pylist()


def test_a_person_rejects_what_the_rules_keep() -> None:
    said, other, both = judged(
        {1: (False, "a watermark"), 3: (False, None)}, clip(1), clip(2), clip(3, motion=0.1)
    )
    assert (said["keep"], said["reason"]) == (False, "override by ann: a watermark")
    assert both["reasons"] == ["override by ann", "motion 0.10 < 0.3"]
    assert said["override"] == "reject by ann: a watermark"
    assert reason_name(said["reason"]) == "override"
    assert (other["keep"], other["override"]) == (True, None)


def test_a_person_keeps_what_the_rules_reject_and_their_reasons_stay_to_be_read() -> None:
    (said,) = judged({1: (True, None)}, clip(1, motion=0.1))
    assert (said["keep"], said["reason"], said["override"]) == (True, None, "keep by ann")
    assert said["reasons"] == ["motion 0.10 < 0.3"]


def test_a_word_taken_back_is_none() -> None:
    (said,) = judged({1: (None, "I was wrong")}, clip(1, motion=0.1))
    assert (said["keep"], said["reason"], said["override"]) == (False, "motion 0.10 < 0.3", None)


def test_what_a_person_rejects_stands_for_no_copy() -> None:
    better, copy = clip(1, phash=SAME, width=1920, height=1080), clip(2, phash=SAME)
    assert [row["keep"] for row in judged({}, better, copy)] == [True, False]
    assert [row["keep"] for row in judged({1: (False, None)}, better, copy)] == [False, True]


def test_a_copy_that_a_person_keeps_is_kept_beside_the_better_one() -> None:
    better, copy = clip(1, phash=SAME, width=1920, height=1080), clip(2, phash=SAME)
    first, second = judged({2: (True, None)}, better, copy)
    assert first["keep"]
    assert (second["keep"], second["duplicate_of"]) == (True, None)
    assert "copy of" in second["reasons"][0]


def test_a_clip_that_a_person_keeps_stands_for_its_copies() -> None:
    kept, copy = judged(
        {1: (True, None)}, clip(1, phash=SAME, motion=0.1, width=1920, height=1080), clip(2, phash=SAME)
    )
    assert kept["keep"]
    assert (copy["keep"], copy["duplicate_of"]) == (False, kept["clip_id"])


def alike(number: int, at: float, **columns: object) -> dict:
    """A clip whose embedding lies at the angle `at`; the nearer two of them, the more alike."""
    return clip(number, embedding=[np.cos(at), np.sin(at)], embedding_model="a", **columns)


SEMANTIC = DecideConfig(semantic=SemanticConfig(min_similarity=0.95))


def test_semantic_copies_and_the_word_of_a_person() -> None:
    best, worse = alike(1, 0.0, width=1920, height=1080), alike(2, 0.1)
    assert [r["keep"] for r in judged({}, best, worse, config=SEMANTIC)] == [True, False]
    for words, keep, of in (
        ({1: (False, None)}, [False, True], [None, None]),  # what is rejected stands for none
        ({2: (True, None)}, [True, True], [None, None]),  # and what is kept stays
    ):
        rows = judged(words, best, worse, config=SEMANTIC)
        assert [r["keep"] for r in rows] == keep
        assert [r["duplicate_of"] for r in rows] == of
    still = alike(1, 0.0, width=1920, height=1080, motion=0.1)
    rows = judged({1: (True, None)}, still, worse, config=SEMANTIC)
    assert [r["keep"] for r in rows] == [True, False]
    assert rows[1]["duplicate_of"] == rows[0]["clip_id"]


def test_a_near_copy_of_a_semantic_copy_that_a_person_keeps_names_that_one() -> None:
    rows = judged(
        {2: (True, None)},
        alike(1, 0.0, phash="0f0a3f0f1f0c0f0f-9234a67b90f1cde0-f300ff12ff00ff04", width=1280, height=720),
        alike(2, 0.1, phash=SAME),
        alike(3, 0.1, phash=SAME, width=320, height=180),
        config=SEMANTIC,
    )
    assert [r["keep"] for r in rows] == [True, True, False]
    assert rows[2]["duplicate_of"] == rows[1]["clip_id"]


def test_what_a_person_keeps_or_rejects_counts_in_the_balance() -> None:
    config = DecideConfig(semantic=SemanticConfig(balance=True))
    clips = [alike(1, 0.0), alike(2, 0.0, motion=0.1), alike(3, 0.0)]
    rows = judged({2: (True, None), 3: (False, None)}, *clips, config=config)
    assert [r["keep"] for r in rows] == [True, True, False]
    assert [r["cluster"] for r in rows] == [0, 0, None]
