"""SIGTERM, by which clusters end a job: the run saves and leaves.

with on_sigterm() as stop:
    ...
    if stop.asked: ...

Under Ray the signal reaches the command alone, and the processes that train are elsewhere. It hands the signal on
through a file that all of them see:

with sigterm_asks(out / "stop"):              # the command
    ...
with on_sigterm(out / "stop") as stop:        # a process that trains
    ...
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

#: A file system of many machines is not asked more often.
LOOK_EVERY_S = 1.0


@dataclass
class Stop:
    """Whether the process was asked to end.

    Attributes:
        signalled: a signal came, or `place` was found.
        place: a file that asks as long as it is there; null for none.
    """

    signalled: bool = False
    place: Path | None = None
    _looked_s: float = -math.inf

    @property
    def asked(self) -> bool:
        """May look at the disk, once in LOOK_EVERY_S seconds; once true, it stays so."""
        if self.place and not self.signalled and time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            self.signalled = os.path.exists(self.place)
        return self.signalled


@contextmanager
def on_sigterm(asked_by: Path | None = None) -> Iterator[Stop]:
    """Inside, SIGTERM only asks, however often it comes, and so does the file `asked_by`; behind, it does what it did.

    Schedulers signal torchrun and its processes alike, and torchrun hands the signal on once more. Signals reach the
    main thread alone: in another one, as Ray's are, there is but the file. One that is there already asks only in such
    a thread; in the main thread it is of a run that has ended, and goes.
    """
    stop = Stop(place=asked_by)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if asked_by:
        with suppress(OSError):
            asked_by.unlink()

    def ask() -> None:
        stop.signalled = True

    with _at_sigterm(ask):
        yield stop


@contextmanager
def sigterm_asks(place: Path) -> Iterator[None]:
    """Inside, SIGTERM makes the file `place`, by which `on_sigterm` elsewhere is asked; behind, it is gone.

    One that is there already is of an earlier command, and goes first. In a thread that signals do not reach, nothing
    makes it. Raises OSError where it cannot be removed.
    """

    def ask() -> None:
        try:
            place.touch()
        except OSError as error:  # the run goes on: a signal must not cost what was computed
            logger.error(
                "the processes that train cannot be asked to end, %s cannot be written: %s", place, error
            )

    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        if threading.current_thread() is threading.main_thread():
            with _at_sigterm(ask):
                yield
        else:
            yield
    finally:
        place.unlink(missing_ok=True)


@contextmanager
def _at_sigterm(what: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM calls `what` and nothing else; of the main thread alone."""
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        what()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
