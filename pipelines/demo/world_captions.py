"""What a person would say of a scene, and what a caption says: `describe` and its inverse `parse`.

    describe(scene, "short", rng)    "a small red disc moves left over a green hill"
    parse("a tiny red disc moving left")    {"kind": "disc", "colour": "red", "direction": "left", ...: None}

`parse` is the oracle that judges captioners: it reads words by rules and knows nothing of any model.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from pipelines.demo.world import COLOURS, KINDS, Scene

ATTRIBUTES = ("kind", "colour", "size", "direction", "background")
Kind = Literal["original", "short", "dense"]

_GROUND = {  # how each background is called: in one phrase, and as surroundings in a sentence
    "green hill": ("over a green hill", "rolling green hills lie under a pale blue sky"),
    "sandy desert": (
        "over a sandy desert",
        "a sandy desert with rippled dunes stretches under a warm hazy sky",
    ),
    "blue sea": ("over a blue sea", "a calm blue sea with long waves meets a bright horizon"),
    "city street": ("over a city street", "grey houses with rows of windows line a city street"),
    "snowy field": ("over a snowy field", "a snowy field with small dark trees lies under a cold grey sky"),
    "night sky": ("over a night sky", "a dark night sky full of stars spreads under a pale moon"),
}
_TOWARDS = {
    "left": ("to the left", "from right to left"),
    "right": ("to the right", "from left to right"),
    "up": ("upwards", "from the bottom to the top"),
    "down": ("downwards", "from the top to the bottom"),
}
_LOOK = {"small": "small in the frame", "large": "large in the frame"}


def describe(scene: Scene, kind: Kind, rng: np.random.Generator) -> str:
    """A caption. `short` and `dense` name every attribute; `original` is terse and often leaves some out."""

    def pick(*options: str) -> str:
        return options[int(rng.integers(len(options)))]

    thing = f"{scene.size} {scene.colour} {scene.kind}"
    ground, surroundings = _GROUND[scene.background]
    still = scene.direction == "still"
    if kind == "original":
        bare = pick(f"{scene.colour} {scene.kind}", f"a {scene.colour} {scene.kind}", thing, scene.kind)
        where = pick("", f" {ground}", "")
        move = "" if still else pick("", f" going {scene.direction}", f" moving {scene.direction}")
        return f"{bare}{move}{where}"
    if kind == "short":
        move = (
            "rests"
            if still
            else pick(f"moves {scene.direction}", f"moves {scene.direction}", f"glides {scene.direction}")
        )
        return f"a {thing} {move} {ground}"
    opening = pick(
        f"A {thing} is the main subject of the video.",
        f"The video shows a {thing} with a thin dark outline.",
        f"In this clip a {thing} is clearly visible.",
    )
    if still:
        motion = pick(
            f"The {scene.kind} rests in place and does not move at all.",
            f"The {scene.kind} keeps still in the middle of the picture.",
        )
    else:
        towards, along = _TOWARDS[scene.direction]
        motion = pick(
            f"The {scene.kind} moves {scene.direction} at a steady pace, travelling {along} of the picture.",
            f"It glides {towards} smoothly and evenly, passing {along}.",
            f"Moving {towards}, the {scene.kind} crosses the picture {along} without turning.",
        )
    place = pick(f"Behind it, {surroundings}.", f"In the background, {surroundings}.")
    detail = pick(
        f"The {scene.kind} is {scene.colour} all over and looks {_LOOK[scene.size]}.",
        f"Its {scene.colour} surface is flat and even, and it looks {_LOOK[scene.size]}.",
    )
    close = pick(
        "The camera is fixed and the light does not change.",
        "The camera stays fixed and the picture is simple and clean.",
    )
    return " ".join([opening, motion, place, detail, close])


_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {kind: (kind, f"{kind}s") for kind in KINDS}
    | {"cross": ("cross", "plus"), "disc": ("disc", "disk", "circle")},
    "colour": {colour: (colour,) for colour in COLOURS},
    "size": {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")},
}
_GROUND_WORDS = {
    "green hill": r"\bhills?\b",
    "sandy desert": r"\b(?:desert|dunes?|sandy)\b",
    "blue sea": r"\b(?:sea|ocean)\b",
    "city street": r"\b(?:city|street|houses)\b",
    "snowy field": r"\b(?:snowy|snow)\b",
    "night sky": r"\b(?:night|stars|moon)\b",
}
# Phrases that hold a direction word without saying where the shape goes, or a colour that is not the shape's.
_SCENERY = (
    r"\bgreen hills?\b|\bblue sea\b|\bpale blue sky\b|\bwhite snow\b|\bblue sky\b|\bsmall dark trees\b"
    r"|\bgreen grass\b|\bblue ocean\b|\b(?:with|of|and) stars\b"
)
_ROUTES = {
    "left": r"\bright to (?:the )?left\b|\b(?:to the|towards the) left\b(?! to)",
    "right": r"\bleft to (?:the )?right\b|\b(?:to the|towards the) right\b(?! to)",
    "up": r"\bbottom to (?:the )?top\b|\bupwards?\b|\brises?\b|\brising\b",
    "down": r"\btop to (?:the )?bottom\b|\bdownwards?\b|\bfalls?\b|\bfalling\b",
}
_MOVES = r"\b(?:mov(?:es|ing|e)|glid(?:es|ing|e)|go(?:es|ing)|travel(?:s|ling)|drift(?:s|ing))\s+(left|right|up|down)\b"
_STILL = r"\brests?\b|\bkeeps still\b|\bdoes not move\b|\bstays? still\b|\bmotionless\b"


def parse(text: str) -> dict[str, str | None]:
    """Attribute -> value that the caption states; None where it says nothing or contradicts itself."""
    text = text.lower()
    thing = re.sub(_SCENERY, " ", text)
    found: dict[str, str | None] = {}
    for attribute, values in _WORDS.items():
        said = {value for value, words in values.items() if re.search(rf"\b(?:{'|'.join(words)})\b", thing)}
        found[attribute] = said.pop() if len(said) == 1 else None
    grounds = {name for name, pattern in _GROUND_WORDS.items() if re.search(pattern, text)}
    found["background"] = grounds.pop() if len(grounds) == 1 else None
    found["direction"] = _direction(text)
    return {attribute: found[attribute] for attribute in ATTRIBUTES}


def _direction(text: str) -> str | None:
    said = set(re.findall(_MOVES, text))
    said |= {name for name, pattern in _ROUTES.items() if re.search(pattern, text)}
    if re.search(_STILL, text):
        said.add("still")
    return said.pop() if len(said) == 1 else None


def truth(scene: Scene) -> dict[str, str | None]:
    """The attributes of a scene, in the form of `parse`."""
    return {attribute: getattr(scene, attribute) for attribute in ATTRIBUTES}
