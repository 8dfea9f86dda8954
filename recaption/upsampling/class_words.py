"""Colours, sizes and numbers in a clause, by what they mean, and the nouns that they belong to.

    list(classed("two small dogs in a red car".split()))
    # [("count", 2, ("dogs",)), ("size", "small", ("dogs",)), ("count", 1, ("car",)), ("colour", "red", ("car",))]

A noun may have what stands before it ("a red car") and what is said behind it ("a ring in purple", "the car is red").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from recaption.upsampling.noun_phrases import BARRIER, is_adjective
from recaption.upsampling.word_forms import ADJECTIVES, COLOURS, COUNTS, EMPTY, NEGATIONS, SIZES

CLASSES: dict[str, Mapping[str, int | str]] = {"colour": COLOURS, "size": SIZES, "count": COUNTS}
#: (class, value, nouns): of several nouns, one of them has it.
Stated = tuple[str, int | str, tuple[str, ...]]


def class_of(word: str) -> str | None:
    """colour, size or count, if it is a word of one."""
    return next((name for name, table in CLASSES.items() if word in table), None)


def classed(tokens: list[str]) -> Iterator[Stated]:
    """(class, value, nouns) of every colour, size and number; "a" before a noun is the number 1."""
    for place, word in enumerate(tokens):
        name = class_of(word)
        if name:
            before, after = _noun_before(tokens, place), _noun_after(tokens, place)
            # "a ring in white slides left", "a man in white clothes": either may be white.
            nouns = (before, after) if tokens[place - 1 : place] == ["in"] else (after or before,)
            yield name, CLASSES[name][word], tuple(noun for noun in nouns if noun)
        elif word in ("a", "an") and (noun := _noun_after(tokens, place)):
            yield "count", 1, (noun,)


def _noun_after(tokens: list[str], place: int) -> str | None:
    """The next word that is no attribute itself: "red and white flag", "pair of small dogs"."""
    for at in range(place + 1, len(tokens)):
        word, following = tokens[at], tokens[at + 1 : at + 2]
        if class_of(word) or (word == "and" and following and class_of(following[0])):
            if tokens[place] in ("a", "an") and word in COUNTS and word != "single":
                return None  # "a dozen eggs", "a pair of dogs"
            continue
        if word == "of" and tokens[at - 1] in COUNTS:
            continue
        if is_adjective(word) and following and not _ends_phrase(following[0]):  # "red wooden chair"
            continue
        return None if _ends_phrase(word) or word in ("size", "colour") else word
    return None


def _noun_before(tokens: list[str], place: int) -> str | None:
    """The noun of "ring in purple", "disc is red", "disc of small size"."""
    for at in range(place - 1, max(-1, place - 4), -1):
        word = tokens[at]
        if word in ("in", "is", "are", "of", "was", "were", *ADJECTIVES) or class_of(word):
            continue
        return None if _ends_phrase(word) or word in ("size", "colour") else word
    return None


def _ends_phrase(word: str) -> bool:
    return word in EMPTY or word in NEGATIONS or word == BARRIER


def singled(tokens: list[str]) -> Iterator[str]:
    """Nouns that "a" or "an" makes single."""
    for place, word in enumerate(tokens):
        noun = _noun_after(tokens, place) if word in ("a", "an") else None
        if noun and not re.search(r"(?:ing|ed|ly)$", noun):
            yield noun
