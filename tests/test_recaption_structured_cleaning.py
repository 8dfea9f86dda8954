"""Fields of structured captions go through the rules of captions; what falls is null, or takes the caption along."""

from __future__ import annotations

import json

import pytest

from recaption.hints import CAMERA_WORDS
from recaption.structured import FIELDS
from recaption.structured_cleaning import clean_structured

LOOP = "a red ball and " * 60


def answer(**fields: str | None) -> str:
    return json.dumps(dict.fromkeys(FIELDS, None) | {"subject": "A red ball."} | fields, ensure_ascii=False)


@pytest.mark.parametrize(
    ("subject", "status", "told"),
    [
        ("I'm sorry, I cannot describe this video.", "refused", None),
        (LOOP, "repetitive", "subject: 4 words 4 times in a row"),
        ("一个红色的球在绿色的山丘上向左移动", "wrong_lang", "subject: written in Han letters"),
        ("No people are visible.", "error", "subject: every sentence only guesses or says what is absent"),
        ("It appears to be unknown.", "error", "subject: "),
    ],
)
def test_the_caption_falls_with_its_subject(subject: str, status: str, told: str | None) -> None:
    cleaned, fields = clean_structured(answer(subject=subject, action="It rolls left."))
    assert (cleaned.text, cleaned.status, fields) == (None, status, None)
    assert (cleaned.error is None) if told is None else (cleaned.error or "").startswith(told)


@pytest.mark.parametrize(
    ("words", "left", "flags"),
    [
        ("No people are visible.", None, ("drop_absence",)),
        ("It is unclear where this is.", None, ("drop_hedges",)),
        ("I'm sorry, I cannot describe the background.", None, ("drop_field",)),
        (LOOP, None, ("drop_field",)),
        ("一片绿色的草地和许多高大的树木", None, ("drop_field",)),
        ("A red ball.", None, ("drop_copies",)),
        ("The video shows a green hill", "A green hill.", ("drop_preamble",)),
        ("A green hill. No people are visible.", "A green hill.", ("drop_absence",)),
    ],
)
def test_another_field_falls_alone(words: str, left: str | None, flags: tuple[str, ...]) -> None:
    cleaned, fields = clean_structured(answer(background=words))
    assert (cleaned.status, cleaned.flags) == ("ok", flags)
    assert fields == dict.fromkeys(FIELDS) | {"subject": "A red ball.", "background": left}
    assert cleaned.text == ("A red ball." if left is None else f"A red ball. {left}")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("禁止停车", "禁止停车."),
        ("Sorry, I cannot help you.", "Sorry, I cannot help you."),
        ("NO ENTRY", "NO ENTRY."),
        ("No text is visible.", None),
        ("No text", None),
        ("SALE " * 40, None),
    ],
)
def test_text_in_the_picture_is_a_quotation(words: str, left: str | None) -> None:
    cleaned, fields = clean_structured(answer(on_screen_text=words))
    assert cleaned.status == "ok"
    assert fields is not None
    assert fields["on_screen_text"] == left


def test_fields_too_short_to_tell_are_judged_together() -> None:
    german = {
        "subject": "Ein Ball.",
        "action": "Er rollt.",
        "background": "Ein Hügel.",
        "lighting": "Es ist hell.",
    }
    cleaned, fields = clean_structured(answer(**german))
    assert (cleaned.status, fields) == ("wrong_lang", None)
    assert clean_structured(answer(**german), lang="de")[0].text == " ".join(german.values())
    told = "A red ball rolls over the hill while the sun shines on the grass and the trees"
    again = dict.fromkeys(list(FIELDS)[1:7], "")
    again = {name: f"{told} {place}." for place, name in enumerate(again)}
    cleaned, fields = clean_structured(answer(**again))
    assert (cleaned.status, fields) == ("repetitive", None)


@pytest.mark.parametrize(
    ("raw", "truncated", "status"),
    [
        ("I'm sorry, I can't view videos.", False, "refused"),
        ("I'm sorry, I can't view videos, but here is an example:\n" + answer(), False, "refused"),
        ("Sure! Here it is:\n```json\n" + answer() + "\n```", False, "ok"),
        ('{"subject": "' + LOOP, True, "repetitive"),
        ('{"subject": "A red ball", "action": "It ro', True, "bad_json"),
        (answer(), True, "ok"),  # stopped right behind the last brace
        ("A red ball rolls left.", False, "bad_json"),
    ],
)
def test_what_is_no_object_is_told_apart(raw: str, truncated: bool, status: str) -> None:
    cleaned, fields = clean_structured(raw, truncated=truncated)
    assert (cleaned.status, fields is None) == (status, status != "ok")
    assert ("raise max_tokens" in (cleaned.error or "")) == (status == "bad_json" and truncated)


def test_the_measured_camera_goes_before_what_the_captioner_thinks() -> None:
    raw = answer(camera="I'm sorry, I cannot tell how the camera moves.")
    cleaned, fields = clean_structured(raw, camera=CAMERA_WORDS["pan"])
    assert fields is not None
    assert fields["camera"] == "The camera pans sideways."
    assert cleaned.text == "A red ball. The camera pans sideways."
