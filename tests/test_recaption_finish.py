"""The end of recaptioning: cleaned again, flagged, scored, chosen; all of it from what is in the tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from curate.tables import CAPTIONS, CLIPS
from recaption.captioner import CaptionerIdentity, CaptionResult
from recaption.cleaning.clean import CLEANER_VERSION
from recaption.finish import CLIP_COLUMNS, finish, recleaned
from recaption.prompts import Prompt
from recaption.rows import ClipSpan, Plan, caption_row
from recaption.structured import FIELDS

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def captions(*rows: dict) -> pa.Table:
    plain = dict.fromkeys(CAPTIONS.names) | {
        "kind": "dense",
        "status": "ok",
        "captioner": "openai",
        "model": "m",
        "cleaner_version": CLEANER_VERSION,
    }
    return pa.Table.from_pylist(
        [plain | {"caption_id": f"id{i}", "clip_id": f"c{i}", "created_at": NOON + timedelta(minutes=i)} | row
         for i, row in enumerate(rows)],
        schema=CAPTIONS,
    )  # fmt: skip


def clips(*rows: dict) -> pa.Table:
    plain = dict.fromkeys(CLIPS.names)
    made = [plain | {"clip_id": f"c{i}", "source_id": "s"} | row for i, row in enumerate(rows)]
    return pa.Table.from_pylist(made, schema=CLIPS).select(list(CLIP_COLUMNS))


def test_captions_of_an_older_cleaner_are_cleaned_from_the_raw_text() -> None:
    raw = "The video shows a red disc. It moves left. It appears to be a sunny d"
    table = captions(
        {"text": "old", "text_raw": raw, "cleaner_version": "0", "flags": ["world_captioner", "drop_quotes"],
         "status": "truncated", "finish_reason": "length"},
        {"text": "new", "text_raw": raw},
        {"text": None, "text_raw": None, "cleaner_version": "0", "status": "error", "error": "HTTP 500"},
        {"kind": "original", "text": "as people wrote it", "text_raw": raw, "cleaner_version": "0"},
        {"kind": "structured", "text_raw": json.dumps(dict.fromkeys(FIELDS) | {"subject": "A disc"}),
         "cleaner_version": "0"},
        {"text": "x Camera: pan.", "text_raw": "A disc moves.", "cleaner_version": "0", "flags": ["facts_suffix"]},
    )  # fmt: skip
    measured = clips({}, {}, {}, {}, {"camera": "pan"}, {"camera": "pan"})
    old, new, failed, original, structured, suffixed = recleaned(table, measured).to_pylist()
    assert (old["text"], old["status"]) == ("A red disc. It moves left.", "truncated")
    assert (old["text_raw"], old["cleaner_version"]) == (raw, CLEANER_VERSION)
    assert old["flags"] == ["world_captioner", "length:under", "drop_preamble"]
    assert new["text"] == "new"
    assert (failed["status"], failed["error"]) == ("error", "HTTP 500")
    assert original["text"] == "as people wrote it"
    assert json.loads(structured["structured"])["camera"] == "The camera pans sideways."
    assert suffixed["text"] == "A disc moves. Camera: pan."
    assert suffixed["flags"] == ["length:under", "facts_suffix"]
    once = [old, structured, suffixed]
    again = pa.Table.from_pylist([row | {"cleaner_version": "1"} for row in once], schema=CAPTIONS)
    assert recleaned(again, measured).to_pylist() == once  # no flag twice


def test_what_the_captioner_gave_up_is_never_made_good() -> None:
    half = "A man walks along a quiet street and then"
    table = captions(
        {"status": "refused", "text_raw": half, "finish_reason": "content_filter", "cleaner_version": "0"},
        {"status": "refused", "text_raw": half, "finish_reason": "stop", "cleaner_version": None},
        {"status": "error", "text_raw": " ", "error": "empty answer", "cleaner_version": "0"},
        {"status": "error", "text_raw": half, "error": "the engine died", "cleaner_version": None},
        {"status": "refused", "text_raw": half + ".", "finish_reason": "stop", "cleaner_version": "0"},
    )
    after = recleaned(table, clips(*[{}] * 5))
    assert after.slice(0, 4).to_pylist() == table.slice(0, 4).to_pylist()
    assert (after["status"][4].as_py(), after["text"][4].as_py()) == (
        "ok",
        half + ".",
    )  # the old rules were wrong


def test_what_a_server_filtered_stays_refused_from_the_answer_on() -> None:
    half = "A man walks along a quiet street and then"
    plan = Plan(
        ClipSpan("c0", 0.0, 1.0), "dense", CaptionerIdentity("openai", "m"), Prompt("p", "?"), (0.5,), 9, 0
    )
    kept_back = CaptionResult(
        "c0", "dense", "refused", half, finish_reason="stop"
    )  # said in the refusal field
    row = caption_row(plan, kept_back, frame_times_s=[0.5], run_id="r")
    assert (row["status"], row["text_raw"], row["cleaner_version"]) == ("refused", half, None)
    table = pa.Table.from_pylist([row], schema=CAPTIONS)
    assert recleaned(table, clips({})).to_pylist() == table.to_pylist()


def test_what_the_old_rules_emptied_is_cleaned_again() -> None:
    guessed = "every sentence only guesses or says what is absent"
    table = captions(
        {"status": "error", "error": guessed, "text_raw": "A dog runs over a lawn.", "cleaner_version": "0"},
        {"status": "error", "error": guessed, "text_raw": "No people are visible.", "cleaner_version": "0"},
    )
    better, same = recleaned(table, clips({}, {})).to_pylist()
    assert (better["status"], better["text"], better["error"]) == ("ok", "A dog runs over a lawn.", None)
    assert (same["status"], same["text"], same["error"]) == ("error", None, guessed)
    assert same["cleaner_version"] == CLEANER_VERSION


def test_captions_are_cleaned_again_in_their_own_language() -> None:
    german = "Ein großer Hund rennt über eine grüne Wiese und bellt laut."
    fields = json.dumps(
        dict.fromkeys(FIELDS) | {"subject": german, "camera": "Die Kamera schwenkt langsam nach links."}
    )
    table = captions(
        {"lang": "de", "text": german, "text_raw": german, "cleaner_version": "0"},
        {"lang": "de", "kind": "structured", "text": german, "text_raw": fields, "cleaner_version": "0"},
        {"lang": "en", "text_raw": german, "cleaner_version": "0"},
        {"lang": None, "text_raw": german, "cleaner_version": "0"},
    )
    rows = recleaned(table, clips(*[{"camera": "pan"}] * 4)).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "wrong_lang", "wrong_lang"]
    assert rows[0]["flags"] == []  # words are counted in English alone
    assert json.loads(rows[1]["structured"])["camera"] == "Die Kamera schwenkt langsam nach links."


def test_contradicted_captions_are_flagged_once_and_not_preferred() -> None:
    table = captions(
        {"clip_id": "c0", "text": "A red disc. The camera does not move."},
        {"clip_id": "c0", "text": "A red disc. The camera pans.", "captioner": "coca"},
        {"clip_id": "c0", "kind": "original", "text": "a static camera, my disc"},
    )
    once = finish(table, clips({"camera": "pan"}))
    again = finish(once, clips({"camera": "pan"}))
    assert [row["flags"] for row in again.to_pylist()] == [["fact:camera"], [], []]
    assert again["chosen"].to_pylist() == [False, True, True]
    unmeasured = finish(again, clips({}))
    assert [row["flags"] for row in unmeasured.to_pylist()] == [[], [], []]


def test_one_caption_on_many_different_clips_is_flagged() -> None:
    rng = np.random.default_rng(0)
    lines = [f"A {a} {b} stands in the {c} beside a {d} while somebody walks {e}." for a, b, c, d, e in rng.choice(
        ["grey", "tall", "old", "new", "wide", "thin", "red", "blue", "round", "flat"], (200, 5))]  # fmt: skip
    for place in range(0, 60, 3):
        lines[place] = "A man in a suit speaks at a wooden desk in front of a large window at night."
    embeddings = rng.normal(size=(200, 8))
    table = finish(
        captions(*[{"text": line} for line in lines]),
        clips(*[{"embedding": v.tolist()} for v in embeddings]),
    )
    flagged = [i for i, row in enumerate(table.to_pylist()) if "repeated_across_clips" in row["flags"]]
    assert flagged == list(range(0, 60, 3))
    same = clips(*[{"embedding": [1.0] * 8}] * 200)  # copies of one clip may well have one caption
    table = finish(captions(*[{"text": line} for line in lines]), same)
    assert not any(row["flags"] for row in table.to_pylist())


def test_swapped_captions_are_scored_low_flagged_and_not_chosen() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.normal(size=(300, 32))
    texts = (pictures + 0.3 * rng.normal(size=(300, 32))).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    swapped = list(range(10))
    texts[swapped] = texts[[*swapped[1:], swapped[0]]]
    table = finish(
        captions(*[{"text": f"caption {i} of its own"} for i in range(300)]),
        clips(*[{"embedding": v.tolist()} for v in pictures]),
        vectors=texts,
    )
    rows = table.to_pylist()
    assert [i for i, row in enumerate(rows) if "suspect_mismatch" in row["flags"]] == swapped
    assert [i for i, row in enumerate(rows) if not row["chosen"]] == swapped
    assert all("abstained" in rows[i]["flags"] for i in swapped)
    assert min(row["clip_margin"] for row in rows[10:]) > max(rows[i]["clip_margin"] for i in swapped)
    assert rows[20]["clip_score"] == pytest.approx(
        float(pictures[20] @ texts[20] / np.linalg.norm(pictures[20])), abs=1e-5
    )


def test_without_vectors_scores_are_null_and_every_clip_keeps_a_caption() -> None:
    table = finish(
        captions({"text": "a"}, {"text": "b", "status": "truncated"}, {"status": "error"}), clips({}, {}, {})
    )
    assert table["clip_score"].null_count == table["clip_margin"].null_count == 3
    assert table["chosen"].to_pylist() == [True, True, False]


def test_windows_of_a_clip_are_never_chosen() -> None:
    table = captions(
        {"clip_id": "c0", "text": "first half", "flags": ["part"], "window": 0},
        {"clip_id": "c0", "text": "second half", "flags": ["part"], "window": 1},
        {"clip_id": "c0", "text": "both", "kind": "merged"},
    )
    assert finish(table, clips({}))["chosen"].to_pylist() == [False, False, True]
