"""Under a budget one request goes ahead, and the others wait until its answer has told what such a request takes.

    scouting = Scouting(needed=config.budget.is_limited)
    async with scouting.turn(request):          # alone, or with everyone once it is known
        ...                                     # ask
        scouting.answered(request)

How many tokens a picture is to a model cannot be known before: the first guess may be several times too low, and a
whole wave of requests sent on it would pass the budget. Requests with pictures and those of text alone are learnt
about apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from recaption.captioner import CaptionRequest


class Scouting:
    """Lives in one event loop."""

    def __init__(self, *, needed: bool) -> None:
        """`needed`: without it everyone goes at once."""
        self._needed = needed
        self._known: set[bool] = set()
        self._alone = {True: asyncio.Lock(), False: asyncio.Lock()}

    @asynccontextmanager
    async def turn(self, request: CaptionRequest) -> AsyncIterator[None]:
        """Wait while another request of this sort is out as the first."""
        sort = has_pictures(request)
        if self._needed and sort not in self._known:
            async with self._alone[sort]:
                if sort not in self._known:
                    yield
                    return
        yield

    def answered(self, request: CaptionRequest) -> None:
        """An answer came; if it told no tokens, waiting for the next one would teach no more."""
        self._known.add(has_pictures(request))


def has_pictures(request: CaptionRequest) -> bool:
    """False for a request of text alone."""
    return len(request.frames) > 0
