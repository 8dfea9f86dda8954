"""Turns of phrase of captioners that the rules of cleaning must tell from descriptions that look like them."""

from __future__ import annotations

import time

import pytest

from recaption.cleaning.clean import clean


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # Talk before the caption.
        ("Okay, so the video shows a dog on a lawn.", "A dog on a lawn."),
        ("So, in this clip, a man cooks.", "A man cooks."),
        ("Alright, let's see. The video shows a dog.", "A dog."),
        ("Okay, so we have a dog on a lawn.", "A dog on a lawn."),
        ("Let me describe the video: a dog runs.", "A dog runs."),
        # Labels in brackets.
        ("[Caption] A dog runs.", "A dog runs."),
        ("**[Video Description]**: A dog runs.", "A dog runs."),
        ("<caption>A dog runs.</caption>", "A dog runs."),
        # Control tokens of chat templates.
        ("A dog runs.<|im_end|>", "A dog runs."),
        ("A dog runs.</s>", "A dog runs."),
        ("A dog runs.<end_of_turn>\n<eos>", "A dog runs."),
        ("<s> A dog runs. </s>", "A dog runs."),
        ("<|im_start|>assistant\nA dog runs.<|im_end|>", "A dog runs."),
        ("<start_of_turn>model\nA dog runs.", "A dog runs."),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nA dog runs.<|eot_id|>", "A dog runs."),
        ("ASSISTANT: A dog runs.", "A dog runs."),
        ("A dog runs.<|im_end|>\n<|im_start|>user\nAgain, please.", "A dog runs."),
        # Conclusions.
        ("A dog wags its tail. This suggests that it is happy.", "A dog wags its tail."),
        ("A dog wags its tail, suggesting that it is happy.", "A dog wags its tail."),
        (
            "The sky is orange, indicating that it is late, as the boats rock.",
            "The sky is orange, as the boats rock.",
        ),
        ("The soft light and the quiet street suggest early morning. A cat sits.", "A cat sits."),
        ("The lighting suggests early morning, and a man walks.", "A man walks."),
        # Absence.
        ("A quiet beach, with no humans anywhere.", "A quiet beach."),
        ("A quiet beach with no people.", "A quiet beach."),
        ("A cat sits. There does not seem to be anyone else around.", "A cat sits."),
        ("A cat sits. There doesn't appear to be any text.", "A cat sits."),
        ("A cat sits. There is no text on the screen.", "A cat sits."),
        ("A cat sits. There is not anyone on the beach.", "A cat sits."),
        ("The field is empty, and nobody is around.", "The field is empty."),
        ("The scene has no dialogue, and a man sits on a chair.", "A man sits on a chair."),
    ],
)
def test_faults_go_and_the_rest_stays(raw: str, text: str) -> None:
    found = clean(raw)
    assert (found.text, found.status) == (text, "ok")


@pytest.mark.parametrize(
    "raw",
    [
        "Unable to process the video.",
        "Failed to load video.",
        "Error processing video",
        "Unable to generate a description for this content.",
        "The video could not be processed.",
    ],
)
def test_refusals_need_no_first_person(raw: str) -> None:
    assert (clean(raw).text, clean(raw).status) == (None, "refused")


@pytest.mark.parametrize(
    "text",
    [
        # A thing that lacks a part of itself is described by that.
        "A car without any doors is visible on the left.",
        "A room without windows is shown, and a lamp hangs in it.",
        "A jar with no lid can be seen on the shelf.",
        "A man with no hat stands in the background.",
        "A man with no car walks around.",
        "A man without any visible hair sings.",
        "There are no leaves on the trees.",
        "There is nothing left on the plate after he eats.",
        "There is no bread left.",
        "There is nothing in his hands.",
        "A man walks home, and there are no leaves on the trees.",
        "A T-shirt with no logo hangs on a line.",
        # More happens than that something is absent.
        "No boat moves, and a gull cries.",
        "No boat moves while a gull is seen above.",
        "No one is present while a robot cleans the floor.",
        "There are no people in the room, only a dog asleep on the rug.",
        # A picture in the picture.
        "In the picture the man holds up, a dog is visible.",
        "In the image the girl points at on the wall, a horse jumps.",
        "So a man walks into a bar, reads the cover.",
        "Let's go, reads a banner over the gate.",
        # Acts and instruments.
        "A waiter suggests a dish from the menu.",
        "She points left, indicating the door.",
        "A dial indicates 30 degrees.",
        "Unable to open the door, the man kicks it.",
        "Unable to open the video, the man restarts his phone.",
        "A screen shows the tag </s> in green letters.",
        "He doesn't seem to notice the bee.",
    ],
)
def test_descriptions_that_look_like_faults_stay(text: str) -> None:
    found = clean(text)
    assert (found.text, found.status, found.flags) == (text, "ok", ())


def test_the_rules_are_about_linear_in_the_length() -> None:
    """Blanks, tokens and commas by the thousand: what makes a regular expression go back and back."""
    began = time.perf_counter()
    for piece in (" ", "\n", "</s> ", "no one, ", "with no a b, ", "so, ", "this suggests ", "the light, "):
        clean("A dog" + piece * 3000)
    assert time.perf_counter() - began < 20


def test_a_sentence_that_begins_with_what_appears_to_be() -> None:
    text = clean("What appears to be a camera is mounted above the door, and rain falls.").text
    assert text == "A camera is mounted above the door, and rain falls."
