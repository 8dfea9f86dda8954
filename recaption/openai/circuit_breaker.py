"""Lets requests pass, or makes all of them wait: while the server is down, and while it asks to be left alone.

    probe = await breaker.admit()           # raises ServerDown when the server has been down for too long
    ...                                     # ask
    breaker.done(probe, alive=True)

Closed, it lets everything pass. After `failures` failures in a row it opens: all wait for a growing pause, then
one request goes as a probe. If that is answered, it closes; if not, the next pause begins. When nothing was
answered for `give_up_s`, waiting makes no sense any more: what comes between two probes fails at once. A server
that is busy (429) is up, and nobody waits for a probe; but one that is nothing but busy for `give_up_s` is as good
as down, and so is one that asks to be left alone for longer than that.
"""

from __future__ import annotations

import asyncio
import logging
import random

log = logging.getLogger(__name__)


class ServerDown(Exception):
    """The server answered nothing for so long that rows fail instead of waiting for it."""


class CircuitBreaker:
    """Lives in one event loop; times are those of its clock, in seconds."""

    def __init__(
        self, failures: int, *, pause_s: float, pause_max_s: float, give_up_s: float, jitter_s: float
    ) -> None:
        """`jitter_s`: after a hold, requests start spread over so much time."""
        self._failures = failures
        self._first_pause_s = self._pause_s = pause_s
        self._pause_max_s = max(pause_s, pause_max_s)
        self._give_up_s = give_up_s
        self._jitter_s = jitter_s
        self._streak = 0  # failures in a row
        self._useless_since: float | None = None  # the first failure or 429 since something was answered
        self._last_failure_at = 0.0
        self._last_failure = ""
        self._probe_at: float | None = None  # open if not null
        self._probing = False
        self._held_until = 0.0
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """True while requests wait for a probe."""
        return self._probe_at is not None

    async def admit(self) -> bool:
        """Wait until a request may go; True if it is the probe. Raises ServerDown."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            held_s = self._held_until - now
            if held_s > self._give_up_s:
                raise ServerDown(
                    f"the server asks to be left alone for {held_s:.0f} s more (Retry-After), which is longer than "
                    f"deadline_s={self._give_up_s:g}. Run again after that with --retry=failed."
                )
            if self._probe_at is None:
                if held_s <= 0:
                    return False
                await self._wait(held_s + random.random() * self._jitter_s)
            elif self._probing:
                await self._wait(None)
            elif now >= max(self._probe_at, self._held_until):
                self._probing = True
                return True
            elif self._useless_s(now) >= self._give_up_s:
                raise ServerDown(
                    f"the server has answered nothing for {self._useless_s(now):.0f} s. When it is up again, "
                    f"run again with --retry=failed. Its last failure: {self._last_failure}"
                )
            else:
                await self._wait(max(self._probe_at, self._held_until) - now)

    def hold(self, seconds: float) -> None:
        """Nobody may go for so long: the server asked for it."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    def done(self, probe: bool, *, alive: bool, busy: bool = False, why: str = "") -> None:
        """What became of an admitted request.

        `alive`: the server answered, with whatever but a 5xx. `busy`: it answered that it had no time (429).
        """
        now = asyncio.get_running_loop().time()
        if probe:
            self._probing = False
        if alive and not busy:
            self._useless_since = None
            self._close()
        else:
            self._note(now, why)
            self._streak = 0 if alive else self._streak + 1
            if alive and self._useless_s(now) < self._give_up_s:
                self._close()
            else:
                self._fail(probe, now)
        self._changed.set()
        self._changed = asyncio.Event()

    def _useless_s(self, now: float) -> float:
        """How long the server has given no answer."""
        return 0.0 if self._useless_since is None else now - self._useless_since

    def _note(self, now: float, why: str) -> None:
        # A time in which nobody asked anything is not held against the server.
        last_s = max(self._last_failure_at, self._held_until)
        unasked = not self.is_open and now - last_s > self._give_up_s
        if self._useless_since is None or unasked:
            self._useless_since = now
        self._last_failure_at, self._last_failure = now, why

    def _close(self) -> None:
        if self.is_open:
            log.info("the server answers again; requests go on")
        self._streak, self._probe_at, self._pause_s = 0, None, self._first_pause_s

    def _fail(self, probe: bool, now: float) -> None:
        useless_s = self._useless_s(now)
        if self._probe_at is None and (self._streak >= self._failures or useless_s >= self._give_up_s):
            log.warning(
                "the server has answered nothing for %.1f s (%s); all wait %.1f s, then one tries",
                useless_s, self._last_failure, self._pause_s,
            )  # fmt: skip
            self._probe_at = now + self._pause_s
        elif self._probe_at is not None and probe:
            self._pause_s = min(self._pause_max_s, self._pause_s * 2)
            self._probe_at = now + self._pause_s

    async def _wait(self, seconds: float | None) -> None:
        """Until the state changes or the time is up."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
