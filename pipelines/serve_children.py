"""Processes of the live view that can be killed: a film that hangs or a question too large costs one answer."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curate.isolate import Isolated

NICE = 5  # pages come first


class Children:
    """A few processes, lent to one thread at a time; each begins when it is first asked."""

    def __init__(self, count: int, *, memory_gib: float, threads: int | None = None) -> None:
        """`memory_gib`, `threads`: as `Isolated` takes them, for each process."""
        self._all = [Isolated(memory_gib=memory_gib, threads=threads, nice=NICE) for _ in range(count)]
        self._idle: queue.SimpleQueue[Isolated] = queue.SimpleQueue()
        for child in self._all:
            self._idle.put(child)

    @contextmanager
    def one(self, *, wait: bool = True) -> Iterator[Isolated]:
        """A process for as long as the block lasts. Raises queue.Empty if all are lent and it shall not `wait`."""
        child = self._idle.get(block=wait)
        try:
            yield child
        finally:
            self._idle.put(child)

    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [child.pid for child in self._all if child.pid is not None]

    def kill(self) -> None:
        """End those at work: whoever waits for one hears that it died."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End all of them. Nobody may be asking."""
        for child in self._all:
            child.close()
