"""What a rewritten prompt may not lose, on literal pairs."""

from __future__ import annotations

import pytest

from recaption.upsampling.check import what_is_lost
from recaption.upsampling.word_forms import forms
from recaption.upsampling.word_ways import Way, take_ways

KEPT = [
    ("a dog runs on a beach", "A brown dog runs along a wide sandy beach at sunset. The camera follows it."),
    ("two dogs run on a beach", "Two brown dogs running along a beach, with a bird above"),
    ("a pair of dogs", "Two dogs play"),
    ("3 small white rabbits", "Three small, white rabbits hop"),
    ("a red car and a blue truck", "A shiny red car stands beside a blue truck"),
    ("a huge red ball", "A huge ball in red rolls"),
    ("a woman in a red dress dances", "A young woman dances slowly in a red dress"),
    ("a woman in red clothes", "A tall woman in red clothes walks"),
    ("a red and white flag", "A red and white flag waves in the wind"),
    ("an empty street with no people", "An empty street at night. There are no people."),
    ("a man who isn't wearing a hat", "A man in a coat who is not wearing a hat"),
    ('a sign that says "OPEN"', "A neon sign that says “OPEN” glows"),
    ("a car turns left at the corner", "A car turns left at a corner; there is a tree on the right"),
    ("a car drives left", "The camera turns right. A car drives to the left, a bus stands on the right."),
    (
        "a boat sails from left to right",
        "A white boat sails across from the left to the right on a calm lake",
    ),
    ("a disc going left", "A disc heads from right to left"),
    ("a moving disc", "A disc moves towards the top edge"),
    ("a balloon rises", "A yellow balloon rises into the sky and drifts away"),
    ("a close-up of a cat's face", "A close-up of the face of a grey cat"),
    ("the camera pans left over a city", "The camera pans slowly to the left over a city at dusk"),
    ("a star at rest", "A star stands still. The camera pans left."),
    ("clip of my red disc take two", "A red disc, seen from the side"),
    ("an old man sitting on a bench feeding pigeons", "An old man sits on a bench and feeds grey pigeons"),
    ("ein roter Ball rollt nach links", "Ein roter Ball rollt langsam nach links über eine Wiese"),
    ("", "anything at all"),
    ("a wooden chair", "An old, wooden kitchen chair stands in a room"),
    ("a wooden chair", "A chair made of dark wood stands in a room"),
    ("a wooden chair", "In a room with a steel table stands a chair that is wooden"),
    ("a sleeping dog", "A big brown dog sleeps on a rug beside a playing cat"),
    ("a sleeping dog", "A small dog lies sleeping on the rug"),
    ("a young woman and an old man", "A young, smiling woman walks with a tired old man"),
    ("young women and old men", "Two young Asian women talk to three old men"),
    ("a clockwise rotating wheel", "A large wooden wheel is rotating clockwise in the wind"),
    ("a wheel turning counter-clockwise", "A wheel is slowly turning anticlockwise"),
    ("dark blue sky", "A dark blue sky above light hills"),
    ("a woman in a dark blue dress", "A woman smiles. Her dress is dark blue."),
    ("a man eats fresh bread", "A man at a table eats a slice of fresh, warm bread"),
    (
        "the young man walks a dog through the busy city",
        "A young man in a coat walks his dog through a busy city",
    ),
    ("dogs play on the wet sand", "Three dogs in a row play on the wet sand of a beach"),
    ("children eating ice cream", "Two happy children are eating ice cream in a park"),
    ("a woman dancing alone", "A woman in a long dress is dancing; she is alone"),
    ("a cat sits on a stone wall", "A grey cat with white paws sits on a low stone wall"),
    ("a flying eagle", "An eagle with spread wings is flying above a valley"),
    ("a red wooden chair", "A red chair made of wood"),
    ("a street without parked cars", "A wide street without any parked cars"),
]

