"""Looks at the loss of every step: one that is not finite is skipped, and a jump is noticed.

    guard = Guard(config.guard, config.feed.corrupt_share)
    guard.judge(loss, norm)                              # "fine", "skip" or "spike"

The same on every rank, since all of them see the same loss, and the same in a run that was resumed: `seen` goes with
the checkpoint.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, Literal

from train.config import GuardConfig

Verdict = Literal["fine", "skip", "spike"]

#: Losses from which on a jump can be told from noise.
ENOUGH = 20
#: Damaged clips that no run ends for, whatever their share.
A_FEW = 5
_COUNTS = ("skipped", "in_a_row", "spikes", "rollbacks", "clips", "damaged")
#: Of normal draws the standard deviation is so many times the median of the distances from the median.
_NORMAL = 1.4826


class Guard:
    """See the module.

    Attributes:
        skipped: steps since the run began whose loss or gradient was not finite, or none of whose clips could be read.
        in_a_row: how many of these came last, without another step between.
        spikes: jumps since the run began.
        rollbacks: how often the run went back to a checkpoint.
        clips: clips shown since the run began.
        damaged: clips that could not be read.
    """

    def __init__(self, config: GuardConfig, corrupt_share: float = 0.0) -> None:
        self._config = config
        self._corrupt_share = corrupt_share
        self._losses: deque[float] = deque(maxlen=config.window)
        self.skipped = self.in_a_row = self.spikes = self.rollbacks = self.clips = self.damaged = 0

    def judge(self, loss: float, norm: float, generated: int = 1) -> Verdict:
        """`skip` if either is not finite, or of no token; `spike` if the loss is far above those of the last steps."""
        if not (generated and math.isfinite(loss) and math.isfinite(norm)):
            self.skipped += 1
            self.in_a_row += 1
            return "skip"
        self.in_a_row = 0
        limit = self.limit()
        if limit is not None and loss > limit:
            self.spikes += 1
            # The run may have a new level to get used to; one that goes back forgets it with the window.
            self._losses.append(loss)
            return "spike"
        self._losses.append(loss)
        return "fine"

    def count_clips(self, shown: int, damaged: int) -> bool:
        """Take in the clips of a step; true if too many of all were damaged: more than A_FEW, and than their share."""
        self.clips += shown
        self.damaged += damaged
        return self.damaged > max(A_FEW, self._corrupt_share * (self.clips + self.damaged))

    def limit(self) -> float | None:
        """The loss from which on a step is a spike; null while too few steps were seen."""
        if self._config.spike == "ignore" or len(self._losses) < ENOUGH:
            return None
        middle = statistics.median(self._losses)
        spread = _NORMAL * statistics.median(abs(x - middle) for x in self._losses)
        return middle + self._config.spike_deviations * max(spread, 1e-3 * abs(middle))

    def seen(self) -> dict[str, Any]:
        """All that the future judgements depend on."""
        return {"losses": list(self._losses), **{name: getattr(self, name) for name in _COUNTS}}

    def forget(self, seen: dict[str, Any]) -> None:
        """The run went back to where `seen` was: the losses since are of weights that are no more."""
        self._losses.clear()
        self._losses.extend(seen.get("losses", []))

    def remember(self, seen: dict[str, Any]) -> None:
        """Go on from what `seen` gave."""
        self._losses.extend(seen.get("losses", []))
        for name in _COUNTS:
            setattr(self, name, seen.get(name, 0))
