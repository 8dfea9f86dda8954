"""Prompts for scenes of the procedural world, and how many of the attributes that they name are right in videos.

prompt = Prompt("held_out", "dense", describe(scene, "dense", rng), scene, seed=0)
counted([prompt.asked], [look(video, fps)])["colour"]          # {"asked": 1, "right": 1, "none": 0}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.demo.scene import ATTRIBUTES, BACKGROUNDS, COLOURS, DIRECTIONS, KINDS, SIZES, Scene
from pipelines.demo.world_oracle import parse

#: Attribute -> the values that it is drawn from; a blind guess is right one time in so many.
VALUES = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "direction": DIRECTIONS, "background": BACKGROUNDS}


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        combination: held_out or seen: whether training shows this kind, colour and background together.
        manner: original, short or dense.
        text: what the model is told.
        scene: what the text describes.
        seed: of the noise; the same for every model.
    """

    combination: str
    manner: str
    text: str
    scene: Scene
    seed: int

    @property
    def asked(self) -> dict[str, str]:
        """The attributes that the text names."""
        return {name: value for name, value in parse(self.text).items() if value is not None}


def counted(
    asked: Sequence[Mapping[str, str]], seen: Sequence[Mapping[str, str | None]]
) -> dict[str, dict[str, int]]:
    """For each attribute how many prompts `asked` for it, how many videos are `right`, and in how many of these a
    judge saw `none`."""
    found = {}
    for name in ATTRIBUTES:
        pairs = [(a[name], s[name]) for a, s in zip(asked, seen, strict=True) if name in a]
        found[name] = {
            "asked": len(pairs),
            "right": sum(wanted == there for wanted, there in pairs),
            "none": sum(there is None for _, there in pairs),
        }
    return found
