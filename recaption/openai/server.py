"""The `openai` backend: any server that speaks OpenAI's chat completions over HTTP (vLLM, SGLang, hosted ones).

    REELMILL_API_KEY=... reelmill recaption --dataset URI --captioner.backend=openai \\
        --captioner.openai.base_url=http://127.0.0.1:8000/v1 --captioner.openai.model=Qwen/Qwen2.5-VL-7B-Instruct

One event loop and one connection pool serve all batches and all threads of a worker. A request waits for its turn
(allowance), for the server to be up (circuit_breaker), and is then asked. What fails in passing (429,
5xx, time-outs, broken connections, malformed answers) is tried again after a jittered, growing pause, or the
pause that the server asks for. What fails for good is a result with the full error text. Only a server that lets us
in with nothing (a wrong key, model or address) ends the run.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import weakref
from dataclasses import dataclass, field

import httpx

from curate.errors import BadInput
from recaption.captioner import CaptionRequest, CaptionResult
from recaption.openai.access import Access
from recaption.openai.allowance import Allowance
from recaption.openai.answer import Answer, Passing, read_answer
from recaption.openai.answer_cache import AnswerCache, worth_keeping
from recaption.openai.background_loop import BackgroundLoop
from recaption.openai.body import Body, make_body
from recaption.openai.budget import BudgetSpent, Usage
from recaption.openai.circuit_breaker import CircuitBreaker, ServerDown
from recaption.openai.client import open_client, without_key
from recaption.openai.config import OpenAIConfig

NO_GUIDED_DECODING = (400, 422)
#: What a request can do wrong on its way into bytes, and an answer on its way back.
ROW_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    OSError,
)


@dataclass
class _Row:
    """What happens to one request, try by try."""

    request: CaptionRequest
    body: Body
    deadline: asyncio.Timeout
    tries: int = 0
    errors: list[str] = field(default_factory=list)
    used: list[Usage] = field(default_factory=list)


class OpenAICaptioner:
    """Captions from a server. `caption` may be called from several threads at once; they share all limits."""

    def __init__(self, config: OpenAIConfig) -> None:
        """Raises BadInput if the model is not named or the cache cannot be written."""
        self.config = config
        self.identity = config.identity()
        self._cache = AnswerCache(config.cache) if config.cache else None
        self._allowance = Allowance(config)
        self._access = Access(config)
        self._breaker = CircuitBreaker(
            config.breaker.failures,
            pause_s=config.breaker.pause_s,
            pause_max_s=config.backoff_max_s,
            give_up_s=config.deadline_s,
            jitter_s=config.backoff_s,
        )
        self._unguided: set[str] = set()  # schemas that the server cannot follow
        self._slots = asyncio.Semaphore(config.in_flight)
        self._client = open_client(config)
        self._loop = BackgroundLoop("captions", at_exit=self._client.aclose)
        self._finalizer = weakref.finalize(self, self._loop.close)
        self._finalizer.atexit = False  # the loop's thread ends with the program anyway

    def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        """One result per request, in the order of the requests.

        Raises BadInput if the server has refused whatever was asked: it does not know the key or the model.
        """
        results = self._loop.run(self._all(requests))
        if self._access.denied:
            raise BadInput(self._access.denied)
        return results

    def close(self) -> None:
        """Close the connections; otherwise done when the captioner is no longer used."""
        self._finalizer()

    @property
    def used(self) -> Usage:
        """Tokens used so far, by the server's count or, where it told none, by estimate."""
        return self._allowance.used

    async def _all(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(request)) for request in requests]
        return [task.result() for task in tasks]

    async def _one(self, request: CaptionRequest) -> CaptionResult:
        async with self._slots:
            began = time.monotonic()
            if self._access.denied:
                return _result(request, Answer("error", error=self._access.denied))
            try:
                # In a thread: JPEGs take longer to make than all else here, and leave Python alone meanwhile.
                body, kept = await asyncio.to_thread(self._prepare, request)
            except ROW_ERRORS as error:
                return _result(request, Answer("error", error=f"{type(error).__name__}: {error}"))
            if kept is not None:
                return _result(request, kept, cost_usd=self._allowance.cost_usd(Usage()))
            deadline = asyncio.timeout(self.config.deadline_s)
            row = _Row(request, body, deadline)
            answer = await self._answer(row)
            latency_ms = (time.monotonic() - began) * 1000
            if self._cache:
                await asyncio.to_thread(self._keep, row, answer)
            cost = self._allowance.cost_usd(sum(row.used, Usage())) if row.used else None
            retries = max(0, row.tries - 1)
            return _result(request, answer, latency_ms=latency_ms, retries=retries, cost_usd=cost)

    def _prepare(self, request: CaptionRequest) -> tuple[Body, Answer | None]:
        """What to send, and what was answered to it before."""
        body = make_body(request, self.config)
        kept = self._cache.get(body.digest) if self._cache else None
        # Kept under older rules perhaps; what is of no use today is asked for again.
        return body, kept if kept and worth_keeping(request, kept) else None

    def _keep(self, row: _Row, answer: Answer) -> None:
        if self._cache and worth_keeping(row.request, answer):
            self._cache.put(row.body.digest, answer)

    async def _answer(self, row: _Row) -> Answer:
        """The answer after as many tries as it takes; never raises for what a server may do."""
        errors = row.errors
        try:
            async with row.deadline:
                answer = await self._tries(row)
        except TimeoutError:
            answer = Answer("error")
            errors.append(f"deadline: not answered within deadline_s={self.config.deadline_s:g}")
        except BudgetSpent as error:
            answer = Answer("error")
            errors.insert(0, str(error))
        except ServerDown as error:
            answer = Answer("error")
            errors.append(str(error))
        except (httpx.HTTPError, httpx.InvalidURL, *ROW_ERRORS) as error:
            answer = Answer("error")
            errors.append(f"{type(error).__name__}: {error}")
        if answer.status != "error":
            return answer
        told = "\n".join([*errors, *filter(None, [answer.error])])
        return Answer("error", None, told, answer.finish_reason, answer.tokens_in, answer.tokens_out)

    async def _tries(self, row: _Row) -> Answer:
        config, schema = self.config, json.dumps(row.request.schema, sort_keys=True)
        # Seeded by the request: pauses of many spread out, and a run can be repeated.
        jitter = random.Random("/".join(map(str, row.request.key)))
        faults = 0
        while True:
            guided = row.request.schema is not None and schema not in self._unguided
            try:
                answer = await self._ask(row, row.body.content if guided else row.body.plain)
                if guided and answer.http_status in NO_GUIDED_DECODING:
                    answer = await self._ask(row, row.body.plain)
                    if answer.http_status == 200:  # else it was something else that the server did not like
                        self._unguided.add(schema)
                return answer
            except Passing as failure:
                row.errors.append(f"try {row.tries}: {failure}")
                faults += failure.counts
                if faults > config.retries:
                    return Answer("error")
                pause_s = min(config.backoff_max_s, config.backoff_s * 2 ** min(row.tries - 1, 30))
                if failure.hold_s is not None:  # everyone waits for that; add no more than it or a moment
                    pause_s = min(pause_s, max(config.backoff_s, failure.hold_s))
                await asyncio.sleep(pause_s * (0.5 + jitter.random()))

    async def _ask(self, row: _Row, content: bytes) -> Answer:
        """One try, when it is allowed. Raises Passing; whatever happens, its tokens are in the books."""
        async with self._allowance.turn(row.request, row.deadline) as bill:
            probe = await self._breaker.admit()
            row.tries += 1
            bill.used = bill.need  # an answer that is late, or cut off, may have been generated all the same
            try:
                answer = read_answer(await self._post(content, probe), self.config.answer_tokens)
            except Passing as failure:
                failure.counts &= not probe  # a probe that fails says nothing about its request
                if failure.usage is not None:
                    bill.used = failure.usage
                    row.used.append(failure.usage)
                if failure.hold_s is not None:
                    self._breaker.hold(failure.hold_s)
                raise
            self._access.learn(answer)
            if answer.usage is not None:
                bill.used = answer.usage
                row.used.append(answer.usage)
            if answer.http_status == 200:
                self._allowance.learn(row.request, answer.tokens_in)
            return answer

    async def _post(self, content: bytes, probe: bool) -> httpx.Response:
        """Send and receive; the breaker learns how it went. Raises Passing without a response."""
        alive, busy, why = False, False, "no answer before the deadline"
        try:
            response = await self._client.post("chat/completions", content=content)
            status = response.status_code
            alive, busy, why = status < 500, status == 429, f"HTTP {status} {response.reason_phrase}"
            return response
        except httpx.RequestError as error:  # time-outs, refused and broken connections, broken encodings
            why = f"{type(error).__name__}: {error}"
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise Passing(why, usage=Usage() if unsent else None) from error
        finally:
            self._breaker.done(probe, alive=alive, busy=busy, why=why)


def _result(
    request: CaptionRequest,
    answer: Answer,
    *,
    latency_ms: float | None = None,
    retries: int = 0,
    cost_usd: float | None = None,
) -> CaptionResult:
    return CaptionResult(
        *request.key[:2],
        answer.status,
        text_raw=answer.text,
        error=without_key(answer.error),
        finish_reason=answer.finish_reason,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        latency_ms=latency_ms,
        retries=retries,
        cost_usd=cost_usd,
        window=request.window,
    )
