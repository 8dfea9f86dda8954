"""HTTP connections of the live view that cannot be held open for nothing, by whoever reaches the port.

uvicorn waits for ever for the rest of a request's head, and answers nobody once it has its most connections. So a head
must be whole within some seconds, and one address holds only some of the connections there may be.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_DEADLINE_S = 10.0
MOST_CONNECTIONS = 500
MOST_OF_ONE = 100  # of one address; a browser opens six, a proxy may stand for many


class PromptHTTP(H11Protocol):
    """uvicorn's HTTP, which closes a connection whose next head does not come, or that is one too many."""

    _too_late: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str | None:
        """Of the other side."""
        return self.client[0] if self.client else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        of_one = [c for c in self.connections if isinstance(c, PromptHTTP) and c.address == self.address]
        if len(of_one) > MOST_OF_ONE:
            transport.close()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def _await_head(self) -> None:
        """While a head is awaited one clock runs, from its first moment: more of it does not wind it up again."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._too_late is None and not self.transport.is_closing():
            self._too_late = self.loop.call_later(HEAD_DEADLINE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
