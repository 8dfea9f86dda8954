"""Raw captions to text: each rule on what it must change and on what it must leave alone."""

import pytest

from recaption.clean import clean

GOOD = [
    "A small red disc moves left over a green hill.",
    'A man says "I\'m sorry, I cannot help" and turns away.',
    "The video game on the screen shows a castle.",
    "In the distance, a train passes: it is red.",
    "A dog shows its teeth. The image on the wall moves.",
    "Heavy rain falls on a street; people run.",
    "Here a river bends twice.",
    "I-beams hang from a crane.",
    'A sign reads "OPEN".',
    "In the video arcade, lights blink.",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_captions_stay_as_they_are(text: str) -> None:
    found = clean(text)
    assert (found.text, found.status, found.flags) == (text, "ok", ())


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        ("  a\u00a0red\u200b  disc\n moves ", "a red disc moves", ()),
        ("cafe\u0301 lights", "café lights", ()),
        ("A man\u2019s hat", "A man's hat", ()),
        ("```\nA red disc.\n```", "A red disc.", ("drop_fence",)),
        ("```text\nA red disc.", "A red disc.", ("drop_fence",)),
        ('"A red disc moves."', "A red disc moves.", ("drop_quotes",)),
        ("<think>It is a disc.</think>\nA red disc.", "A red disc.", ("drop_thinking",)),
        ("It is a disc.</think>A red disc.", "A red disc.", ("drop_thinking",)),
        ("The video shows a red disc.", "A red disc.", ("drop_preamble",)),
        ("the video clip depicts a red disc", "a red disc", ("drop_preamble",)),
        ("Sure! Here is a caption: A red disc.", "A red disc.", ("drop_preamble",)),
        ("**Caption:** A red disc.", "A red disc.", ("drop_preamble",)),
        ("In this video, a red disc moves.", "A red disc moves.", ("drop_preamble",)),
        (
            "Here's the description of the clip:\nIn the video, the disc moves.",
            "The disc moves.",
            ("drop_preamble",),
        ),
        ("In this clip a red disc moves.", "A red disc moves.", ("drop_preamble",)),
        ("```\nThe clip shows a disc.\n```", "A disc.", ("drop_fence", "drop_preamble")),
    ],
)
def test_trimmings_go(raw: str, text: str, flags: tuple[str, ...]) -> None:
    found = clean(raw)
    assert (found.text, found.status, found.flags) == (text, "ok", flags)


@pytest.mark.parametrize(
    "raw",
    [
        "I'm sorry, but I can't describe this.",
        "I\u2019m unable to view videos.",
        "I cannot assist with that.",
        "As an AI model, I see nothing.",
        "Sorry, I can't help.",
        "Unfortunately, I cannot see the frames.",
    ],
)
def test_refusals_have_no_text(raw: str) -> None:
    found = clean(raw)
    assert (found.text, found.status) == (None, "refused")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A disc moves. It then tur", "A disc moves."),
        ("It is 2.5 m wide. It moves! And th", "It is 2.5 m wide. It moves!"),
        ('He says "stop." Then he', 'He says "stop."'),
        ("a disc moves and", "a disc moves and"),
        ("All of it came.", "All of it came."),
    ],
)
def test_cut_captions_end_with_their_last_whole_sentence(raw: str, text: str) -> None:
    found = clean(raw, truncated=True)
    assert (found.text, found.status) == (text, "truncated")


@pytest.mark.parametrize("raw", ["", "  ", "...", "<think>I wonder", "```\n```", "\u200b"])
def test_no_words_is_an_error(raw: str) -> None:
    found = clean(raw)
    assert (found.text, found.status, found.error) == (None, "error", "the captioner returned no words")
