"""What the VAE's training takes in: the clips of each step, prepared by threads while it computes.

data = VaeData(batch_at, typical, validation)
for clips in Ahead(data.batch_at, first=120, last=20_000, threads=2):
    clips.frames                                   # (B, T, H, W, 3) uint8 RGB
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """The clips of a step.

    Attributes:
        frames: (B, T, H, W, 3) uint8 RGB; pictures have T = 1.
        names: what each of them is, for messages.
    """

    frames: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class VaeData:
    """All that a VAE is trained with.

    Attributes:
        batch_at: number of a batch -> its clips, the same ones each time; called by several threads at once. One
            rank takes one per step; of n ranks, rank r takes number n·step + r.
        typical: batches (B, T, H, W, 3) uint8 of clips as they will be encoded, for the statistics of the latents.
        validation: unseen clips, in batches of one shape.
        about: what decides which clips a number stands for, as plain JSON; a run goes on only where it is the same.
    """

    batch_at: Callable[[int], Clips]
    typical: Iterable[Tensor]
    validation: list[Tensor]
    about: dict[str, Any] = field(default_factory=dict)


class Ahead:
    """The clips of batches in the order of their `numbers`; `threads` prepare the next ones meanwhile.

    Attributes:
        waited_s: seconds for which the training had to wait for clips.
    """

    def __init__(self, batch_at: Callable[[int], Clips], numbers: range, threads: int) -> None:
        self._batch_at, self._numbers, self._threads = batch_at, numbers, threads
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Clips]:
        with ThreadPoolExecutor(self._threads, thread_name_prefix="clips") as pool:
            waiting: deque[Future[Clips]] = deque()
            left = iter(self._numbers)
            try:
                for _ in self._numbers:
                    while len(waiting) <= self._threads and (number := next(left, None)) is not None:
                        waiting.append(pool.submit(self._batch_at, number))
                    began = time.monotonic()
                    clips = waiting.popleft().result()
                    self.waited_s += time.monotonic() - began
                    yield clips
            finally:
                for future in waiting:  # what was prepared for nothing, when training ends early
                    future.cancel()
