"""What was really given and how well each way of asking was answered: counts that ranks can add up, for the metrics.

counts = count_conditions(batches)                   # N_COUNTS numbers
by_condition(counts, errors)
# {"text": {"share": 0.51, "loss": 0.83}, "first_frame": {"share": 0.2, "loss": 0.71}, ...}
"""

from __future__ import annotations

from collections.abc import Sequence

from train.batch import Batch
from train.conditions import MODES

N_COUNTS = 2 * len(MODES)


def count_conditions(batches: Sequence[Batch]) -> list[int]:
    """Generated tokens by mode, then clips by mode."""
    modes = [condition.mode for batch in batches for condition in batch.conditions]
    tokens = [sum(batch.generated[number] for batch in batches) for number in range(len(MODES))]
    return tokens + [modes.count(name) for name in MODES]


def by_condition(counts: Sequence[int], errors: Sequence[float]) -> dict[str, dict[str, float]]:
    """For each mode that was drawn: its share of the clips, and the loss, by sums of the tokens' errors by mode."""
    tokens, clips = counts[: len(MODES)], counts[len(MODES) :]
    return {
        name: {"share": clips[i] / sum(clips), "loss": errors[i] / tokens[i]}
        for i, name in enumerate(MODES)
        if clips[i]
    }
