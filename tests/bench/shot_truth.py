"""Boundaries found against boundaries known: F1, in all and by kind of transition.

The truth is the JSON beside a reel: `boundaries` with `kind`, `start` and `end` in seconds, and `fps`. A found
boundary is a hit if it lies inside the transition or within two frames of it; each true one is hit once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

TOLERANCE_FRAMES = 2


@dataclass(frozen=True)
class Match:
    """Result of matching: `hits` of `truth` boundaries among `found` ones; by kind, (hits, truth)."""

    hits: int
    truth: int
    found: int
    by_kind: dict[str, tuple[int, int]]

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.truth + self.found) if self.truth + self.found else 1.0

    @property
    def f1_by_kind(self) -> dict[str, float]:
        """What is found for nothing is of no kind: all of it counts against each."""
        false = self.found - self.hits
        return {kind: 2 * hits / (truth + hits + false) for kind, (hits, truth) in self.by_kind.items()}


def match(found_s: list[float], reel: Path) -> Match:
    """`found_s`: boundaries in seconds, ascending; `reel`: the video whose `.json` holds the truth."""
    about = json.loads(reel.with_suffix(".json").read_text())
    margin_s = (TOLERANCE_FRAMES + 1e-3) / about["fps"]
    left = list(found_s)
    hit_by_kind: dict[str, list[bool]] = {}
    for true in about["boundaries"]:
        inside = [s for s in left if true["start"] - margin_s <= s <= true["end"] + margin_s]
        if inside:
            left.remove(inside[0])
        hit_by_kind.setdefault(true["kind"], []).append(bool(inside))
    return Match(
        hits=sum(map(sum, hit_by_kind.values())),
        truth=len(about["boundaries"]),
        found=len(found_s),
        by_kind={kind: (sum(hits), len(hits)) for kind, hits in sorted(hit_by_kind.items())},
    )


def boundaries(clips: list[dict]) -> list[float]:
    """Boundaries between the shots of one source (rows of clips/): the middle of what lies between two.

    Where a long shot was divided there is no boundary.
    """
    ordered = sorted(clips, key=lambda clip: clip["start_s"])
    return [
        (one["end_s"] + other["start_s"]) / 2
        for one, other in pairwise(ordered)
        if one["transition_out"] != "division"
    ]
