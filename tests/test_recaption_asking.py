"""What is asked of a captioner: windows and their merging, second tries, repairs; one row per plan, always."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from recaption.asking import Job, ask
from recaption.captioner import CaptionerIdentity, CaptionRequest, CaptionResult
from recaption.hints import ClipFacts
from recaption.moments import FrameChoice
from recaption.plan import KeptClip, Recipe
from recaption.prompts import newest
from recaption.rows import ClipSpan
from recaption.structured import FIELDS

IDENTITY = CaptionerIdentity("openai", "m", sampling={"temperature": 0.0})
KINDS = ("short", "dense", "structured", "rewrite", "window", "merged")
LOOP = "A red disc moves left over the hill. " * 30
OBJECT = json.dumps(dict.fromkeys(FIELDS, None) | {"subject": "A red disc."})


class Scripted:
    """A captioner that answers by a function of the request, in reverse order, and keeps what it was asked."""

    identity = IDENTITY

    def __init__(self, answer: Callable[[CaptionRequest], str | CaptionResult | None]) -> None:
        self.answer = answer
        self.asked: list[CaptionRequest] = []

    def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        self.asked += requests
        results = [(request, self.answer(request)) for request in reversed(requests)]
        return [
            CaptionResult(
                r.clip_id, r.kind, "ok", a, tokens_in=10, tokens_out=2, cost_usd=0.5, window=r.window
            )
            if isinstance(a, str)
            else a
            for r, a in results
            if a is not None
        ]


def recipe(*kinds: str, window_s: float | None = None, facts: str = "hint") -> Recipe:
    wanted = [*kinds, *(("window", "merged") if window_s else ())]
    prompts = {kind: newest(kind) for kind in wanted}
    return Recipe(IDENTITY, prompts, FrameChoice(count=2), 90, 3, window_s, facts)  # type: ignore[arg-type]


def clip(name: str = "c1", seconds: float = 9.0, **facts: object) -> KeptClip:
    return KeptClip(ClipSpan(name, 1.0, 1.0 + seconds), "film.mp4", 90, facts=ClipFacts(**facts))  # type: ignore[arg-type]


def jobs(made: Recipe, *clips: KeptClip) -> list[Job]:
    picture = np.zeros((2, 8, 8, 3), np.uint8)
    return [
        Job(plan, picture, plan.times_s) if plan.times_s else Job(plan)
        for one in clips
        for plan in made.plans(one)
    ]


def test_a_long_clip_is_told_in_windows_and_merged() -> None:
    made = recipe("dense", window_s=4.0)
    captioner = Scripted(
        lambda r: f"Part {r.window} of {r.clip_id}." if len(r.frames) else f"All: {r.prompt}"
    )
    rows = ask(captioner, jobs(made, clip()), {}, "run")
    assert [(r["kind"], r["window"], r["start_s"], r["end_s"]) for r in rows] == [
        ("dense", 0, 1.0, 4.0),
        ("dense", 1, 4.0, 7.0),
        ("dense", 2, 7.0, 10.0),
        ("merged", 0, 1.0, 10.0),
    ]
    assert [row["prompt_id"] for row in rows] == ["dense.v2", "window.v1", "window.v1", "merged.v1"]
    # A window after the first begins with the last moment of the one before.
    assert rows[0]["frame_times_s"] == pytest.approx([1.75, 3.25])
    assert rows[1]["frame_times_s"] == pytest.approx([3.25, 4.75, 6.25])
    assert "part 2 of 3" in captioner.asked[1].prompt
    assert all("part" in row["flags"] for row in rows[:3])
    assert rows[3]["flags"] == []
    assert rows[3]["parent_ids"] == [row["caption_id"] for row in rows[:3]]
    assert rows[3]["parent_id"] == rows[0]["caption_id"]
    assert "1. Part 0 of c1.\n2. Part 1 of c1.\n3. Part 2 of c1." in captioner.asked[3].prompt
    assert captioner.asked[3].frames.shape == (0, 1, 1, 3)


def test_measured_facts_stand_behind_the_story_and_not_behind_its_parts() -> None:
    made = recipe("dense", window_s=4.0, facts="suffix")
    rows = ask(Scripted(lambda r: "A red disc moves."), jobs(made, clip(camera="pan")), {}, "run")
    assert [row["text"] for row in rows[:3]] == ["A red disc moves."] * 3
    assert rows[3]["text"] == "A red disc moves. Camera: pan."


def test_a_caption_made_from_others_waits_for_them_or_says_which_is_missing() -> None:
    made = recipe("dense", "rewrite", window_s=4.0)
    lost = Scripted(lambda r: None if r.window == 1 else "A red disc moves.")
    first = jobs(made, clip())
    rows = ask(lost, first, {}, "run")
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error", "error"]
    assert rows[1]["error"] == "the captioner returned no result for this clip"
    assert rows[3]["error"].startswith("1 of the 3 captions that this one is made from have no text")
    assert rows[1]["caption_id"] in rows[3]["error"]
    # A later run makes the three that failed; the texts that are there are handed in.
    there = {row["caption_id"]: row["text"] for row in rows if row["text"]}
    failed = [job for job, row in zip(first, rows, strict=True) if row["status"] == "error"]
    whole = Scripted(lambda r: "A red disc moves.")
    again = ask(whole, failed, there, "run 2")
    assert [row["status"] for row in again] == ["ok", "ok", "ok"]
    assert len(whole.asked) == 3


def test_order_of_answers_decides_nothing() -> None:
    made = recipe("short", "dense")
    rows = ask(
        Scripted(lambda r: f"{r.kind} of {r.clip_id}."),
        jobs(made, *(clip(f"c{i}") for i in range(20))),
        {},
        "r",
    )
    assert [row["text"] for row in rows] == [f"{r['kind']} of {r['clip_id']}." for r in rows]


def test_a_loop_is_asked_for_again_hotter_and_with_another_seed() -> None:
    captioner = Scripted(lambda r: LOOP if r.temperature is None else "A red disc moves left.")
    (row,) = ask(captioner, jobs(recipe("dense"), clip()), {}, "run")
    first, second = captioner.asked
    assert (first.seed, first.temperature) == (3, None)
    assert (second.seed, second.temperature) == (4, 0.7)
    assert (row["status"], row["text"]) == ("ok", "A red disc moves left.")
    assert row["flags"] == ["length:under", "second_try"]
    assert (row["seed"], json.loads(row["sampling"])["temperature"], row["retries"]) == (4, 0.7, 1)
    assert (row["tokens_in"], row["tokens_out"], row["cost_usd"]) == (20, 4, 1.0)


def test_a_loop_that_comes_back_stays_a_failure_after_one_more_try() -> None:
    captioner = Scripted(lambda r: LOOP)
    (row,) = ask(captioner, jobs(recipe("dense"), clip()), {}, "run")
    assert len(captioner.asked) == 2
    assert (row["status"], row["text"], row["text_raw"]) == ("repetitive", None, LOOP)
    assert row["flags"] == []
    assert row["error"].endswith("second try: repetitive") or "second try" in row["error"]


def test_json_that_does_not_fit_is_sent_back_once() -> None:
    captioner = Scripted(lambda r: '{"subject": "A red disc."}' if len(r.frames) else OBJECT)
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    ask_first, repair = captioner.asked
    assert ask_first.schema is not None
    assert '{"subject": "A red disc."}' in repair.prompt
    assert (row["status"], row["text"], row["flags"]) == ("ok", "A red disc.", ["repaired"])
    assert json.loads(row["structured"])["subject"] == "A red disc."


def test_json_that_cannot_be_repaired_is_null_with_the_raw_text_kept() -> None:
    captioner = Scripted(lambda r: "no JSON here")
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    assert len(captioner.asked) == 2
    assert (row["status"], row["structured"], row["text"]) == ("bad_json", None, None)
    assert row["text_raw"] == "no JSON here"
    assert row["error"].startswith("there is no JSON object in the answer; second try:")
    assert (row["flags"], row["retries"]) == ([], 1)


def test_an_object_that_stays_wrong_is_not_called_repaired() -> None:
    captioner = Scripted(lambda r: '{"subject": "A red disc."}')
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    assert len(captioner.asked) == 2
    assert (row["status"], row["flags"], row["retries"]) == ("bad_json", [], 1)


def test_an_excuse_is_not_repaired_into_a_caption() -> None:
    excuse = "I'm sorry, but I can't view videos."
    captioner = Scripted(lambda r: excuse if len(r.frames) else OBJECT)
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    assert len(captioner.asked) == 1
    assert (row["status"], row["text"], row["structured"]) == ("refused", None, None)
    assert row["text_raw"] == excuse


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_an_object_that_was_cut_off_is_asked_for_again_with_the_frames(finish: str) -> None:
    cut = '{"subject": "A red disc.", "action": "It mo'

    def answer(r: CaptionRequest) -> CaptionResult | str:
        if not len(r.frames):
            return json.dumps(dict.fromkeys(FIELDS, "invented"))
        if r.temperature is not None:
            return OBJECT
        status = "truncated" if finish == "length" else "ok"
        return CaptionResult(r.clip_id, r.kind, status, cut, finish_reason=finish, window=r.window)  # type: ignore[arg-type]

    captioner = Scripted(answer)
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    first, second = captioner.asked
    assert second.prompt == first.prompt
    assert (len(second.frames), second.seed, second.temperature) == (2, 4, 0.7)
    assert (row["status"], row["text"], row["flags"]) == ("ok", "A red disc.", ["second_try"])


def test_a_faulty_object_stopped_by_the_length_limit_is_not_completed() -> None:
    def answer(r: CaptionRequest) -> CaptionResult:  # the braces are those of a quotation
        return CaptionResult(
            r.clip_id, r.kind, "truncated", '{"subject": "A sign: {x}', finish_reason="length"
        )

    captioner = Scripted(answer)
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    assert [len(asked.frames) for asked in captioner.asked] == [2, 2]
    assert (row["status"], row["flags"]) == ("bad_json", [])
    assert row["error"].startswith("cut off by the length limit before the object ended (raise max_tokens): ")


def test_a_subject_that_goes_round_in_circles_is_asked_for_again() -> None:
    loop = json.dumps(dict.fromkeys(FIELDS, None) | {"subject": "a red ball and " * 60})
    captioner = Scripted(lambda r: loop if r.temperature is None else OBJECT)
    (row,) = ask(captioner, jobs(recipe("structured"), clip()), {}, "run")
    assert [asked.temperature for asked in captioner.asked] == [None, 0.7]
    assert (row["status"], row["text"], row["flags"]) == ("ok", "A red disc.", ["second_try"])


def test_measured_facts_are_hints_or_a_suffix() -> None:
    pan = clip(camera="pan", motion=12.0)
    for facts, in_prompt, behind in (
        ("hint", True, False),
        ("suffix", False, True),
        ("both", True, True),
        ("none", False, False),
    ):
        captioner = Scripted(lambda r: "A red disc moves left.")
        (row,) = ask(captioner, jobs(recipe("dense", facts=facts), pan), {}, "run")
        assert ("the camera pans sideways" in captioner.asked[0].prompt) == in_prompt
        assert (row["text"] == "A red disc moves left. Camera: pan. Motion: moderate.") == behind
        assert row["text_raw"] == "A red disc moves left."


def test_no_frames_fail_their_own_row() -> None:
    good, bad = jobs(recipe("short"), clip("good"), clip("bad"))
    rows = ask(Scripted(lambda r: "A disc."), [good, Job(bad.plan, error="film.mp4 is gone")], {}, "run")
    assert [(row["status"], row["error"]) for row in rows] == [("ok", None), ("error", "film.mp4 is gone")]


def test_nobody_is_asked_about_pictures_without_pictures() -> None:
    (job,) = jobs(recipe("short"), clip())
    captioner = Scripted(lambda r: "A disc.")
    (row,) = ask(captioner, [Job(job.plan)], {}, "run")
    assert captioner.asked == []
    assert (row["status"], row["error"]) == ("error", "there are no frames for this caption of kind short")


def test_requests_know_the_language_asked_for() -> None:
    asked = Scripted(lambda request: "Eine rote Scheibe.")
    made = replace(recipe("short"), lang="de")
    ask(asked, jobs(made, clip()), {}, "run")
    assert [request.lang for request in asked.asked] == ["de"]
