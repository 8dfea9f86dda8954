"""The budget of a captioner: what its requests used, what those in flight may use, and when to stop.

    ledger = Ledger(Budget(max_tokens_total=1_000_000))
    await ledger.reserve(need)          # raises BudgetSpent when the next request would pass the budget
    ledger.settle(need, used)

Reserving before sending is what holds the budget under concurrency: requests in flight count with all that they
may use. One that would fit if those used less waits for them to finish.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from recaption.openai.config import Budget


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, or of many.

    Attributes:
        tokens_in: of the prompt, pictures included.
        tokens_out: generated.
    """

    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)


class BudgetSpent(Exception):
    """The next request would pass the budget; the message says which one and what to raise."""


class Ledger:
    """Lives in one event loop. Once it has refused a request it refuses all that follow."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.used = Usage()
        self._reserved = Usage()
        self._stopped: str | None = None
        self._settled = asyncio.Event()

    def cost_usd(self, usage: Usage) -> float | None:
        """US dollars at the configured prices; null without prices."""
        in_price, out_price = self.budget.usd_per_million_in, self.budget.usd_per_million_out
        if in_price is None or out_price is None:
            return None
        return (usage.tokens_in * in_price + usage.tokens_out * out_price) / 1e6

    async def reserve(self, need: Usage) -> None:
        """Set `need` aside, after waiting for requests in flight if it may fit once they are done."""
        while self._passes(self.used + self._reserved + need):
            self._stopped = self._stopped or self._why(need)
            if self._stopped:
                self._wake()
                raise BudgetSpent(self._stopped)
            await self._settled.wait()
        if self._stopped:
            raise BudgetSpent(self._stopped)
        self._reserved += need

    def settle(self, reserved: Usage, used: Usage) -> None:
        """Replace what was set aside by what was used."""
        self._reserved -= reserved
        self.used += used
        self._wake()

    def _wake(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    def _passes(self, usage: Usage) -> bool:
        tokens, dollars = self.budget.max_tokens_total, self.budget.max_cost_usd
        cost = self.cost_usd(usage)
        return bool(
            (tokens is not None and usage.total > tokens)
            or (dollars is not None and cost is not None and cost > dollars)
        )

    def _why(self, need: Usage) -> str | None:
        """Why `need` cannot be met even when everything in flight turns out to use nothing; null if it can."""
        after = self.used + need
        if not self._passes(after):
            return None
        tokens, dollars = self.budget.max_tokens_total, self.budget.max_cost_usd
        if tokens is not None and after.total > tokens:
            option, used = f"max_tokens_total={tokens}", f"{self.used.total} tokens"
            more = f"{need.total}"
        else:
            option, used = f"max_cost_usd={dollars}", f"{self.cost_usd(self.used) or 0:.6g} US dollars"
            more = f"{self.cost_usd(need) or 0:.6g}"
        return (
            f"budget: not asked, because {option} (this worker's share) would be passed: {used} are used and the "
            f"next request may use {more}. Raise "
            f"--captioner.openai.budget.{option.split('=')[0]} and run again with --retry=failed."
        )
