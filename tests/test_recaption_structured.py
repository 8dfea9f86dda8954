"""Structured captions: what is read from answers of all kinds, and measured facts in words."""

import json

import pytest

from recaption.hints import ClipFacts, hints, motion_word, suffix
from recaption.structured import FIELDS, prose, read_structured, repair_prompt

FULL = dict.fromkeys(FIELDS, None) | {"subject": "A red disc", "action": "It moves left."}


@pytest.mark.parametrize(
    "around",
    ["{}", "```json\n{}\n```", "Here it is:\n{}\nI hope this helps.", "<think>A disc? {{x}}</think>{}"],
    ids=["bare", "fence", "talk", "thinking"],
)
def test_an_object_is_found_wherever_it_stands(around: str) -> None:
    found = read_structured(around.replace("{}", json.dumps(FULL)).replace("{{", "{").replace("}}", "}"))
    assert found.error is None
    assert found.fields == dict.fromkeys(FIELDS) | {"subject": "A red disc.", "action": "It moves left."}
    assert list(found.fields) == list(FIELDS)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("A red disc moves left.", "no JSON object"),
        ('{"subject": "A red disc"', "no JSON object"),
        ('{"subject": "A red disc",}', "JSONDecodeError"),
        (json.dumps(FULL | {"subject": None}), "subject: None is not of type 'string'"),
        (json.dumps(FULL | {"subject": " "}), "subject is empty"),
        (json.dumps(FULL | {"mood": "calm"}), "mood"),
        (json.dumps(FULL | {"style": 3}), "style: 3"),
        (json.dumps({"subject": "A disc"}), "'action' is a required property"),
        ("[" * 100_000 + "{}", "required property"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "RecursionError"),
    ],
    ids=["prose", "cut_off", "comma", "null", "blank", "extra", "number", "missing", "deep_list", "deep"],
)
def test_what_does_not_fit_says_why(answer: str, told: str) -> None:
    found = read_structured(answer)
    assert found.fields is None
    assert told in (found.error or "")
    assert answer[:50] in repair_prompt(answer, found.error or "")


def test_words_for_nothing_are_null() -> None:
    found = read_structured(json.dumps(FULL | {"style": "N/A", "atmosphere": "none.", "lighting": ""}))
    assert found.fields is not None
    assert [found.fields[name] for name in ("style", "atmosphere", "lighting")] == [None, None, None]
    assert prose(found.fields) == "A red disc. It moves left."


def test_only_what_was_measured_is_told() -> None:
    assert hints(ClipFacts()) == suffix(ClipFacts()) == ""
    facts = ClipFacts(camera="zoom_in", motion=12.0, text_area=0.0)
    assert hints(facts) == "Measured: the camera zooms in; motion is moderate; no text can be read."
    assert suffix(facts) == "Camera: zoom in. Motion: moderate."
    assert hints(ClipFacts(text_area=0.05)) == "Measured: text can be read: quote it as it stands."
    little = hints(ClipFacts(text_area=0.0005))
    assert little == "Measured: there is a little text: quote it if it can be read."
    lasting = hints(ClipFacts(camera="zoom_in"), duration_s=2.44)
    assert lasting == "Measured: the clip lasts 2.4 seconds; the camera zooms in."
    assert hints(ClipFacts(motion=0.1)) == "Measured: hardly anything moves."


def test_speed_has_words() -> None:
    assert [motion_word(m) for m in (0.0, 0.5, 5.0, 20.0, 60.0, 1e6)] == [
        "none",
        "slow",
        "moderate",
        "fast",
        "very fast",
        "very fast",
    ]


def test_half_a_character_in_json_letters_is_replaced() -> None:
    found = read_structured(
        '{"subject": "A cat \\ud83d", ' + ", ".join(f'"{n}": null' for n in FIELDS if n != "subject") + "}"
    )
    assert found.fields is not None
    assert found.fields["subject"] == "A cat \ufffd."
