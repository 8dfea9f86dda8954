"""Captions with known faults and captions without, per rule; the texts beside this file were written by hand.

    for case in cases("hedges", "held out"): clean(case.raw, truncated=case.truncated, lang=case.lang)

Every file has a development part, from which the rules were made, and held-out parts. The lines are crossed with
whole captions by a fixed seed. What the rules made of a held-out part when they first met it, before they learnt
from it as well (right answers of all that were changed; of all faults):

    held out, written before the rules by the same hand:   0.97 to 1.00 and 0.97 to 1.00 for all twelve rules
    second held out, written after them:                   0.88 (closing) to 0.97; 0.81 (closing) to 0.97 (preamble)
    last held out, odd wordings sought on purpose:         0.53 (closing) to 1.00; 0.42 (closing) to 0.84 (absence)

So the thresholds of the tests keep what has been reached; a new captioner's turns of phrase will need new lines here.
What the rules do not learn from lies apart: faulty_captions.unmet.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("development", "held out", "second held out", "last held out")
RULES = (
    "unicode",
    "thinking",
    "fence",
    "quotes",
    "preamble",
    "closing",
    "refusal",
    "repetition",
    "truncation",
    "hedges",
    "absence",
    "language",
)
EACH = 110  # faulty cases of a part at least, and about as many good ones


@dataclass(frozen=True)
class Case:
    """One labelled caption.

    Attributes:
        raw: what the captioner is taken to have returned.
        text: what must come out; null if nothing may.
        faulty: whether there is anything to change; a good case must come out as it is.
        status: what the status must be.
        truncated: whether the backend said that the length limit stopped it.
        lang: language asked for.
    """

    raw: str
    text: str | None
    faulty: bool
    status: str = "ok"
    truncated: bool = False
    lang: str = "en"


def cases(rule: str, part: str) -> list[Case]:
    """The faulty and the good cases of one part of a rule's file."""
    rng = random.Random(f"{rule} {part}")
    make = {
        "unicode": _unicode,
        "refusal": _refusal,
        "repetition": _repetition,
        "truncation": _truncation,
        "hedges": _trimmed,
        "absence": _trimmed,
        "language": _language,
    }.get(rule, _wrapped)
    found: list[Case] = []
    while len(found) < EACH:
        fresh = [case for line in lines(rule, part) for case in make(line, part, rng) if case not in found]
        found += list(dict.fromkeys(fresh))
        assert fresh, f"{rule}: cannot make {EACH} different cases of {len(found)}"
    return found + _good(rule, part, rng)


def parts(rule: str) -> tuple[str, ...]:
    """The parts that a rule's file has."""
    headings = (HERE / f"{rule}.txt").read_text().split("\n")
    return tuple(part for part in PARTS if f"== {part}" in headings)


@cache
def lines(name: str, part: str, *, good: bool = False) -> tuple[str, ...]:
    """The lines of a part of a file; with `good`, those that must stay as they are."""
    wanted = f"good {part}" if good else part
    heading, found = "", []
    for line in (HERE / f"{name}.txt").read_text().split("\n"):
        if line.startswith("== "):
            heading = line[3:]
        elif line and heading == wanted:
            found.append(line)
    assert found or good, f"{name}.txt has no lines under == {wanted}"
    return tuple(found)


def captions(part: str) -> tuple[str, ...]:
    """The captions without fault."""
    return lines("captions", part)


def _good(rule: str, part: str, rng: random.Random) -> list[Case]:
    """Hard negatives alone and before or after a caption, captions alone and in pairs."""
    if rule == "language":
        return [*_own_language(part), *(Case(text, text, False) for text in captions(part))]
    if rule == "truncation":
        whole = [Case(text, text, False) for text in captions(part)]
        open_ended = [Case(text.rstrip("."), text.rstrip("."), False) for text in captions(part)]
        stopped = [Case(text, text, False, "truncated", truncated=True) for text in captions(part)]
        return whole + open_ended + stopped
    hard = [escaped(line) for line in lines(rule, part, good=True)]
    texts = [*hard, *captions(part)]
    endings = [text for text in hard if text[-1] in '.!"']
    while len(texts) < EACH:
        other = rng.choice(captions(part))
        pair = [rng.choice(endings or captions(part)), other]
        rng.shuffle(pair)
        texts.append(" ".join(pair))
    return [Case(text, text, False) for text in dict.fromkeys(texts)]


