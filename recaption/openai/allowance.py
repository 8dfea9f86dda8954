"""What a request must wait for by our own rules: its turn under the budget and the rates; and what it used in the end.

    async with allowance.turn(request, deadline) as bill:       # raises BudgetSpent
        bill.used = bill.need           # what is sent may be generated, whatever comes back
        ...                             # ask
        bill.used = answer.usage
    allowance.used

Before an answer tells its tokens they are guessed; what was set aside too much is given back afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from recaption.captioner import CaptionRequest
from recaption.openai.budget import Ledger, Usage
from recaption.openai.config import OpenAIConfig
from recaption.openai.rate_limit import TokenBucket
from recaption.openai.scouting import Scouting
from recaption.openai.token_estimate import TokenEstimate


@dataclass
class Bill:
    """One request's tokens.

    Attributes:
        need: set aside for it: its estimated prompt, and an answer of full length.
        used: what it comes to; what is not sent costs nothing.
    """

    need: Usage
    used: Usage = field(default_factory=Usage)


class Allowance:
    """Lives in one event loop."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._answer_tokens = config.answer_tokens
        self._ledger = Ledger(config.budget)
        self._requests = TokenBucket(config.limits.requests_per_minute)
        self._tokens = TokenBucket(config.limits.tokens_per_minute)
        self._estimate = TokenEstimate()
        self._scouting = Scouting(needed=config.budget.is_limited)

    @property
    def used(self) -> Usage:
        """Tokens used so far, by the server's count or, where it told none, by estimate."""
        return self._ledger.used

    def cost_usd(self, usage: Usage) -> float | None:
        """US dollars at the configured prices; null without prices."""
        return self._ledger.cost_usd(usage)

    @asynccontextmanager
    async def turn(self, request: CaptionRequest, deadline: asyncio.Timeout) -> AsyncIterator[Bill]:
        """Wait until a request may go; on leaving, its tokens are in the books. The waiting puts `deadline` off."""
        async with AsyncExitStack() as stack:
            with _put_off(deadline):
                await stack.enter_async_context(self._scouting.turn(request))
                bill = Bill(await self._reserved(request))
            try:
                yield bill
            finally:
                self._ledger.settle(bill.need, bill.used)
                self._tokens.give_back(bill.need.total - bill.used.total)

    async def _reserved(self, request: CaptionRequest) -> Usage:
        now = asyncio.get_running_loop().time
        need = Usage(self._estimate.of(request), self._answer_tokens)
        await self._ledger.reserve(need)
        try:
            await asyncio.sleep(
                max(self._requests.reserve(1, now()), self._tokens.reserve(need.total, now()))
            )
        except BaseException:
            self._ledger.settle(need, Usage())
            raise
        return need

    def learn(self, request: CaptionRequest, tokens_in: int | None) -> None:
        """An answer came, and told its prompt tokens or did not: the next requests will take as many."""
        if tokens_in:
            self._estimate.learn(request, tokens_in)
        self._scouting.answered(request)


@contextmanager
def _put_off(deadline: asyncio.Timeout) -> Iterator[None]:
    """What is waited for in here is our own doing, not the server's: the deadline comes later by so much."""
    now = asyncio.get_running_loop().time
    until, began = deadline.when(), now()
    deadline.reschedule(None)
    try:
        yield
    finally:
        deadline.reschedule(None if until is None else until + now() - began)
