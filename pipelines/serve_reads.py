"""Reads of a store that may hang: nobody waits for one beyond its deadline, and neither does the server's end.

    reads = Reads()
    data = await reads.of(dataset.read_bytes, "shards", name)

A thread that a store holds cannot be ended. So each read has one of its own, that is left to itself when its time is
over; the threads that answer everything else are not among them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from pipelines.serve_sql import TooLong

DEADLINE_S = 30.0
AT_ONCE = 16  # those that were given up count until their store answers, or gives up too
Found = TypeVar("Found")


class Reads:
    """Reads for one event loop, AT_ONCE at a time; others wait."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def of(self, function: Callable[..., Found], *args: object) -> Found:
        """What the function returns or raises; TooLong after DEADLINE_S, the waiting for a turn included."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()

        def tell(found: list[Found], error: Exception | None) -> None:
            self._turns.release()
            if answer.done():  # nobody waits any more
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found[0])

        def work() -> None:
            found: list[Found] = []
            error: Exception | None = None
            try:
                found.append(function(*args))
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(tell, found, error)

        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._turns.acquire()
                threading.Thread(target=work, name="serve-read", daemon=True).start()
                return await answer
        except TimeoutError as error:
            raise TooLong(f"the store of the shards did not answer within {DEADLINE_S:g} seconds.") from error
