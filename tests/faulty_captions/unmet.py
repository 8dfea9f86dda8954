"""Captions in the manner of large video models, which the rules had not met and do not learn from.

    for rule, case in unmet_cases(): clean(case.raw, truncated=case.truncated)

They lie in never_learnt_from.txt, each under the rule that it concerns. A rule that fails here stays as it is: once it
is mended with these lines in sight, they tell nothing more of captions unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from faulty_captions import Case, escaped, lines

PART = "never_learnt_from"


def unmet_cases() -> Iterator[tuple[str, Case]]:
    """(rule, case), the faulty ones first."""
    for line in lines(PART, "faulty"):
        rule, raw, right = re.fullmatch(r"(\w+): (.*) => (.*)", line).groups()  # type: ignore[union-attr]
        raw = re.sub(r"<<(.*?)>>\*(\d+)", lambda loop: loop[1] * int(loop[2]), escaped(raw))
        cut = rule == "truncation"
        raw = raw.replace("|", "") if cut else raw
        status = right[1:] if right.startswith("!") else "truncated" if cut else "ok"
        text = None if right.startswith("!") else escaped(right)
        yield rule, Case(raw, text, True, status, truncated=cut)
    for line in lines(PART, "good"):
        rule, text = line.split(": ", 1)
        yield rule, Case(escaped(text), escaped(text), False)
