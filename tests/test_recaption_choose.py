"""Choosing among captioners: by hand, in the order of the table, and on the world with the embedded CoCa."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import numpy as np
import pytest
from world_stills import stills, tower

from pipelines.demo.world import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    KINDS,
    SIZES,
    Scene,
    describe,
    parse,
)
from recaption.reading import PART
from recaption.trust.choose import Candidate, ChoicePolicy, agreement, choose, choose_all
from recaption.trust.clip_text import embed_captions
from recaption.trust.scores import SUSPECT, score, suspects, without_mean

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers) / np.linalg.norm(numbers)


def test_the_best_fit_is_chosen_and_flags_cost() -> None:
    good, better = Candidate("good", fit=2.8), Candidate("better", fit=3.1)
    assert choose([good, better]).caption_id == "better"
    flagged = replace(better, flags=("fact:camera",))
    choice = choose([good, flagged])
    assert choice.caption_id == "good"
    assert choice.values == (2.8, 2.1)
    both = replace(better, flags=("fact:camera", "fact:motion", "world_captioner", "truncated"))
    assert choose([both], ChoicePolicy(least_fit=None)).values == (0.6,)
    assert choose([good, flagged], ChoicePolicy(penalties={"fact:camera": 0.1})).caption_id == "better"


def test_agreement_is_the_mean_over_the_others() -> None:
    vectors = [vector(1, 0), vector(1, 0), vector(0, 1)]
    alike = [Candidate(str(i), vector=v) for i, v in enumerate(vectors)]
    assert agreement(alike) == pytest.approx([0.5, 0.5, 0.0])
    said = [
        {"colour": "red", "size": "small"},
        {"colour": "red", "size": None},
        {"colour": "blue", "size": "small"},
    ]
    told = [Candidate(str(i), attributes=a) for i, a in enumerate(said)]  # shares 1, 1/2 and 0
    assert agreement(told) == pytest.approx([(1 + 0) / 2, (1 - 1) / 2, (0 - 1) / 2])
    both = [replace(a, attributes=b) for a, b in zip(alike, said, strict=True)]
    assert agreement(both) == pytest.approx([0.5, 0.25, -0.25])
    assert agreement(alike[:1]) == [0.0]
    assert agreement([alike[0], Candidate("x")]) == [0.0, 0.0]  # compared only if all have a vector


def test_two_of_three_win_over_a_slightly_better_fit() -> None:
    two = [Candidate(name, fit=2.9, vector=vector(1, 0.1 * i)) for i, name in enumerate("ab")]
    other = Candidate("other", fit=3.1, vector=vector(-1, 1))
    assert choose([*two, other]).caption_id in ("a", "b")
    fit_alone = ChoicePolicy(agreement_weight=0, least_agreement=None)
    assert choose([*two, other], fit_alone).caption_id == "other"


def test_none_is_chosen_where_none_can_be_trusted() -> None:
    choice = choose([Candidate("a", fit=1.0), Candidate("b", fit=0.5)])
    assert (choice.caption_id, choice.reason) == (None, "fit 1.00 < 1.5")
    choice = choose([Candidate("a", fit=3.0, flags=(SUSPECT, "drop_quotes"))])
    assert choice.caption_id is None
    assert choice.reason == "fit less its penalties (suspect_mismatch) 1.00 < 1.5"
    far = [Candidate("a", fit=3.0, vector=vector(1, 0)), Candidate("b", fit=2.9, vector=vector(-1, 0.5))]
    choice = choose(far)
    assert choice.caption_id is None
    assert choice.reason == "agreement of 2 captions -0.89 < 0"
    assert choose(far, ChoicePolicy(least_agreement=None)).caption_id == "a"
    assert choose(far[:1]).caption_id == "a"
    assert choose([]).reason == "no usable caption"


def test_without_scores_nothing_is_thrown_away() -> None:
    flags = ("fact:camera", "truncated")
    assert choose([Candidate("a", flags=flags)]).caption_id == "a"
    apart = [Candidate(name, vector=vector(1, 0) * sign) for name, sign in (("a", 1), ("b", -1))]
    assert choose(apart).caption_id == "b"
    # One unknown fit makes the others incomparable with it.
    assert choose([Candidate("a", fit=0.1), Candidate("b")]).caption_id == "b"
    old = Candidate("old", current=False, created_at=NOON)
    assert choose([Candidate("new", created_at=NOON, flags=("fact:text",)), old]).caption_id == "old"


def test_a_caption_that_repeats_is_chosen_only_if_a_known_fit_speaks_for_it() -> None:
    again = ("repeated_across_clips",)
    choice = choose([Candidate("a", flags=again)])
    assert (choice.caption_id, choice.reason) == (
        None,
        "it repeats across clips, and no known fit speaks for it",
    )
    assert choose([Candidate("a", fit=2.6, flags=again)]).caption_id == "a"  # 2.6 - 1 is enough
    assert choose([Candidate("a", fit=2.4, flags=again)]).reason == (
        "fit less its penalties (repeated_across_clips) 1.40 < 1.5"
    )
    # Another of the clip takes its place, however many flags that has.
    own = Candidate("own", flags=("fact:camera", "truncated"))
    choice = choose([Candidate("a", flags=again), own, Candidate("b", flags=again)])
    assert (choice.caption_id, choice.values) == ("own", (-math.inf, -1.5, -math.inf))
    assert choose([Candidate("a", fit=2.4, flags=again), own]).caption_id == "own"
    assert choose([Candidate("a", fit=2.6, flags=again), own]).caption_id == "a"
    always = ChoicePolicy(least_fit=None, least_agreement=None)
    assert choose([Candidate("a", flags=again)], always).caption_id == "a"


def test_the_order_of_candidates_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    some = [
        Candidate(name, fit=3.0, vector=vector(*rng.standard_normal(8)), created_at=NOON)
        for name in ("a", "b", "c")
    ]
    policy = ChoicePolicy(least_agreement=None)
    assert len({choose(order, policy).caption_id for order in permutations(some)}) == 1
    same = [replace(candidate, vector=some[0].vector) for candidate in some]
    assert {choose(order, policy).caption_id for order in permutations(same)} == {"c"}


def test_without_scores_the_current_run_goes_first_then_the_newest() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "caption_id": f"{number:04}",
            "clip_id": f"clip{rng.integers(40)}",
            "kind": str(rng.choice(["short", "dense"])),
            "status": str(rng.choice(["ok", "ok", "refused"])),
            "flags": [PART] if rng.random() < 0.1 else ["world_captioner"],
            "created_at": NOON + timedelta(minutes=int(rng.integers(5))),
        }
        for number in range(300)
    ]
    current = {row["caption_id"] for row in rows if rng.random() < 0.3}
    rows.sort(key=lambda row: (row["caption_id"] in current, row["created_at"], row["caption_id"]))
    last = {
        (row["clip_id"], row["kind"]): row["caption_id"]
        for row in rows
        if row["status"] == "ok" and PART not in row["flags"]
    }
    rng.shuffle(rows)  # type: ignore[arg-type]
    choices = choose_all(rows, current=current)
    assert {group: choice.caption_id for group, choice in choices.items()} == last
    assert len(last) > 60


def test_rows_bring_their_scores_and_truncation() -> None:
    base = {"clip_id": "c", "kind": "dense", "flags": None, "created_at": NOON}
    rows = [base | {"caption_id": "a", "status": "truncated"}, base | {"caption_id": "b", "status": "ok"}]
    assert choose_all(rows, fit={"a": 3.4, "b": 3.0})["c", "dense"].values == (2.9, 3.0)
    assert choose_all(rows, fit={"a": 3.4, "b": float("nan")})["c", "dense"].values == (-0.5, 0.0)
    vectors = {"a": vector(1, 0), "b": np.full(2, np.nan)}
    assert choose_all(rows, vectors=vectors)["c", "dense"].values == (-0.5, 0.0)
    said = {"a": {"colour": "red"}, "b": {"colour": "red"}}
    assert choose_all(rows, attributes=said)["c", "dense"].values == (2.5, 3.0)


# Three captioners, each weak at something else: how often each names an attribute wrongly.
RATES = (
    {"kind": 0.3, "colour": 0.05, "size": 0.1, "background": 0.05, "direction": 0.05},
    {"kind": 0.1, "colour": 0.2, "size": 0.05, "background": 0.1, "direction": 0.1},
    {"kind": 0.1, "colour": 0.05, "size": 0.2, "background": 0.05, "direction": 0.2},
)
OPTIONS = {
    "kind": KINDS,
    "colour": COLOURS,
    "size": SIZES,
    "background": BACKGROUNDS,
    "direction": DIRECTIONS,
}


def mistaken(scene: Scene, rates: dict[str, float], rng: np.random.Generator) -> Scene:
    wrong = {
        name: str(rng.choice([value for value in OPTIONS[name] if value != getattr(scene, name)]))
        for name, rate in rates.items()
        if rng.random() < rate
    }
    return replace(scene, **wrong)  # type: ignore[arg-type]


def test_the_chosen_captions_are_better_than_every_captioner() -> None:
    scenes, clips = stills(1000)
    scenes, n = scenes[:600], 600
    rng = np.random.default_rng(5)
    texts = [describe(mistaken(scene, rates, rng), "dense", rng) for rates in RATES for scene in scenes]
    own = np.tile(np.arange(n), len(RATES))
    kinds = ["dense"] * len(texts)
    vectors = embed_captions(texts, tower().embed, tower().fits)
    scores = score(clips, own, vectors, kinds)
    flagged = suspects(scores, kinds)
    said = [parse(text) for text in texts]
    right = np.array(
        [
            np.mean([read[name] == getattr(scenes[clip], name) for name in ATTRIBUTES])
            for read, clip in zip(said, own, strict=True)
        ]
    )
    alone = right.reshape(len(RATES), n).mean(1)
    ids = [f"{i:05}" for i in range(len(texts))]
    rows = [
        {
            "caption_id": name,
            "clip_id": str(clip),
            "kind": "dense",
            "status": "ok",
            "flags": [SUSPECT] if suspect else [],
            "created_at": NOON,
        }
        for name, clip, suspect in zip(ids, own, flagged, strict=True)
    ]
    bare = dict(zip(ids, without_mean(vectors, kinds), strict=True))
    fit = dict(zip(ids, map(float, scores.fit), strict=True))
    attributes = dict(zip(ids, said, strict=True))

    def chosen(policy: ChoicePolicy, read: dict) -> tuple[float, float]:
        """(share of attributes that are right, share of clips with a caption)."""
        found = choose_all(rows, fit=fit, vectors=bare, attributes=read, policy=policy).values()
        taken = [right[int(choice.caption_id)] for choice in found if choice.caption_id is not None]
        assert all(choice.caption_id is not None or choice.reason for choice in found)
        return float(np.mean(taken)), len(taken) / n

    always = ChoicePolicy(least_fit=None, least_agreement=None)
    strict = ChoicePolicy(least_agreement=0.4)
    for read, least, least_strict in (({}, 0.955, 0.962), (attributes, 0.965, 0.977)):
        every, default, careful = (chosen(policy, read) for policy in (always, ChoicePolicy(), strict))
        print(f"alone {alone.round(4)}, chosen {every}, by default {default}, at agreement 0.4 {careful}")
        assert every[0] > least > alone.max() + 0.05
        assert every[1] == 1
        assert default[0] >= every[0]
        assert default[1] > 0.97
        assert careful[0] > max(least_strict, every[0] + 0.003)
        assert careful[1] > 0.85
