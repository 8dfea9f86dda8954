"""Precision and recall on captions that the rules of cleaning had never met; -s shows them.

First sight, CLEANER_VERSION 3, 83 faulty and 69 good: precision 76/81 = 0.938, recall 76/83 = 0.916 over all rules.
Lowest precision: hedges 10/13, fence 4/5, closing 5/6. Lowest recall: fence 4/5, closing 5/6, hedges 10/12, refusal
6/7. The floors are a little under that, so that they hold what was measured; what fails is not mended from here but
for one thing: "What appears to be" at the start of a sentence came out as broken English.
"""

from __future__ import annotations

from collections import Counter

from faulty_captions import RULES
from faulty_captions.unmet import unmet_cases

from recaption.cleaning.clean import clean

PRECISION, RECALL = 0.90, 0.88  # of all rules together
RULE_PRECISION, RULE_RECALL = 0.70, 0.75  # of each, on 5 to 12 faulty captions


def test_unmet_captions_are_cleaned_about_as_well_as_at_first_sight() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for rule, case in unmet_cases():
        found = clean(case.raw, truncated=case.truncated)
        as_wanted = (found.text, found.status) == (case.text, case.status)
        for name in (rule, "all"):
            counts[name, "faulty"] += case.faulty
            counts[name, "good"] += not case.faulty
            counts[name, "right"] += case.faulty and as_wanted
            changed = case.faulty and not as_wanted and found.text != case.raw
            counts[name, "wrong"] += changed or (not case.faulty and not as_wanted)
    assert counts["all", "faulty"] >= 60
    assert counts["all", "good"] >= 60
    print()
    for name in (*RULES, "all"):
        right, wrong, faulty = counts[name, "right"], counts[name, "wrong"], counts[name, "faulty"]
        precision, recall = right / (right + wrong), right / faulty
        print(f"{name}: {faulty} faulty, {counts[name, 'good']} good, {precision=:.3f}, {recall=:.3f}")
        assert precision >= (PRECISION if name == "all" else RULE_PRECISION), name
        assert recall >= (RECALL if name == "all" else RULE_RECALL), name
