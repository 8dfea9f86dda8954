"""How a training runs, whatever it learns: ranks, reading ahead, what to do in trouble, validation. Plain data.

TrainConfig(..., parallel=ParallelConfig(shard=True), guard=GuardConfig(spike="rollback"))       # train/config.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model.errors import BadInput


@dataclass(frozen=True)
class ParallelConfig:
    """How ranks share the work (train/parallel.py); by itself each has packs of its own and all the weights.

    Attributes:
        shard: each rank keeps but its rows of weights, gradients, moments and averages (FSDP2).
        ulysses: neighbouring ranks that share the tokens of the same packs, for clips that are too long for one; it
            must divide the ranks and the attention heads.
    """

    shard: bool = False
    ulysses: int = 1

    def __post_init__(self) -> None:
        if self.ulysses < 1:
            raise BadInput(f"parallel.ulysses is {self.ulysses}, must be 1 or more.")


@dataclass(frozen=True)
class FeedConfig:
    """How batches are read ahead of the step that needs them.

    Attributes:
        workers: threads that read clips and make packs of them.
        ahead: steps to prepare beyond the one that is computed.
        tries: attempts to read a clip, with growing pauses between, before it is left out as damaged.
        corrupt_share: share of the clips shown since the run began that may be left out as damaged; beyond it, and
            beyond five, the run stops.
    """

    workers: int = 2
    ahead: int = 2
    tries: int = 3
    corrupt_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("workers", "ahead", "tries"):
            if getattr(self, name) < 1:
                raise BadInput(f"feed.{name} is {getattr(self, name)}, must be 1 or more.")
        if not 0 <= self.corrupt_share <= 1:
            raise BadInput(f"feed.corrupt_share is {self.corrupt_share}, must be from 0 to 1.")


@dataclass(frozen=True)
class GuardConfig:
    """What a run does when something goes wrong.

    Attributes:
        skips: steps in a row whose loss or gradient is not finite; each is skipped, and the last one stops the run.
        window: past losses that a new one is compared with.
        spike_deviations: a loss so many standard deviations above their median is a spike.
        spike: what to do then: say so (note), go back to the newest checkpoint and leave out the clips since then
            (rollback), or nothing (ignore).
        rollbacks: how often a run may go back; then it stops.
        stall_s: seconds without a finished step after which the rank that holds the others up is named, the stacks of
            all are written to OUT/stalls/, and the run ends with exit code 86; 0 waits for ever.
    """

    skips: int = 10
    window: int = 100
    spike_deviations: float = 10.0
    spike: Literal["note", "rollback", "ignore"] = "note"
    rollbacks: int = 3
    stall_s: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("skips", "window"):
            if getattr(self, name) < 1:
                raise BadInput(f"guard.{name} is {getattr(self, name)}, must be 1 or more.")
        for name in ("spike_deviations", "stall_s", "rollbacks"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(f"guard.{name} is {getattr(self, name)}, must be 0 or more.")

    @property
    def wait_s(self) -> float:
        """Seconds that a rank waits for the others before it gives up: the watchdog must notice first."""
        return 2 * self.stall_s + 600 if self.stall_s else 7 * 86400.0


@dataclass(frozen=True)
class ValidationConfig:
    """The loss on clips that training never shows, by noise level, of the averaged weights.

    Attributes:
        every: steps between validations; the last step always has one. 0 has none, and holds no clips back.
        clips: how many are held back, though never more than a twentieth of the dataset; which ones is decided by
            their ids alone.
        levels: noise levels t at which their loss is measured, always with the same noise.
        samples: videos to draw at each validation from the captions of the first of these clips; 0 draws none.
        vae: the VAE to decode them, a folder or what `reelmill encode` was given; null is the one that encode used.
    """

    every: int = 1000
    clips: int = 64
    levels: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    samples: int = 2
    vae: str | None = None

    def __post_init__(self) -> None:
        for name in ("every", "clips", "samples"):
            if getattr(self, name) < 0:
                raise BadInput(f"validation.{name} is {getattr(self, name)}, must be 0 or more.")
        if not self.levels or not all(0 < t <= 1 for t in self.levels):
            raise BadInput(f"validation.levels are {list(self.levels)}: give numbers above 0, up to 1.")
