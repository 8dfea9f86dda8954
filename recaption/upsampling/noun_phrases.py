"""Which words stand before a noun and tell of it ("an old wooden chair"), and whether another text says it of it too.

    list(attributes("a young woman and an old man".split()))       # [("young", ("woman",)), ("old", ("man",))]
    said_of("old", ("man",), ["an old woman walks with a young man"])                   # False
    said_of("young", ("man",), ["an old woman walks with a young man"])                 # True

No tagger: a noun phrase begins after an article, a number, a preposition or another function word and ends before the
next one, or before a word that looks like a verb there. Adjectives and participles are known by a list and by their
endings. Where that errs a rewrite is refused that need not be, which costs only itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from recaption.upsampling.word_forms import (
    ADJECTIVES,
    COLOURS,
    COUNTS,
    EMPTY,
    IRREGULAR_PLURALS,
    IRREGULAR_VERBS,
    NEGATIONS,
    SIZES,
    WHOLE,
    forms,
)

BARRIER = "|"
_BETWEEN = frozenset(("and", ","))
_BE = frozenset(("is", "are", "was", "were", "be", "being", "been"))
#: Between a noun and what is said of it behind it: "the chair that is old".
_LINKS = _BE | {"that", "which", "who"}
#: Behind them something else may be spoken of.
_CLAUSES = frozenset(
    (",", "and", "or", "but", "while", "as", "when", "where", "that", "which", "who", "because", "than")
)
_ARTICLES = frozenset(("a", "an", "the", "his", "her", "its", "their", "my", "our", "your", "some"))
#: Before them stands one thing, so that a word with -s behind its noun is a verb.
_ONE = frozenset(("a", "an", "this", "that", "each", "every", "another"))
_DIRECTIONS = frozenset(("left", "right", "up", "down"))
_VERB = "(verb)"
_MANY = "(number)"
_ADJECTIVE_ENDS = re.compile(r"(?:ous|ful|less|ish|ive|able|ible|ern|esque|like)$")


def attributes(tokens: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(word, nouns) of what stands before a noun in a clause; of several nouns behind it, it may tell of any.

    Colours, sizes and numbers are passed over: they are compared by what they mean. So is what is denied.
    """
    start, chain, denied = "", list[str](), False
    for token in [*tokens, BARRIER]:
        if token in NEGATIONS or token in EMPTY or token == BARRIER:
            if not denied:
                yield from _pairs(chain, start)
            denied = token in NEGATIONS or (denied and token in _ARTICLES)
            start, chain = token, []
        elif token in COUNTS:
            start = start if chain else (_MANY if COUNTS[token] != 1 else "a")
        elif token in COLOURS or token in SIZES:
            continue
        elif token in _DIRECTIONS or (chain and _is_verb(token, chain, start)):
            if not denied:
                yield from _pairs(chain, start)
            start, chain = _VERB, []
        else:
            chain.append(token)
            if _has_s(token) or token in IRREGULAR_PLURALS:  # a plural, which ends its phrase, or a verb
                if not denied:
                    yield from _pairs(chain, start)
                start, chain = _VERB, []


def said_of(
    word: str,
    nouns: Sequence[str],
    sentences: Sequence[str],
    same: Callable[[str, str], bool] = lambda one, other: bool(forms(one) & forms(other)),
) -> bool:
    """Whether one of `sentences` (lower case, in plain words) says `word` of one of `nouns`, before or behind it."""
    for sentence in sentences:
        tokens = re.findall(r"[^\W_]+|,", sentence)
        words = [place for place, token in enumerate(tokens) if same(word, token)]
        things = [place for place, token in enumerate(tokens) if any(same(noun, token) for noun in nouns)]
        if any(
            _before(tokens, at, noun) if at < noun else _behind(tokens, noun, at)
            for at in words
            for noun in things
        ):
            return True
    return False


def _pairs(chain: list[str], start: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for place, word in enumerate(chain[:-1]):
        # Behind a verb anything may follow; only what is sure to be an adjective counts there.
        if start != _VERB or is_adjective(word):
            yield word, tuple(chain[place + 1 :])


def _before(tokens: Sequence[str], at: int, noun: int) -> bool:
    """ "old wooden chair", "old, wooden chair": nothing but a word or two that tell of it as well."""
    between = tokens[at + 1 : noun]
    listed = _BETWEEN & set(between)
    if listed and at and tokens[at - 1] in _BE:  # "the man is old, dogs bark"
        return False
    words = [token for token in between if token not in _BETWEEN]
    if any(token in EMPTY or token in NEGATIONS for token in words):
        return False
    return sum(not _is_class(token) for token in words) <= (2 if "," in listed else 1)


def _behind(tokens: Sequence[str], noun: int, at: int) -> bool:
    """ "a dog is sleeping", "a chair that is wooden", "a chair made of wood", "a dress in dark blue"."""
    between, following = tokens[noun + 1 : at], tokens[at + 1 : at + 2]
    if all(token in _LINKS or token.endswith("ly") for token in between):
        return True
    if between == ["in"]:
        return bool(following) and _is_class(following[0])
    if between[-1] in _BE and not _CLAUSES & set(between):  # "a dog with brown fur is sleeping"
        return all(token in _ARTICLES or _is_class(token) or is_adjective(token) for token in tokens[:noun])
    another = following and following[0] not in EMPTY and following[0] not in (",", *NEGATIONS)
    if another and ("of" not in between or is_adjective(tokens[at])):
        return False  # it stands before another noun: "the dog runs past a sleeping cat"
    if "of" in between:  # one word before it at most, an article and one word after it
        made, rest = between[: between.index("of")], between[between.index("of") + 1 :]
        rest = rest[1:] if rest and rest[0] in _ARTICLES else rest
        return len(made) <= 1 and len(rest) <= 1 and not any(token in EMPTY for token in (*made, *rest))
    return sum(token not in _LINKS for token in between) <= 1 and not any(
        token in EMPTY - _LINKS or token in NEGATIONS or token == "," for token in between
    )


def _is_class(word: str) -> bool:
    return word in COLOURS or word in SIZES or word in COUNTS


def is_adjective(word: str) -> bool:
    """Whether it is one by the list or by its ending; participles are."""
    return word in ADJECTIVES or _is_participle(word) or bool(_ADJECTIVE_ENDS.search(word))


def _is_participle(word: str) -> bool:
    return word not in WHOLE and bool(re.search(r"[aeiouy].*(?:ing|ed)$", word))


def _has_s(word: str) -> bool:
    return word not in WHOLE and bool(re.search(r"[^su]s$", word))


def _is_verb(word: str, chain: Sequence[str], start: str) -> bool:
    """Whether `word` after the words of a noun phrase is no part of it: "dog |sleeps", but "sleeping |dogs"."""
    if _has_s(word) and start in _ONE:
        return True
    if all(is_adjective(known) for known in chain):  # they need a noun
        return False
    if _has_s(word):
        return start != _MANY
    return _is_participle(word) or word.endswith("ly") or word in IRREGULAR_VERBS or word in ADJECTIVES
