"""Whether a rewritten prompt still says what the prompt said: a small function, and the reason when it does not.

    what_is_lost("a red disc moves left", "A small red disc travels to the left over a sandy desert.")     # None
    what_is_lost("a red disc moves left", "A small red disc travels to the right over a sandy desert.")
    # "says 'right' where the prompt says 'left'"

Looked for are the prompt's words of content (plain inflections count as the word), colours, sizes, numbers and other
words before a noun beside the same noun, directions of the subject apart from those of the camera, what is said to be
absent, and quoted text letter by letter. It knows words, not meaning: a rewrite it refuses may be good, and costs only
itself; and who does what to whom it does not know ("a dog chases a cat", "a cat chases a dog").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from recaption.cleaning.clean import normalise
from recaption.upsampling.class_words import CLASSES, Stated, classed, singled
from recaption.upsampling.noun_phrases import BARRIER, attributes, said_of
from recaption.upsampling.word_forms import EMPTY, NEGATIONS, forms
from recaption.upsampling.word_ways import Way, opposite, take_ways

CHECK_VERSION = "2"
#: word of the prompt -> words or phrases, any of which says the same.
Synonyms = Mapping[str, tuple[str, ...]]

_BIG = ("large", "giant", "gigantic", "enormous")
_OPPOSITE_SIZES = {"small": _BIG, **dict.fromkeys(_BIG, ("small",)), "short": ("long", "tall"), "long": ("short",),
                   "tall": ("short",), "wide": ("narrow",), "narrow": ("wide",)}  # fmt: skip
_CAMERA = re.compile(r"\b(?:camera|zoom(?:s|ing)?|pan(?:s|ning)|dolly|tracking shot)\b")
#: Remarks about the recording at the ends of a prompt, as people leave them beside files.
_REMARKS = re.compile(
    r"^(?:please )?(?:an? |the |my |this )?(?:short |brief )?"
    r"(?:clip|video|footage|film|movie|recording|shot)(?: clip)? of (?=\w)"
    r"|[, ]+take (?:\d+|one|two|three|four|five|six|seven|eight|nine|ten)$"
)
#: Within what a negation negates: "without any red hat or scarf".
_INSIDE_NEGATION = frozenset(("a", "an", "the", "any", "or", "nor", "his", "her", "its", "their", "be", "been", "being",
                              "do", "does", "did", "have", "has", "had"))  # fmt: skip


@dataclass
class _Said:
    """What a text says.

    Attributes:
        text: lower case, one line.
        words: words of content that it affirms.
        negated: words of content that it denies.
        absent: those of `negated` that directly follow "no" or "without".
        stated: (class, value, nouns) of colours, sizes and numbers; of several nouns, one of them has it.
        values: (class, value) of those, with or without a noun.
        told: (word, nouns) of all else that stands before a noun; of several nouns, it tells of one of them.
        sentences: its sentences as they stand.
        single: nouns that "a" or "an" makes single.
        ways: directions, with whose they are.
    """

    text: str
    words: list[str] = field(default_factory=list)
    negated: list[str] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    stated: set[Stated] = field(default_factory=set)
    values: set[tuple[str, int | str]] = field(default_factory=set)
    told: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    single: set[str] = field(default_factory=set)
    ways: set[Way] = field(default_factory=set)


def what_is_lost(prompt: str, rewrite: str, synonyms: Synonyms | None = None) -> str | None:
    """The first thing of `prompt` that `rewrite` drops or changes, in words; None if all of it is there."""
    synonyms = synonyms or {}
    for quoted in re.findall(r'"([^"]+)"', normalise(prompt)):
        if quoted.strip() not in normalise(rewrite):
            return f"drops the quoted text {quoted!r}"
    old, new = _read(_REMARKS.sub("", _plain(prompt))), _read(_plain(rewrite))
    return (
        _lost_word(old, new, synonyms)
        or _lost_attribute(old, new, synonyms)
        or _lost_way(old, new)
        or _lost_noun(old, new, synonyms)
        or _lost_negation(old, new)
    )


def _lost_word(old: _Said, new: _Said, synonyms: Synonyms) -> str | None:
    there = frozenset[str]().union(*map(forms, [*new.words, *(way.verb for way in new.ways)]))
    for word in old.words:
        if any((name, table[word]) in new.values for name, table in CLASSES.items() if word in table):
            continue
        if not forms(word) & there and not _said_otherwise(word, new.text, synonyms):
            return f"drops {word!r}"
    for noun in sorted(old.single):
        if noun not in (*new.words, *new.negated) and not _said_otherwise(noun, new.text, synonyms):
            return f"speaks of more than one {noun!r}"
    return None


def _lost_attribute(old: _Said, new: _Said, synonyms: Synonyms) -> str | None:
    for name, value, nouns in sorted(old.stated, key=str):
        told = [
            (other, its)
            for kind, other, its in sorted(new.stated, key=str)
            if kind == name and any(_same(noun, new_noun, synonyms) for noun in nouns for new_noun in its)
        ]
        ours = {other for kind, other, its in old.stated if kind == name and set(nouns) & set(its)}
        for other, its in told:
            if len(its) == 1 and _contradicts(name, other, ours):
                return f"says '{other} {its[0]}' where the prompt says '{value} {nouns[0]}'"
        if value not in [other for other, _ in told] and (name, value) != ("count", 1):
            return f"no longer says {str(value)!r} of {' or '.join(nouns)!r}"
    return None


def _lost_way(old: _Said, new: _Said) -> str | None:
    there = {(way.whose, way.to) for way in new.ways}
    for way in sorted(old.ways):
        if (way.whose, way.to) not in there:
            other = opposite(way.to)
            if (way.whose, other) in there:
                return f"says {other!r} where the prompt says {way.to!r}"
            return f"drops the direction {way.to!r}"
    ours = {(way.whose, way.to) for way in old.ways}
    for way in sorted(new.ways):
        back = opposite(way.to)
        if way.plain and (way.whose, back) in ours and (way.whose, way.to) not in ours:
            return f"says {way.to!r} where the prompt says {back!r}"
    return None


def _lost_noun(old: _Said, new: _Said, synonyms: Synonyms) -> str | None:
    for word, nouns in old.told:
        # What is said in other words altogether cannot be followed to its noun.
        elsewhere = not any(forms(word) & forms(other) for other in new.words)
        if not elsewhere and not said_of(word, nouns, new.sentences, lambda a, b: _same(a, b, synonyms)):
            return f"no longer says {word!r} of {nouns[-1]!r}"
    return None


def _lost_negation(old: _Said, new: _Said) -> str | None:
    denied = frozenset[str]().union(*map(forms, new.negated))
    affirmed = frozenset[str]().union(*map(forms, new.words))
    for word in old.negated:
        if not forms(word) & denied:
            return f"no longer denies {word!r}"
        if word in old.absent and forms(word) & affirmed and word not in old.words:
            return f"says that there is {word!r}"
    return None


def _contradicts(name: str, value: int | str, ours: set[int | str]) -> bool:
    """Whether a noun that the prompt gives the values `ours` may not have `value` as well."""
    if value in ours:
        return False
    if name == "count":  # of two dogs, one may bark; a third must not come
        numbers = [known for known in ours if isinstance(known, int)]
        return isinstance(value, int) and bool(numbers) and value > max(numbers)
    if name == "size":
        return any(value in _OPPOSITE_SIZES.get(str(known), ()) for known in ours)
    return True


def _same(word: str, other: str, synonyms: Synonyms) -> bool:
    return bool(forms(word) & forms(other)) or any(
        other in phrase.split() for phrase in _phrases(word, synonyms)
    )


def _said_otherwise(word: str, text: str, synonyms: Synonyms) -> bool:
    return any(re.search(rf"\b{re.escape(phrase)}\b", text) for phrase in _phrases(word, synonyms))


def _phrases(word: str, synonyms: Synonyms) -> list[str]:
    return [phrase for form in sorted(forms(word)) for phrase in synonyms.get(form, ())]


def _plain(text: str) -> str:
    """Lower case on one line, with `not` for its short form and no hyphens."""
    text = " ".join(normalise(text).lower().split())
    text = re.sub(
        r"\b(ca|wo|sha)n't\b", lambda found: {"ca": "can not", "wo": "will not"}.get(found[1], "not"), text
    )
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"'s\b", "", text)
    return text.replace("close-up", "closeup").replace("upside down", "upsidedown").replace("-", " ")


def _read(text: str) -> _Said:
    said = _Said(text, sentences=re.split(r"[.;:!?()\n]+", text))
    # "small, red" is one phrase; what the camera does is another clause than what the subject does.
    named = "|".join(sorted((word for table in CLASSES.values() for word in table), key=len, reverse=True))
    text = re.sub(rf"\b({named}), (?=(?:{named})\b)", r"\1 ", text)
    for clause in re.split(r"[.,;:!?()\n]+|\b(?:while|as|which|that)\b|\band (?=(?:the )?camera\b)", text):
        rest = take_ways(clause, said.ways, camera=bool(_CAMERA.search(clause)))
        tokens = re.findall(r"[^\W_]+|\|", rest)
        _read_words(tokens, said)
        for name, value, nouns in classed(tokens):
            said.values.add((name, value))
            if nouns:
                said.stated.add((name, value, nouns))
        said.told.extend(attributes(tokens))
        said.single.update(singled(tokens))
    return said


def _read_words(tokens: list[str], said: _Said) -> None:
    negation: str | None = None
    for word in tokens:
        if word in NEGATIONS:
            negation = word
        elif word == BARRIER or (word in EMPTY and word not in _INSIDE_NEGATION):
            negation = None
        elif word not in EMPTY:
            (said.negated if negation else said.words).append(word)
            if negation in ("no", "without"):
                said.absent.add(word)