def _wrapped(line: str, part: str, rng: random.Random) -> list[Case]:
    """A line with {}, {l} or {np} around a caption; a closing remark goes behind one."""
    line, _, wanted = line.partition(" => ")
    if line.startswith(" ```"):
        line = line[1:]
    line = line.replace("\\n", "\n")
    caption = rng.choice(captions(part))
    if "{np}" in line:
        phrase = rng.choice(lines("phrases", part))
        right = wanted.replace("{np}", phrase) if wanted else phrase + line.rpartition("{np}")[2]
        right = right[0].upper() + right[1:] if line[0].isupper() else right
        return [Case(line.replace("{np}", phrase), right, True)]
    if "{l}" in line:
        return [Case(line.replace("{l}", caption[0].lower() + caption[1:]), caption, True)]
    if "{}" in line:
        if line.strip()[0] in "\"'*_`" and re.search(r"[\"'*_`]", caption):
            caption = next(text for text in captions(part) if not re.search(r"[\"'*_`]", text))
        return [Case(line.replace("{}", caption), caption, True)]
    if line.startswith("<"):
        return [Case(line, None, True, "error")]
    joint = rng.choice([" ", "\n", "\n\n"])
    return [Case(caption + joint + line, caption, True)]


def _unicode(line: str, part: str, rng: random.Random) -> list[Case]:
    raw, right = (escaped(half) for half in line.split(" => "))
    other = rng.choice(captions(part))
    return [Case(raw, right, True), Case(f"{raw} {other}", f"{right} {other}", True)]


def _refusal(line: str, part: str, rng: random.Random) -> list[Case]:
    caption = rng.choice(captions(part))
    raws = [line.replace("{}", caption)]
    if "{}" not in line:
        raws += [f"{line} {caption}", f"{line}\n\n{caption}"]
    return [Case(raw, None, True, "refused") for raw in raws]


def _repetition(line: str, part: str, rng: random.Random) -> list[Case]:
    found = []
    for times in (1, rng.randint(2, 3)):
        caption = rng.choice(captions(part))

        def unroll(loop: re.Match[str], times: int = times) -> str:
            return loop[1] * max(1, int(loop[2]) * times)

        raw = re.sub(r"<<(.*?)>>\*(\d+)", unroll, line.replace("\\n", "\n"), flags=re.S)
        if "{}" in line:
            raw = raw.replace("{}", caption)
            if line.startswith("{} << {}>>*1") or line.startswith("<<{}"):
                raw = (
                    re.sub(r"^.*$", raw, raw, flags=re.S)
                    if raw.count(caption) > 1
                    else f"{caption} {caption}"
                )
        found.append(Case(raw, None, True, "repetitive"))
    return found


def _truncation(line: str, part: str, rng: random.Random) -> list[Case]:
    whole, bar, rest = line.replace("\\n", "\n").partition("|")
    before = rng.choice(captions(part))
    right = " ".join(whole.split())
    if not bar:
        return [
            Case(line, None, True, "error", truncated=True),
            Case(f"{before} {line[0].upper()}{line[1:]}", before, True, "truncated", truncated=True),
        ]
    return [
        Case(whole + rest, right, True, "truncated", truncated=True),
        Case(f"{before} {whole}{rest}", f"{before} {right}", True, "truncated", truncated=True),
    ]


def _trimmed(line: str, part: str, rng: random.Random) -> list[Case]:
    """A line that loses words or goes as a whole, alone and among captions."""
    raw, arrow, right = line.partition(" => ")
    before, after = rng.sample(captions(part), 2)
    if not arrow:
        return [
            Case(f"{before} {raw} {after}", f"{before} {after}", True),
            Case(f"{before} {raw}", before, True),
        ]
    return [Case(raw, right, True), Case(f"{before} {raw} {after}", f"{before} {right} {after}", True)]


def _language(line: str, part: str, rng: random.Random) -> list[Case]:
    code, raw = line.split(": ", 1)
    others = [other for other in lines("language", part) if other.startswith(f"{code}: ")]
    second = rng.choice(others).split(": ", 1)[1]
    foreign = Case(rng.choice(captions(part)), None, True, "wrong_lang", lang=code)
    asked = [foreign] if code not in ("bn",) else []
    return [
        Case(raw, None, True, "wrong_lang"),
        *([Case(f"{raw} {second}", None, True, "wrong_lang")] if second != raw else []),
        *asked,
    ]


def _own_language(part: str) -> list[Case]:
    found = []
    for line in lines("language", part, good=True):
        code, text = line.split(": ", 1)
        found.append(Case(text, text, False, lang=code))
    # What is faulty in English is right where its language was asked for.
    for line in lines("language", part):
        code, text = line.split(": ", 1)
        if not re.search(r"^[A-Za-z ,.]+\. [^\x00-\x7f]", text):
            found.append(Case(text, text, False, lang=code))
    return found


def escaped(text: str) -> str:
    return (
        re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\t", "\t")
    )
