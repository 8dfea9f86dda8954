"""What the steps between two rows of metrics.jsonl came to.

tally = Tally(counted, room, ranks, peak)
counts = count_step(batches, counted, shape, ranks, ...)     # summed over all ranks
tally.add(counts, loss, errors)                              # sums_of(...) over all ranks
tally.row()                                                  # of metrics.jsonl
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config import DiTConfig
from train.batch import Batch, by_level, by_mode
from train.caption_counts import count, ratios
from train.condition_counts import N_COUNTS, by_condition, count_conditions
from train.conditions import MODES
from train.flops import train_flops
from train.ranks import Ranks

#: Noise levels are told in tenths.
LEVELS = 10


@dataclass(frozen=True)
class StepCounts:
    """What all ranks count of a step; whole numbers.

    Attributes:
        tokens: of clips of the data.
        flops: operations of training on them (train/flops.py), in units of 10^6.
        damaged: clips that could not be read.
        disputed: clips that a rank could not read, counted by each of those that share its tokens.
        stops: ranks that were asked to end.
        waited_s: how long the rank that waited longest waited for its batches.
        given: what was given (train/condition_counts.py).
        drawn: captions shown (train/caption_counts.py).
    """

    tokens: int
    flops: int
    damaged: int
    disputed: int
    stops: int
    waited_s: float
    given: list[int]
    drawn: list[int]

    @property
    def generated(self) -> int:
        """Tokens that have a loss."""
        return sum(self.given[: len(MODES)])


def count_step(
    batches: Sequence[Batch],
    counted: list[str],
    shape: DiTConfig,
    ranks: Ranks,
    counts_clips: bool,
    stop: bool,
    waited_s: float = 0.0,
) -> StepCounts:
    """Sum over all ranks. Of ranks that share the tokens of their packs one alone counts the clips."""
    mine = batches if counts_clips else []
    lengths = np.array([n for b in mine if b.conditions for n in b.pack.lengths], np.int64)
    # Each rank has a place of its own for its wait: one sum tells the longest.
    waited_us = [0] * ranks.size
    waited_us[ranks.rank] = round(waited_s * 1e6)
    here = [
        *waited_us,
        sum(b.n_tokens for b in mine),
        round(float(train_flops(lengths, shape).sum()) / 1e6),
        sum(len(b.damaged) for b in mine),
        sum(len(b.damaged) for b in batches),
        int(stop),
        *count_conditions(mine),
        *count(counted, (choice for b in mine for choice in b.captions)),
    ]
    found = ranks.sum_(torch.tensor(here, device=ranks.device)).tolist()
    waited, (tokens, flops, damaged, disputed, stops, *rest) = found[: ranks.size], found[ranks.size :]
    given, drawn = rest[:N_COUNTS], rest[N_COUNTS:]
    return StepCounts(tokens, flops, damaged, disputed, stops, max(waited) / 1e6, given, drawn)


def sums_of(errors: Tensor, part: Tensor, batch: Batch) -> Tensor:
    """(1 + 6 + 10 + 10,) the loss; errors by mode; errors and tokens by level. `errors` (S,) of own tokens."""
    tokens = by_level(batch.is_generated, batch)
    return torch.cat([part.detach()[None], by_mode(errors, batch), by_level(errors, batch), tokens])


N_SUMS = 1 + len(MODES) + 2 * LEVELS


class Tally:
    """Sums since the last row; those of what was learned go with the checkpoints, so that a resumed run's rows are
    of the same steps. Times are of this process alone."""

    def __init__(self, counted: list[str], room: int, ranks: Ranks, peak: float | None) -> None:
        """`counted` names what is counted of captions; `room` is how many tokens the packs of a step can hold.

        `peak` is the most operations per second of all devices together, null if not known.
        """
        self._counted, self._room, self._ranks, self._peak = counted, room, ranks, peak
        self._began_s = time.perf_counter()
        self._losses: list[float] = []
        self._errors = np.zeros(N_SUMS - 1)
        self._damaged = 0
        self._given, self._drawn = np.zeros(N_COUNTS, np.int64), np.zeros(len(counted), np.int64)
        self._tokens = self._flops = self._steps = 0
        self._waited_s = 0.0

    def add(self, counts: StepCounts, loss: float, errors: Sequence[float]) -> None:
        """Take in a step; one that was skipped has no loss to take in, and counts as time and tokens alone."""
        self._steps += 1
        self._tokens += counts.tokens
        self._flops += counts.flops
        self._waited_s += counts.waited_s
        self._damaged += counts.damaged
        self._drawn += counts.drawn
        if np.isfinite(loss) and counts.generated:
            self._losses.append(loss)
            self._errors += errors
            self._given += counts.given

    def seen(self) -> dict[str, Any]:
        """What the next row depends on, for a checkpoint."""
        return {
            "counted": self._counted,
            "losses": list(self._losses),  # written later, when this has more
            "errors": self._errors.tolist(),
            "damaged": self._damaged,
            "given": self._given.tolist(),
            "drawn": self._drawn.tolist(),
        }

    def remember(self, seen: dict[str, Any]) -> None:
        """Go on from what `seen` gave, unless that is nothing, or other kinds of captions are counted now."""
        if seen.get("counted") != self._counted:
            return
        self._losses, self._damaged = list(seen["losses"]), seen["damaged"]
        self._errors = np.array(seen["errors"])
        self._given, self._drawn = np.array(seen["given"], np.int64), np.array(seen["drawn"], np.int64)

    def row(self) -> dict[str, Any]:
        """Mean loss, that by mode and by noise level, speed, and the shares of room and time that were of no use."""
        seconds = time.perf_counter() - self._began_s
        of_modes, of_levels, in_levels = np.split(self._errors, [len(MODES), len(MODES) + LEVELS])
        return {
            "loss": sum(self._losses) / len(self._losses) if self._losses else None,
            "conditions": by_condition(self._given.tolist(), of_modes.tolist()),
            "loss_by_level": {
                f"{i / LEVELS:.1f}": of_levels[i] / in_levels[i] for i in range(LEVELS) if in_levels[i]
            },
            "tokens_per_s": self._tokens / seconds,
            "packed_tokens_per_s": self._room * self._steps / seconds,
            "steps_per_s": self._steps / seconds,
            "padding_share": 1 - self._tokens / (self._room * self._steps),
            "mfu": None if self._peak is None else self._flops * 1e6 / seconds / self._peak,
            "data_wait_share": self._waited_s / seconds,
            "memory_gib": memory_gib(self._ranks.device),
            "damaged": self._damaged,
            "captions": ratios(self._counted, self._drawn.tolist()),
        }


def memory_gib(device: torch.device) -> float:
    """Most memory that this process ever held: of the GPU's, or of the machine's where it computes on CPUs."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
