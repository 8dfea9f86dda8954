"""Steps of a training without end, read and packed ahead by threads.

Clips are what the threads share out, not packs: one pack may hold more pictures than there are threads.

with Feed(data, plan, cursor, config, shape, rank=0, ranks=1) as feed:
    step = next(feed)                                # step.batches, step.epoch, step.after
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch

from model.config import DiTConfig
from train.batch import Batch, Read, make_batch, read_clip
from train.config import TrainConfig
from train.data import LatentDataset
from train.packing import Cursor, PackPlan, dealt


@dataclass(frozen=True)
class Step:
    """The packs of one rank for one optimizer step, and the cursor behind the step."""

    batches: list[Batch]
    epoch: int
    after: Cursor


@dataclass(frozen=True)
class _Coming:
    """A step whose packs are being made."""

    batches: list[Future[Batch]]
    epoch: int
    after: Cursor


class Feed:
    """Steps from `cursor` on. One thread plans, `feed.workers` threads read clips and make packs of them."""

    def __init__(
        self,
        data: LatentDataset,
        plan: PackPlan,
        cursor: Cursor,
        config: TrainConfig,
        shape: DiTConfig,
        *,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | None = None,
    ) -> None:
        """`device` is where the batches will go: those for a GPU are put into page-locked memory."""
        self._data, self._plan, self._cursor = data, plan, cursor
        self._config, self._shape, self._rank, self._ranks = config, shape, rank, ranks
        self._device = device or torch.device("cpu")
        self._pool = ThreadPoolExecutor(
            config.feed.workers, thread_name_prefix="feed", initializer=self._begin_thread
        )
        self._coming: queue.Queue[_Coming | BaseException] = queue.Queue(config.feed.ahead)
        self._ended = threading.Event()
        self._planner = threading.Thread(target=self._plan_ahead, name="feed-plan", daemon=True)

    def __enter__(self) -> Feed:
        self._planner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._planner.join()

    def __next__(self) -> Step:
        """The next step. Raises what went wrong in a thread."""
        coming = self._coming.get()
        if isinstance(coming, BaseException):
            raise coming
        return Step([future.result() for future in coming.batches], coming.epoch, coming.after)

    def _plan_ahead(self) -> None:
        cursor = self._cursor
        try:
            while not self._ended.is_set():
                coming = self._prepare(cursor)
                cursor = coming.after
                self._hand_over(coming)
        except BaseException as error:  # raised again where the step is asked for
            self._hand_over(error)

    def _hand_over(self, coming: _Coming | BaseException) -> None:
        while not self._ended.is_set():
            try:
                self._coming.put(coming, timeout=0.1)
                return
            except queue.Full:
                continue

    def _prepare(self, cursor: Cursor) -> _Coming:
        packs, after = self._plan.step(cursor, self._ranks * self._config.accumulate)
        mine = dealt(packs, self._rank, self._ranks)
        tries = self._config.feed.tries
        # The pool takes its tasks in order: when a pack is made its clips are read, or about to be.
        reading = [
            {number: self._pool.submit(read_clip, self._data, tries, number) for number in pack}
            for pack in mine
        ]
        making = [
            self._pool.submit(self._make, pack, read, cursor.epoch)
            for pack, read in zip(mine, reading, strict=True)
        ]
        return _Coming(making, cursor.epoch, after)

    def _make(self, pack: list[int], read: dict[int, Future[Read]], epoch: int) -> Batch:
        batch = make_batch(
            self._data,
            pack,
            epoch,
            self._config,
            self._shape,
            read_one=lambda number: read.pop(number).result(),
        )
        return batch.pinned() if self._device.type == "cuda" else batch

    def _begin_thread(self) -> None:
        """A thread of its own would take the first GPU, whichever this process computes on."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
