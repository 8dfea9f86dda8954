"""Pictures on their way from one decoder to several encoders, within a budget of memory.

budget = Budget(256 << 20)
feed = Feed(budget)
# one thread: feed.put(picture) ..., feed.close()      another: for picture in feed: ...
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import av


class Budget:
    """Bytes of pictures that may be waiting at once, in all feeds together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes fit; a picture larger than the budget passes alone."""
        with self._changed:
            while self._used and self._used + size > self._limit:
                self._changed.wait()
            self._used += size

    def give(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class Feed(Iterator[av.VideoFrame]):
    """The pictures of one clip, in order.

    The one who reads must either read to the end or `abandon` it; feeds that were begun earlier must be read
    independently of later ones, or the budget could never be given back.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._waiting: queue.SimpleQueue[av.VideoFrame | None] = queue.SimpleQueue()
        self._abandoned = False
        self._error: BaseException | None = None
        self.closed = threading.Event()

    def put(self, picture: av.VideoFrame) -> None:
        if not self._abandoned:
            self._budget.take(_size(picture))
            self._waiting.put(picture)

    def close(self, error: BaseException | None = None) -> None:
        """No picture follows; the reader raises `error` after those that are there."""
        self._error = error
        self.closed.set()
        self._waiting.put(None)

    def __next__(self) -> av.VideoFrame:
        picture = self._waiting.get()
        if picture is None:
            self._waiting.put(None)
            if self._error is not None:
                raise self._error
            raise StopIteration
        self._budget.give(_size(picture))
        return picture

    def abandon(self) -> None:
        """Read no more: what waits and what still comes is dropped."""
        self._abandoned = True
        while (picture := self._waiting.get()) is not None:
            self._budget.give(_size(picture))


def _size(picture: av.VideoFrame) -> int:
    return sum(plane.buffer_size for plane in picture.planes)
