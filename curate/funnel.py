"""The funnel of a dataset: what came in, what became of it. in = kept + rejected + failed, always."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.decide import reason_name


@dataclass(frozen=True)
class Funnel:
    """Counts from the tables.

    Attributes:
        sources: input files.
        ok, partial, failed, copies: what became of them; they add up to `sources`.
        clips: shots found.
        kept: clips that passed every filter.
        rejected: filter -> clips whose first failing filter it was; with `kept` they add up to `clips`.
        kept_by_hand: those of `kept` that a person keeps.
        failures: (uri, first line of the error) of every failed or partial file.
    """

    sources: int
    ok: int
    partial: int
    failed: int
    copies: int
    clips: int
    kept: int
    rejected: dict[str, int]
    kept_by_hand: int
    failures: list[tuple[str, str]]

    def text(self) -> str:
        """A few lines for a terminal."""
        by_hand = f" ({self.kept_by_hand} by hand)" if self.kept_by_hand else ""
        rejected = [f"{in_words(name)} {n}" for name, n in self.rejected.items()]
        lines = [
            f"files  {self.sources} in = {self.ok} ok + {self.partial} partial + {self.copies} exact copies "
            f"+ {self.failed} failed",
            f"clips  {self.clips} in = {self.kept} kept{by_hand} + {sum(self.rejected.values())} rejected"
            + (f": {', '.join(rejected)}" if rejected else ""),
        ]
        return "\n".join(lines)


def in_words(reason: str) -> str:
    """What a person calls the rule that rejected a clip, where the table's name of it is a word of ours."""
    return "by hand" if reason == "override" else reason


def count_funnel(dataset: Dataset) -> Funnel:
    """Count a curated dataset. Raises BadInput when it has not been curated."""
    sources = dataset.read("sources", ["uri", "status", "error", "duplicate_of"]).to_pylist()
    decisions = dataset.read("decisions", ["keep", "reason", "override"])
    alone = [row for row in sources if row["duplicate_of"] is None or row["status"] == "failed"]
    status = Counter(row["status"] for row in alone)
    reasons = Counter(reason_name(reason) for reason in decisions["reason"].to_pylist() if reason)
    n_clips = len(decisions)
    return Funnel(
        sources=len(sources),
        ok=status["ok"],
        partial=status["partial"],
        failed=status["failed"],
        copies=len(sources) - len(alone),
        clips=n_clips,
        kept=n_clips - sum(reasons.values()),
        rejected=dict(reasons.most_common()),
        kept_by_hand=pc.sum(pc.and_(decisions["keep"], pc.is_valid(decisions["override"]))).as_py() or 0,
        failures=[(r["uri"], (r["error"] or "").split("\n", 1)[0]) for r in sources if r["status"] != "ok"],
    )
