"""Directions in a text, and whose they are: the subject's, the camera's, or merely a place.

    ways = set()
    take_ways("a disc moves from right to left", ways, camera=False)       # "a disc |"
    ways                                                # {Way("subject", "left", plain=True, verb="moves")}

What was read is taken out, with the verb where it only says that there is motion ("moves", "goes", "travels",
"heads"), so that other words may say the same direction.
"""

from __future__ import annotations

import re
from typing import NamedTuple

STILL = "still"
_CLOCKWISE, _BACKWARDS = "clockwise", "counterclockwise"
_OPPOSITE = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    _CLOCKWISE: _BACKWARDS,
    _BACKWARDS: _CLOCKWISE,
}


class Way(NamedTuple):
    """A direction.

    Attributes:
        whose: subject, camera, place ("on the left") or from ("from the left"); with "not " before it if denied.
        to: left, right, up, down, clockwise, counterclockwise or still.
        plain: it can only be meant of motion; "looks left" or "close up" need not be.
        verb: the verb of motion that was taken out with it.
    """

    whose: str
    to: str
    plain: bool
    verb: str = ""


def opposite(to: str) -> str | None:
    """right for left, down for up, counterclockwise for clockwise; None for still."""
    return _OPPOSITE.get(to)


_GO = r"mov(?:es?|ing|ed)|go(?:es|ing)?|went|travel(?:s|l?ing|l?ed)?|head(?:s|ing|ed)?"
_MOVES = rf"(?P<verb>{_GO}) (?P<how>\w+ly |straight )?"
# These say how it moves, so they stay.
_DRIFTS = (
    r"(?P<by>slid(?:es?|ing)|drift(?:s|ing)?|glid(?:es?|ing)|float(?:s|ing)?|fl(?:y|ies|ying)|climb(?:s|ing)?|"
    r"roll(?:s|ing)?|soar(?:s|ing)?|jump(?:s|ing)?|swim(?:s|ming)?) "
)
_THE = r"(?:the |its |his |her |their )?"
_TO = rf"(?:(?:to|towards?|for) )?{_THE}"
_SIDE = r"(?: side| edge| hand side)?"
_PATHS = {
    "left": r"(?:from )?(?:the )?right(?: side| edge)? to (?:the )?left",
    "right": r"(?:from )?(?:the )?left(?: side| edge)? to (?:the )?right",
    "up": r"(?:from )?(?:the )?bottom to (?:the )?top",
    "down": r"(?:from )?(?:the )?top to (?:the )?bottom",
}
_ENDS = {"up": "top", "down": "bottom"}
_ALONE = {"up": r"ris(?:es?|ing)|rose|ascend(?:s|ing)?", "down": r"sink(?:s|ing)?|sank|descend(?:s|ing)?"}
# Parts of the body and of the picture have sides without going anywhere; so have these turns of speech.
_PART = r" (?:hand|half|corner|third|part|arm|leg|eye|ear|foot|wing|shoulder|cheek|paw)s?"
_NO_WAY = (
    "right (?:next|behind|in|at|before|after|above|below|beside|into|through|away|now|angle)|"
    "left (?:behind|alone|out|open)"
)
_STILL = (
    r"(?:(?:stands?|standing|stays?|staying|stood) )?still|(?:is |are )?at rest|rest(?:s|ing)|"
    rf"(?:do |does |is )?not (?:{_GO})|motionless|stationary"
)


def _table() -> list[tuple[re.Pattern[str], str | None, str | None, bool]]:
    """(pattern, whose, to, plain) in the order of reading; no `whose` is the clause's own, no `to` only words."""
    rows: list[tuple[str, str | None, str | None, bool]] = []
    rows += [(r"(?:counter|anti) ?clockwise", None, _BACKWARDS, True), ("clockwise", None, _CLOCKWISE, True)]
    rows += [(rf"(?:{_MOVES})?{words}{_SIDE}", None, to, True) for to, words in _PATHS.items()]
    for to in ("left", "right"):
        rows.append((rf"from {_THE}(?:far )?{to}{_SIDE}", "from", to, False))
        place = rf"(?:on|at|in) {_THE}(?:far |upper |lower |top |bottom )?{to}{_SIDE}(?:{_PART})?"
        rows.append((place, "place", to, False))
        rows.append((f"{to}{_PART}", "place", to, False))
        looks = r"(?P<verb>(?:look|turn|fac|glanc|lean|tilt)\w*)(?P<how>(?: \w+){0,3}?) "
        rows.append((rf"{looks}{_TO}{to}(?:wards?)?", None, to, False))
        # Before the turns of speech: "moves right in front of", "to the left over".
        rows.append((rf"(?:{_MOVES}{_TO}|(?:to|towards?) {_THE}){to}(?:wards?)?{_SIDE}", None, to, True))
    rows.append((_NO_WAY, None, None, False))
    rows += [(rf"{to}(?:wards?)?{_SIDE}", None, to, True) for to in ("left", "right")]
    for to, end in _ENDS.items():
        rows.append((rf"(?:{_MOVES})?towards? {_THE}{end}{_SIDE}", None, to, True))
        rows.append((rf"(?:{_MOVES}|{_DRIFTS}){_TO}{to}(?:wards?)?", None, to, True))
        rows.append((rf"{to}wards?|{_ALONE[to]}", None, to, True))
        rows.append((to, None, to, False))
    rows.append((r"(?:fall(?:s|ing|en)?|fell)(?! (?:on|upon|over))", None, "down", False))
    rows.append((_STILL, None, STILL, False))
    rows.append((r"(?:is )?(?:fixed|static|locked)", "camera", STILL, False))
    return [(re.compile(rf"\b(?:{words})\b"), whose, to, plain) for words, whose, to, plain in rows]


_TABLE = _table()
_DENIED = re.compile(r"\b(?:not|never|no|without)(?: \w+)?\s*$")


def take_ways(clause: str, ways: set[Way], *, camera: bool) -> str:
    """Add the directions in `clause` (lower case) to `ways`; returns the clause with `|` where they stood."""
    for pattern, whose, to, plain in _TABLE:
        if whose == "camera" and not camera:
            continue  # a fixed gaze, a static pose
        for found in reversed(list(pattern.finditer(clause))):
            groups = found.groupdict()
            if to is not None:
                owner = whose or ("camera" if camera else "subject")
                denied = "not " if _DENIED.search(clause[: found.start()]) else ""
                ways.add(Way(denied + owner, to, plain and not denied, groups.get("verb") or ""))
            # How it moves, and the verb where it says more than that it does.
            kept = [groups.get(name) or "" for name in (("verb", "how") if not plain else ("by", "how"))]
            # Upper case is not read again.
            rest = found[0].upper() if to is None else f"{' '.join(kept)} |"
            clause = f"{clause[: found.start()]} {rest} {clause[found.end() :]}"
    return clause.lower()