LOST = [
    ("a red disc", "A disc over a hill", "drops 'red'"),
    ("a red disc", "A disc over a red hill", "no longer says 'red' of 'disc'"),
    ("a red disc", "A red disc, then a blue disc", "says 'blue disc' where the prompt says 'red disc'"),
    ("a red disc", "Red discs everywhere", "speaks of more than one 'disc'"),
    ("a dog runs", "Three dogs run", "speaks of more than one 'dog'"),
    ("a dog runs", "There is no dog. A cat runs.", "drops 'dog'"),
    ("two dogs run", "Three dogs run, two birds fly", "says '3 dogs' where the prompt says '2 dogs'"),
    ("two dogs run", "Dogs run past two trees", "no longer says '2' of 'dogs'"),
    ("a small disc", "A large disc in a small town", "says 'large disc' where the prompt says 'small disc'"),
    ("a red car and a blue truck", "A blue car and a red truck", "says 'red truck' where the prompt says"),
    ("a girl with short black hair", "A girl with long black hair smiles", "drops 'short'"),
    ("a disc moves left", "A disc moves right", "says 'right' where the prompt says 'left'"),
    ("a disc moves left", "A disc from left to right", "says 'right' where the prompt says 'left'"),
    ("a disc moves left", "A disc moves left, then it goes right", "says 'right' where the prompt says 'left'"),
    ("a disc moves left", "A disc rests. The camera pans left.", "drops the direction 'left'"),
    ("a disc moves left", "A disc rests on the left", "drops the direction 'left'"),
    ("a disc moves left", "A disc does not move left", "drops the direction 'left'"),
    ("a balloon rises", "A yellow balloon sinks", "says 'down' where the prompt says 'up'"),
    ("a star at rest", "A star glows. The camera does not move.", "drops the direction 'still'"),
    ("the camera pans left over a city", "The camera pans to the right. A bus goes left in a city.", "says 'right'"),
    ("a man raises his right hand", "A man raises his left hand", "says 'left' where the prompt says 'right'"),
    ("an empty street with no people", "An empty street. Many people walk.", "no longer denies 'people'"),
    ("a street with no people", "A street, no people. Later people come.", "says that there is 'people'"),
    ("a man who isn't wearing a hat", "A man wearing a hat", "no longer denies 'wearing'"),
    ('a sign that says "OPEN"', 'A sign that says "CLOSED"', "drops the quoted text 'OPEN'"),
    ('a sign that says "OPEN"', 'An open sign that says "open"', "drops the quoted text 'OPEN'"),
    ("two people take photos", "Two people stand by a lake", "drops 'take'"),
    ("a wooden chair", "A chair of cold steel stands beside a wooden table", "no longer says 'wooden' of 'chair'"),
    ("a wooden chair", "A steel chair. Behind it hangs a wooden shelf.", "no longer says 'wooden' of 'chair'"),
    ("a sleeping dog", "A dog runs awake past a sleeping cat.", "no longer says 'sleeping' of 'dog'"),
    ("a sleeping dog", "A dog chases sleeping cats.", "no longer says 'sleeping' of 'dog'"),
    ("a young woman and an old man", "An old woman walks with a young man.", "no longer says 'young' of 'woman'"),
    ("young women and old men", "Old women and young men walk by", "no longer says 'young' of 'women'"),
    ("young women and old men", "Old women, young men", "no longer says 'young' of 'women'"),
    ("an old stone bridge", "A stone bridge leads to an old house", "no longer says 'old' of 'bridge'"),
    ("a clockwise rotating wheel", "A wheel rotating counter-clockwise.", "says 'counterclockwise' where the prompt"),
    ("a wheel turns anticlockwise", "A wheel turns clockwise", "says 'clockwise' where the prompt says"),
    ("a flying eagle", "An eagle sits under a flag that is flying", "no longer says 'flying' of 'eagle'"),
    ("a flying eagle", "Beside an eagle a flag is flying", "no longer says 'flying' of 'eagle'"),
    ("a red wooden chair", "A wooden chair beside a red wooden door", "no longer says 'red' of 'chair'"),
    ("dark blue sky", "light blue sky over dark hills", "no longer says 'dark' of 'sky'"),
    ("a man with a curly beard", "A man with a beard and curly hair", "no longer says 'curly' of 'beard'"),
    ("a wooden chair and a glass table", "A glass chair and a wooden table", "no longer says 'wooden' of 'chair'"),
    ("a barking dog and a cat", "A dog watches while a cat is barking", "no longer says 'barking' of 'dog'"),
    ("ein roter Ball", "Ein blauer Ball rollt", "drops 'roter'"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "rewrite"), KEPT)
def test_what_is_kept_passes(prompt: str, rewrite: str) -> None:
    assert what_is_lost(prompt, rewrite) is None


@pytest.mark.parametrize(("prompt", "rewrite", "reason"), LOST)
def test_what_is_lost_is_named(prompt: str, rewrite: str, reason: str) -> None:
    assert (what_is_lost(prompt, rewrite) or "nothing").startswith(reason)


def test_synonyms_are_only_those_given() -> None:
    assert what_is_lost("a red ball in the grass", "A red disc over a green hill") == "drops 'ball'"
    known = {"ball": ("disc",), "grass": ("green hill",)}
    assert what_is_lost("a red ball in the grass", "A red disc over a green hill", known) is None
    assert what_is_lost("a red ball in the grass", "A blue disc over a green hill", known) == "drops 'red'"
    assert what_is_lost("a red ball in the grass", "A red disc over a snowy hill", known) == "drops 'grass'"


@pytest.mark.parametrize(
    ("word", "other", "same"),
    [
        ("running", "runs", True), ("moved", "moving", True), ("flies", "flying", True), ("men", "man", True),
        ("boxes", "box", True), ("slowly", "slow", True), ("colour", "color", True), ("ridden", "rides", True),
        ("stopped", "stopping", True), ("leaves", "leaf", True), ("agreed", "agree", True), ("Dog", "dogs", True),
        ("staring", "star", False), ("ring", "r", False), ("evening", "even", False), ("red", "r", False),
        ("left", "leaves", False), ("glass", "glas", False), ("building", "builds", False), ("sea", "see", False),
    ],
)  # fmt: skip
def test_inflections(word: str, other: str, same: bool) -> None:
    assert bool(forms(word) & forms(other)) is same


def test_ways_are_taken_out_with_bare_verbs_of_motion_alone() -> None:
    def read(clause: str, *, camera: bool = False) -> tuple[str, set[Way]]:
        ways: set[Way] = set()
        return " ".join(take_ways(clause, ways, camera=camera).split()), ways

    assert read("a disc moves slowly to the left") == (
        "a disc slowly |",
        {Way("subject", "left", True, "moves")},
    )
    assert read("it floats up") == ("it floats |", {Way("subject", "up", True)})
    assert read("the camera turns left", camera=True) == (
        "the camera turns |",
        {Way("camera", "left", False, "turns")},
    )
    assert read("a lamp on the left side") == ("a lamp |", {Way("place", "left", False)})
    assert read("he walks right behind her") == ("he walks right behind her", set())
    assert read("a fixed gaze") == ("a fixed gaze", set())
