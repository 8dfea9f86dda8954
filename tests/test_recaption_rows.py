"""Identity of captions, and rows of the captions table."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from curate.errors import BadInput
from curate.tables import CAPTIONS
from recaption.captioner import CaptionerIdentity, CaptionResult
from recaption.cleaning.clean import CLEANER_VERSION
from recaption.prompts import CAPTIONS_HERE, Prompt, newest
from recaption.reading import TOO_LONG, TOO_SHORT, length_flags, read
from recaption.rows import ClipSpan, Plan, caption_row, sidecar_row
from recaption.trust.choose import ChoicePolicy, penalty

CLIP = ClipSpan("c1", 1.0, 3.0, (0, 10, 100, 80))
IDENTITY = CaptionerIdentity("openai", "m", "r1", {"temperature": 0.0}, flags=("world_captioner",))


def plan(**changes: object) -> Plan:
    found = Plan(
        CLIP, "dense", IDENTITY, Prompt("dense.v1", "Describe."), (1.25, 1.75, 2.25, 2.75), 144, seed=7
    )
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_caption_id_is_stable() -> None:
    assert plan().caption_id == plan().caption_id == "377a6f43529770ffb677fad9c0f816f4"


@pytest.mark.parametrize(
    "changes",
    [
        {"clip": dataclasses.replace(CLIP, clip_id="c2")},
        {"clip": dataclasses.replace(CLIP, crop=None)},
        {"clip": dataclasses.replace(CLIP, end_s=3.5)},
        {"kind": "short"},
        {"prompt": Prompt("dense.v1", "Describe!")},
        {"times_s": (1.0, 2.0)},
        {"frame_height": 288},
        {"seed": 8},
        {"window": 1},
        {"span": (1.0, 2.0)},
        {"keyframes": 8},
        {"parents": ("p",)},
        {"lang": "de"},
        {"identity": dataclasses.replace(IDENTITY, captioner="vllm")},
        {"identity": dataclasses.replace(IDENTITY, model="n")},
        {"identity": dataclasses.replace(IDENTITY, revision="r2")},
        {"identity": dataclasses.replace(IDENTITY, sampling={"temperature": 0.1})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_changes_the_words_changes_the_caption_id(changes: dict) -> None:
    assert plan(**changes).caption_id != plan().caption_id


def test_renaming_a_prompt_file_changes_nothing() -> None:
    assert plan(prompt=Prompt("dense.v2", "Describe.")).caption_id == plan().caption_id


def test_row_holds_raw_and_cleaned_text_and_fits_the_table() -> None:
    result = CaptionResult(
        "c1", "dense", "ok", text_raw="The video shows a disc.", tokens_out=5, latency_ms=12.5
    )
    row = caption_row(plan(), result, frame_times_s=[1.2, 1.8], run_id="r")
    assert (row["text"], row["text_raw"], row["status"]) == ("A disc.", "The video shows a disc.", "ok")
    assert row["flags"] == ["world_captioner", "length:under", "drop_preamble"]
    assert (row["lang"], row["cleaner_version"]) == ("en", CLEANER_VERSION)
    assert (row["frame_times_s"], row["n_frames"], row["window"], row["seed"]) == ([1.2, 1.8], 2, 0, 7)
    assert (row["prompt_id"], row["prompt_hash"]) == ("dense.v1", Prompt("", "Describe.").prompt_hash)
    assert row["sampling"] == '{"temperature": 0.0}'
    assert row.keys() == set(CAPTIONS.names)
    table = pa.Table.from_pylist([row], schema=CAPTIONS)
    assert table["caption_id"][0].as_py() == plan().caption_id


def test_row_of_an_error_keeps_its_text_and_has_no_caption() -> None:
    row = caption_row(
        plan(), CaptionResult("c1", "dense", "error", error="HTTP 500"), frame_times_s=[], run_id="r"
    )
    assert (row["text"], row["text_raw"], row["status"], row["error"]) == (None, None, "error", "HTTP 500")
    assert row["cleaner_version"] is None  # nothing was cleaned
    cut = caption_row(
        plan(), CaptionResult("c1", "dense", "truncated", text_raw="One. Tw"), frame_times_s=[], run_id="r"
    )
    assert (cut["text"], cut["status"]) == ("One.", "truncated")
    refused = caption_row(
        plan(), CaptionResult("c1", "dense", "ok", text_raw="I cannot do that."), frame_times_s=[], run_id="r"
    )
    assert (refused["text"], refused["status"]) == (None, "refused")


@pytest.mark.parametrize(
    ("kind", "words", "flags"),
    [
        ("dense", 79, ["length:under"]),
        ("dense", 80, []),
        ("dense", 200, []),
        ("dense", 201, ["length:over"]),
        ("merged", 79, ["length:under"]),
        ("short", 5, []),
        ("rewrite", 5, []),
    ],
)
def test_dense_captions_outside_their_length_are_flagged(kind: str, words: int, flags: list[str]) -> None:
    assert length_flags(kind, " ".join(["word"] * words)) == flags


def test_a_flag_for_length_is_all_that_a_short_paragraph_gets() -> None:
    def told(text: str, *flags: str, lang: str = "en", suffix: str = "") -> tuple:
        row = read("dense", text, list(flags), truncated=False, camera=None, suffix=suffix, lang=lang)
        return row["status"], row["text"], row["flags"]

    assert told("A dog.") == ("ok", "A dog.", ["length:under"])
    # What is measured does not make a caption longer.
    assert told("A dog.", suffix="Motion: slow. " * 40)[2] == ["length:under", "facts_suffix"]
    assert told("A dog.", "part") == ("ok", "A dog.", ["part"])
    assert told("Ein Hund.", lang="de") == ("ok", "Ein Hund.", [])
    assert told("I cannot describe this video.") == ("refused", None, [])
    assert penalty((TOO_SHORT, TOO_LONG), ChoicePolicy()) == 0.0


@pytest.mark.parametrize(("clip_id", "kind"), [("c2", "dense"), ("c1", "short")])
def test_a_result_of_another_clip_or_kind_is_refused(clip_id: str, kind: str) -> None:
    with pytest.raises(ValueError, match="must not move"):
        caption_row(plan(), CaptionResult(clip_id, kind, "ok", text_raw="x"), frame_times_s=[], run_id="r")


def test_sidecar_captions_become_original_rows() -> None:
    row = sidecar_row(CLIP, " red ball\n goes left ", run_id="r")
    assert (row["kind"], row["captioner"], row["status"]) == ("original", "sidecar", "ok")
    assert (row["text"], row["text_raw"]) == ("red ball goes left", " red ball\n goes left ")
    assert pa.Table.from_pylist([row], schema=CAPTIONS).num_rows == 1
    assert (
        sidecar_row(CLIP, "x", run_id="a")["caption_id"] == sidecar_row(CLIP, "x", run_id="b")["caption_id"]
    )
    assert (
        sidecar_row(CLIP, "x", run_id="a")["caption_id"] != sidecar_row(CLIP, "y", run_id="a")["caption_id"]
    )


@pytest.mark.parametrize("kind", ["short", "dense", "structured", "window", "merged", "rewrite"])
def test_our_prompts_are_filled_in(kind: str) -> None:
    facts = {"facts": "Measured: the camera pans.", "window": 2, "n_windows": 3, "captions": "A disc."}
    prompt = newest(kind).render(n_frames=8, duration_s=2.345, **facts)  # type: ignore[arg-type]
    assert prompt.prompt_id == f"{kind}.v{2 if kind in ('short', 'dense') else 1}"
    assert ("8 frames" in prompt.text) == (kind not in ("merged", "rewrite"))
    assert ("A disc." in prompt.text) == (kind in ("merged", "rewrite"))
    assert ("Measured: the camera pans." in prompt.text) == (kind != "rewrite")
    assert "2.3 seconds" in prompt.text
    assert "$" not in prompt.text
    assert len(prompt.prompt_hash) == 16


def test_what_was_not_measured_leaves_no_empty_line() -> None:
    assert "\n\n" not in newest("dense").render(n_frames=8, duration_s=2.0).text


def test_the_number_of_frames_may_come_later() -> None:
    prompt = newest("dense").render(n_frames=None, duration_s=2.0)
    assert "These $n_frames frames" in prompt.text
    assert prompt.with_frames(3) == newest("dense").render(n_frames=3, duration_s=2.0)


def test_captions_of_others_come_in_as_they_are() -> None:
    prompt = newest("merged").render(n_frames=0, duration_s=9.0, n_windows=2, captions=CAPTIONS_HERE)
    told = prompt.with_captions(["A sign says $captions.", "It costs $5 {x}."])
    assert "1. A sign says $captions.\n2. It costs $5 {x}." in told.text
    assert told.prompt_hash != prompt.prompt_hash


def test_the_newest_version_of_a_prompt_is_used(tmp_path: Path) -> None:
    for version in (2, 9, 10):
        (tmp_path / f"short.v{version}.txt").write_text(f"Version {version}, $n_frames frames.")
    prompt = newest("short", tmp_path).render(n_frames=3, duration_s=1)
    assert (prompt.prompt_id, prompt.text) == ("short.v10", "Version 10, 3 frames.")


def test_bad_prompts_are_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no prompt for captions of kind 'dense'.*dense\.v1\.txt"):
        newest("dense", tmp_path).render(n_frames=3, duration_s=1)
    (tmp_path / "dense.v1.txt").write_text("Describe $colour.")
    with pytest.raises(BadInput, match="asks for 'colour'"):
        newest("dense", tmp_path).render(n_frames=3, duration_s=1)
