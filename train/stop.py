"""SIGTERM, by which clusters end a job: the run saves and leaves.

with on_sigterm() as stop:
    ...
    if stop.asked: ...
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether the process was asked to end."""

    asked: bool = False


@contextmanager
def on_sigterm() -> Iterator[Stop]:
    """Inside, SIGTERM only asks, however often it comes; behind, it does what it did.

    Schedulers signal torchrun and its processes alike, and torchrun hands the signal on once more. Signals reach the
    main thread alone: in another one nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
