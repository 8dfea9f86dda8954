"""The oracle of the procedural world: rules that read attributes back from any caption.

    parse("a red disc")        # {"kind": "disc", "colour": "red", "size": None, "direction": None, ...}

It judges captioners and, through them, what the diffusion model draws; nothing in it was trained. It knows
more words than `describe` writes, and answers None rather than guess.
"""

from __future__ import annotations

import re
from functools import cache

from pipelines.demo.scene import ATTRIBUTES, COLOURS, LIGHTS, STILL

_SCENERY = {
    "green hill": ("green", "hills?|grass"),
    "sandy desert": ("sandy", "deserts?|dunes?|sand"),
    "blue sea": ("blue", "seas?|ocean|water"),
    "city street": ("city", "street|city|town"),
    "snowy field": ("snowy", "field|snow"),
    "night sky": ("night", "sky|night"),
}
_PATH = {
    "left": "(?:from )?right to left",
    "right": "(?:from )?left to right",
    "up": "(?:from )?bottom to top|towards the top(?: edge)?",
    "down": "(?:from )?top to bottom|towards the bottom(?: edge)?",
}
_DIRECTION = {
    "left": "left(?:wards?)?",
    "right": "right(?:wards?)?",
    "up": "up(?:wards?)?|ris(?:es|ing)",
    "down": "down(?:wards?)?|sink(?:s|ing)|fall(?:s|ing)(?! on)",
    STILL: "still|rests|at rest|(?:does )?not mov(?:e|ing)|nowhere",
}
_CAMERA = {
    "pan left": "(?:pans|turns)(?: slowly)?(?: to the)? left",
    "pan right": "(?:pans|turns)(?: slowly)?(?: to the)? right",
    "zoom in": "zooms in(?: slowly)?|comes(?: slowly)? closer",
    "static": "is fixed|is static|does not move|stays still",
}
_KIND = {
    "disc": "discs?|circles?|balls?",
    "square": "squares?|box",
    "triangle": "triangles?",
    "star": "stars?",
    "ring": "rings?",
    "cross": "cross|crosses|plus",
}


def parse(text: str, attributes: tuple[str, ...] = ATTRIBUTES) -> dict[str, str | None]:
    """Read attributes from a caption: ours, a captioner's or a person's.

    Args:
        text: any text.
        attributes: what to read; "camera" and "light" may be asked for as well.

    Returns:
        One entry per attribute: its value, or None where the text does not say or contradicts itself.
    """
    rest = re.sub(r"[^a-z ]+", " ; ", text.lower().replace("-", " "))
    rest = re.sub(r"\s+", " ", rest)
    found: dict[str, set[str]] = {}
    for attribute, value, pattern in _patterns():
        # What has been read is taken out, so that the "left" of "from left to right" is not read again.
        rest, hits = pattern.subn(" ; ", rest)
        if hits:
            found.setdefault(attribute, set()).add(value)
    values = {name: next(iter(found[name])) for name in found if len(found[name]) == 1}
    return {name: values.get(name) for name in attributes}


@cache
def _patterns() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """(attribute, value, pattern) in the order of reading: what has more words comes first."""
    table: list[tuple[str, str, str]] = []
    table += [("camera", value, f"camera (?:{words})") for value, words in _CAMERA.items()]
    for value in LIGHTS:
        table.append(("light", value, f"light is {value}|{value} light"))
    # The whole name first; then an adjective with another's noun, which contradicts itself; then a noun.
    table += [("background", value, f"{word} (?:{noun})") for value, (word, noun) in _SCENERY.items()]
    for value, (word, _) in _SCENERY.items():
        nouns = "|".join(noun for other, (_, noun) in _SCENERY.items() if other != value)
        table.append(("background", value, f"{word}(?= (?:{nouns})\\b)"))
    table += [("background", value, noun) for value, (_, noun) in _SCENERY.items()]
    for paths in (_PATH, _DIRECTION):
        table += [("direction", value, words) for value, words in paths.items()]
    table += [("colour", value, value) for value in COLOURS]
    table += [("kind", value, words) for value, words in _KIND.items()]
    table += [("size", "small", "small|little|tiny"), ("size", "large", "large|big|huge")]
    return tuple((attribute, value, re.compile(rf"\b(?:{words})\b")) for attribute, value, words in table)
