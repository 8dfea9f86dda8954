"""Captions of the procedural world and the oracle that reads them back."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from pipelines.demo.world import (
    ATTRIBUTES,
    Scene,
    describe,
    describe_film,
    draw_scene,
    parse,
    stand_still,
    vocabulary,
)


def scenes(n: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    drawn = [draw_scene(rng) for _ in range(n)]
    return [stand_still(scene) if i % 10 == 0 else scene for i, scene in enumerate(drawn)]


@pytest.mark.parametrize("kind", ["short", "dense"])
def test_every_attribute_is_read_back(kind: Literal["short", "dense"]) -> None:
    rng = np.random.default_rng(1)
    for scene in scenes(2000):
        text = describe(scene, kind, rng)
        assert parse(text) == {name: getattr(scene, name) for name in ATTRIBUTES}, text


def test_dense_captions_also_tell_camera_and_light() -> None:
    rng = np.random.default_rng(2)
    for scene in scenes(500):
        text = describe(scene, "dense", rng)
        assert parse(text, ("camera", "light")) == {"camera": scene.camera, "light": scene.light}, text
        assert 40 <= len(text.split()) <= 80
        assert len(re.findall(r"\w+|[^\w\s]", text)) <= 92  # fits the captioner's context


def test_original_captions_are_true_terse_and_incomplete() -> None:
    rng = np.random.default_rng(3)
    missing = 0
    for scene in scenes(500):
        text = describe(scene, "original", rng)
        read = parse(text)
        assert len(text.split()) <= 8
        assert all(value in (None, getattr(scene, name)) for name, value in read.items()), text
        missing += None in read.values()
    assert missing > 400


def test_a_film_caption_tells_nothing_that_is_not_in_every_shot() -> None:
    rng = np.random.default_rng(4)
    for scene in scenes(200):
        shots = [replace(scene, background=place) for place in ("blue sea", "night sky")]
        read = parse(describe_film(shots, rng))
        assert read["kind"] == scene.kind
        assert read["colour"] in (None, scene.colour)
        assert read["background"] is read["direction"] is read["size"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Tiny red CIRCLE, going left.", ("disc", "red", "small", "left", None)),
        ("a star", ("star", None, None, None, None)),
        ("", (None, None, None, None, None)),
        ("two people walk a dog", (None, None, None, None, None)),
        ("big plus sign sinking into the ocean", ("cross", None, "large", "down", "blue sea")),
        # colours and nouns of the background are not the object's
        ("square over a green hill", ("square", None, None, None, "green hill")),
        ("a blue ring on the blue sea", ("ring", "blue", None, None, "blue sea")),
        ("white triangle in the snow", ("triangle", "white", None, None, "snowy field")),
        ("night, a yellow star", ("star", "yellow", None, None, "night sky")),
        # "left" and "right" of a path and of the camera
        ("disc from left to right", ("disc", None, None, "right", None)),
        ("disc goes up. The camera pans slowly to the left.", ("disc", None, None, "up", None)),
        ("a bright ring rises", ("ring", None, None, "up", None)),
        # repetition agrees, contradiction is no answer
        ("a red red red disc", ("disc", "red", None, None, None)),
        ("a red disc, blue all over, moves left", ("disc", None, None, "left", None)),
        ("a square star moves left and right", (None, None, None, None, None)),
        ("a pink cross over a green desert", ("cross", "pink", None, None, None)),
        ("a ring over a blue sky", ("ring", None, None, None, None)),
        ("a small large disc in front of hill and sea", ("disc", None, None, None, None)),
        ("the disc does not move and goes up", ("disc", None, None, None, None)),
        ("starfish and ringtones", (None, None, None, None, None)),
    ],
)
def test_the_oracle_reads_imperfect_text(text: str, expected: tuple[str | None, ...]) -> None:
    assert tuple(parse(text)[name] for name in ATTRIBUTES) == expected


def test_the_vocabulary_is_small_and_closed() -> None:
    rng = np.random.default_rng(5)
    allowed = set(vocabulary())
    assert len(allowed) < 400
    for scene in scenes(500):
        for kind in ("original", "short", "dense"):
            assert set(re.findall(r"[a-z]+", describe(scene, kind, rng).lower())) <= allowed  # type: ignore[arg-type]
        assert set(re.findall(r"[a-z]+", describe_film([scene], rng).lower())) <= allowed


def test_articles_agree() -> None:
    rng = np.random.default_rng(6)
    for scene in scenes(300):
        for kind in ("original", "short", "dense"):
            text = describe(replace(scene, colour="orange"), kind, rng)  # type: ignore[arg-type]
            assert not re.search(r"\ba orange", text, re.IGNORECASE)
            assert "{" not in text
