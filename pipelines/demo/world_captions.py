"""Captions of the procedural world, in the manner of people and of captioners.

    describe(scene, "original", rng)   # what a person leaves beside a file: "red disc going left"
    describe(scene, "short", rng)      # "a small red disc moves left over a green hill"
    describe(scene, "dense", rng)      # 40 to 80 words: subject, motion, surroundings, light, camera

The words are a small closed set (`vocabulary`), so that a captioner of a few MB can write them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from pipelines.demo.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, STILL, Scene

CaptionKind = Literal["original", "short", "dense"]

# Decoration never uses the name of a colour, size, direction or kind: the oracle would have to guess.
MOVES = {
    "left": ("moves left", "travels to the left", "goes left", "slides to the left"),
    "right": ("moves right", "travels to the right", "goes right", "slides to the right"),
    "up": ("moves up", "travels upwards", "goes up", "rises"),
    "down": ("moves down", "travels downwards", "goes down", "sinks"),
    STILL: ("stands still", "rests", "is at rest", "does not move"),
}
MOVING = {
    "left": ("moving left", "going left", "heading left"),
    "right": ("moving right", "going right", "heading right"),
    "up": ("moving up", "going up", "rising"),
    "down": ("moving down", "going down", "sinking"),
    STILL: ("standing still", "at rest", "not moving"),
}
HEADS = {
    "left": ("heads from right to left", "heads towards the left edge"),
    "right": ("heads from left to right", "heads towards the right edge"),
    "up": ("heads from bottom to top", "heads towards the top edge"),
    "down": ("heads from top to bottom", "heads towards the bottom edge"),
    STILL: ("stands still", "does not move"),
}
PLACES = {
    "green hill": ("over a green hill", "in front of a green hill"),
    "sandy desert": ("over a sandy desert", "in front of a sandy desert"),
    "blue sea": ("over a blue sea", "in front of a blue sea"),
    "city street": ("over a city street", "in front of a city street"),
    "snowy field": ("over a snowy field", "in front of a snowy field"),
    "night sky": ("against a night sky", "in front of a night sky"),
}
NICKNAMES = {
    "green hill": ("hill", "hills", "grass"),
    "sandy desert": ("desert", "dunes", "sand"),
    "blue sea": ("sea", "ocean", "water"),
    "city street": ("city", "street", "town"),
    "snowy field": ("snow", "winter field", "snowy field"),
    "night sky": ("night", "night sky"),
}
SURROUNDINGS = {
    "green hill": "rolling meadows and round bushes under pale drifting clouds",
    "sandy desert": "wavy dunes, thin ripples and a lone cactus in the haze",
    "blue sea": "calm waves that glitter as far as the clear horizon",
    "city street": "tall buildings and many windows behind an empty road",
    "snowy field": "dark fir trees and drifting flakes in the cold air",
    "night sky": "countless sparks above the dark outline of distant mountains",
}
BULK = {
    "small": ("it fills only a little of the picture", "it is small and leaves most of the picture free"),
    "large": ("it fills much of the picture", "it is large and takes a lot of room in the picture"),
}
LIGHTING = {
    "bright": ("the light is bright and crisp", "bright light falls on everything"),
    "soft": ("the light is soft and even", "soft light falls on everything"),
    "warm": ("the light is warm and golden", "warm light falls on everything"),
}
CAMERA = {
    "static": ("the camera is fixed", "the camera does not move"),
    "pan left": ("the camera pans slowly to the left", "the camera turns left"),
    "pan right": ("the camera pans slowly to the right", "the camera turns right"),
    "zoom in": ("the camera zooms in slowly", "the camera comes slowly closer"),
}

SHORT = (
    "a {size} {colour} {kind} {moves} {place}",
    "a {size} {kind} in {colour} {moves} {place}",
    "{place}, a {size} {colour} {kind} {moves}",
)
DENSE = (
    "A {size} {colour} {kind} {moves} {place}. The {kind} is {colour} all over with a dark outline, and "
    "{bulk}. During the shot it {heads}. The background is a {background}: {surroundings}. "
    "{lighting}, and {camera}.",
    "The video shows a {colour} {kind} of {size} size {place}. It {moves}, {bulk}, and from start to end it "
    "{heads}. Around the {colour} {kind} we see the {background}, {surroundings}. {camera}. {lighting}.",
    "{place} with {surroundings}, a {size} {kind} {moves}. Its colour is {colour}, with a thin pale rim, and "
    "{bulk}. During the shot the {colour} {kind} {heads}, and behind it is the {background}. {lighting}. "
    "{camera}.",
)
ORIGINAL = (
    "{colour} {kind} {moving}",
    "{size} {colour} {kind}",
    "{colour} {kind}, {nickname}",
    "{kind} {moving}, {nickname}",
    "a {colour} {kind} {moving}",
    "clip of a {size} {colour} {kind}",
    "{nickname}, {colour} {kind}",
    "{size} {kind} {moving}",
    "my {colour} {kind}",
    "{colour} {kind} take two",
)
# Of a whole film: what its shots have in common, and perhaps where it was taken.
FILM = (
    "{colour} {kind}",
    "my {colour} {kind}",
    "clip of a {colour} {kind}",
    "{colour} {kind}, {first} and {second}",
    "a {colour} {kind} in front of {first} and {second}",
    "{kind}, {first} and {second}",
)


def describe(scene: Scene, kind: CaptionKind, rng: np.random.Generator) -> str:
    """A caption of the scene.

    `short` and `dense` name every one of ATTRIBUTES (dense the camera and the light as well);
    `original` is terse and leaves some out, as captions found beside files do.
    """
    templates = {"original": ORIGINAL, "short": SHORT, "dense": DENSE}[kind]
    text = _pick(rng, templates).format(
        kind=scene.kind,
        colour=scene.colour,
        size=scene.size,
        background=scene.background,
        moves=_pick(rng, MOVES[scene.direction]),
        moving=_pick(rng, MOVING[scene.direction]),
        heads=_pick(rng, HEADS[scene.direction]),
        place=_pick(rng, PLACES[scene.background]),
        nickname=_pick(rng, NICKNAMES[scene.background]),
        surroundings=SURROUNDINGS[scene.background],
        bulk=_pick(rng, BULK[scene.size]),
        lighting=_pick(rng, LIGHTING[scene.light]),
        camera=_pick(rng, CAMERA[scene.camera]),
    )
    text = _article(text)
    if kind == "dense":
        text = re.sub(r"(^|\. )([a-z])", lambda found: found[1] + found[2].upper(), text)
    return text


def describe_film(scenes: Sequence[Scene], rng: np.random.Generator) -> str:
    """A caption in the `original` manner for a film of one object seen in several places."""
    text = _pick(rng, FILM).format(
        kind=scenes[0].kind,
        colour=scenes[0].colour,
        first=_pick(rng, NICKNAMES[scenes[0].background]),
        second=_pick(rng, NICKNAMES[scenes[-1].background]),
    )
    return _article(text)


def vocabulary() -> tuple[str, ...]:
    """Every word that `describe` can write, sorted, lower case."""
    found = {"an"}
    for text in _texts():
        found.update(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text).lower()))
    return tuple(sorted(found))


def _texts() -> Iterator[str]:
    yield from (
        *KINDS,
        *COLOURS,
        *SIZES,
        *BACKGROUNDS,
        *SHORT,
        *DENSE,
        *ORIGINAL,
        *FILM,
        *SURROUNDINGS.values(),
    )
    for table in (MOVES, MOVING, HEADS, PLACES, NICKNAMES, BULK, LIGHTING, CAMERA):
        for options in table.values():
            yield from options


def _article(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=orange)", r"\1n ", text)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
