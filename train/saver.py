"""Writes checkpoints beside the training: a step waits for the copy of its weights alone.

    with Saver(store, ranks, keep=2) as saver:
        saver.begin(progress, model, optimizer, ema, about, seen)    # copies; a thread writes
        saver.poll()                                     # after each step, by all ranks: finishes what is written

Each rank writes its own pieces. When all have, rank 0 writes COMPLETE and deletes old checkpoints. Where a rank cannot
write, the checkpoint is given up, which is told, and the training goes on to the next one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from train.checkpoint import (
    Progress,
    Snapshot,
    complete,
    described,
    remove_all_but,
    snapshot,
    step_name,
    step_of,
    write_pieces,
)
from train.ema import Ema
from train.ranks import Ranks
from train.store import Store

logger = logging.getLogger(__name__)

Written = dict[str, tuple[int, int]]


@dataclass
class _Pending:
    """A checkpoint that is being written."""

    folder: str
    pieces: Future[Written]
    state: dict[str, Any]
    about: dict[str, Any]
    amiss: list[str]
    completion: Future[None] | None = None


class Saver:
    """See the module. All ranks call the same methods at the same steps.

    Attributes:
        failed: checkpoints that were given up.
        saved: the last one that was finished; null before.
    """

    def __init__(
        self,
        store: Store,
        ranks: Ranks,
        keep: int,
        newest: str | None = None,
        step: int = 0,
        lost: Callable[[int, str, str], None] = lambda step, place, why: logger.error(
            "checkpoint %s could not be written (%s)", place, why
        ),
    ) -> None:
        """`newest` is the checkpoint that the run goes on from, at `step`; `lost` is told of one that is given up."""
        self._store, self._ranks, self._keep, self._lost = store, ranks, keep, lost
        self._begun = step
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        # Of its own: COMPLETE must not wait behind the pieces of the next checkpoint.
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="saver-end")
        self._pending: deque[_Pending] = deque()
        self.failed = 0
        self.saved = newest

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is being written; not behind an error of one among several ranks, which may be alone with it."""
        if error is None or self._ranks.size == 1:
            self.wait()
        self._thread.shutdown()
        self._finisher.shutdown()

    @property
    def is_free(self) -> bool:
        """Another checkpoint may begin: at most one waits behind the one that is being written."""
        return len(self._pending) < 2

    def is_due(self, step: int, every: int) -> bool:
        """A multiple of `every` steps was passed since the last one began."""
        return step // every > self._begun // every

    def go_back(self) -> str | None:
        """The newest finished checkpoint, once what is being written is; the run begins anew behind it."""
        self.wait()
        if self.saved is not None:
            self._begun = step_of(self.saved)
        return self.saved

    def begin(
        self,
        progress: Progress,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Ema,
        about: dict[str, Any],
        seen: dict[str, Any],
    ) -> None:
        """Copy the state of a step and have it written. Call it only if `is_free`."""
        assert self.is_free, "two are still being written"
        folder, self._begun = step_name(progress.step), progress.step
        held = snapshot(model, optimizer, ema, self._ranks)
        pieces = self._thread.submit(self._write, folder, held)
        self._pending.append(_Pending(folder, pieces, described(progress, ema, seen), about, []))

    def _write(self, folder: str, held: Snapshot) -> Written:
        if self._ranks.rank == 0:
            self._store.remove(f"{folder}/COMPLETE")
        return write_pieces(self._store, folder, held, self._ranks.rank, self._ranks.size)

    def poll(self) -> None:
        """Take the checkpoint that is being written a step further, if every rank is done with the step before."""
        if self._pending and self._ranks.all_of(self._waits_for(self._pending[0]).done()):
            self._settle(self._pending[0])

    def wait(self) -> None:
        """Wait for what is being written, and finish it."""
        while self._pending:
            self._settle(self._pending[0])

    def _waits_for(self, pending: _Pending) -> Future[Any]:
        return pending.completion or pending.pieces

    def _settle(self, pending: _Pending) -> None:
        """The ranks tell what they wrote, or why they could not; then rank 0 has the checkpoint completed."""
        error = self._waits_for(pending).exception()  # waits
        if pending.completion is None:
            told = self._ranks.gather((None if error else pending.pieces.result(), error and _said(error)))
            pending.amiss = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(told) if text]
            if not pending.amiss:
                files = {name: size for written, _ in told for name, size in (written or {}).items()}
                pending.completion = self._finisher.submit(self._complete, pending, files)
                return
        else:
            pending.amiss = [text for text in self._ranks.gather(error and f"rank 0: {_said(error)}") if text]
        self._pending.popleft()
        if not pending.amiss:
            self.saved = pending.folder
            return
        self.failed += 1
        self._lost(step_of(pending.folder), self._store.uri(pending.folder), "; ".join(pending.amiss))
        if self._ranks.rank == 0:
            self._thread.submit(self._clear, pending.folder)

    def _complete(self, pending: _Pending, files: Written) -> None:
        if self._ranks.rank == 0:
            complete(self._store, pending.folder, files, pending.state, pending.about)
            try:
                remove_all_but(self._store, self._keep, pending.folder)
            except OSError as error:
                logger.warning("old checkpoints in %s could not be removed: %s", self._store.place, error)

    def _clear(self, folder: str) -> None:
        """Make room where a checkpoint was given up."""
        try:
            self._store.remove(folder)
        except OSError as error:
            logger.warning("%s could not be removed: %s", self._store.uri(folder), error)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
