"""What the openai backend keeps to: requests at once, rates and the budget."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from asked_by_number import captioner, requests, right, said
from fault_plans import by_word
from fault_server import FaultServer

from pipelines.captioners import CaptionerConfig, load_captioner
from recaption.openai.budget import Usage
from recaption.openai.config import Budget, OpenAIConfig, RateLimits
from recaption.openai.rate_limit import TokenBucket
from recaption.openai.server import OpenAICaptioner
from recaption.openai.token_estimate import TokenEstimate


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as found:
        yield found


def at_once(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Requests at once ---------------------------------------------------------------------------------------


def test_in_flight_is_reached_and_never_exceeded_over_batches_and_threads(server: FaultServer) -> None:
    server.delay_s = 0.1
    asking = captioner(server, in_flight=12)
    found: dict[str, str | None] = {}

    def batch(numbers: range) -> Callable[[], None]:
        return lambda: found.update(said(asking.caption(requests(numbers))))

    at_once(*(batch(range(start, start + 15)) for start in range(0, 60, 15)))
    assert found == right(range(60))
    assert server.peak == 12
    asking.caption(requests(range(60, 90)))
    assert server.peak == 12
    assert server.seen.connections == 12  # kept open from batch to batch


def test_answers_in_any_order_stay_with_their_clip(server: FaultServer) -> None:
    # The later asked, the sooner answered.
    server.plan = lambda ask: f"slow:{0.3 * (1 - int(ask.prompt.split()[1]) / 40):.3f}"
    assert said(captioner(server, in_flight=40).caption(requests(range(40)))) == right(range(40))


# Rates --------------------------------------------------------------------------------------------------


def test_a_bucket_gives_places_in_order_and_takes_corrections() -> None:
    bucket = TokenBucket(per_minute=60)
    assert [bucket.reserve(1, now=100.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    bucket.give_back(1)
    assert bucket.reserve(1, now=100.0) == 2.0
    assert bucket.reserve(5, now=110.0) == 0.0  # nothing is saved up ...
    assert bucket.reserve(1, now=111.0) == 4.0  # ... and a large one is paid for before the next
    assert TokenBucket(None).reserve(10**9, now=0.0) == 0.0


def test_requests_per_minute_as_the_server_counts_them(server: FaultServer) -> None:
    server.plan = by_word({"3": ["500"], "7": ["500"]})
    limits = RateLimits(requests_per_minute=1200)  # 20 per second
    asking = captioner(server, limits=limits, deadline_s=1.0)  # waiting for one's turn is not held against it
    assert said(asking.caption(requests(range(30)))) == right(range(30))
    times = [seen.at_s for seen in server.seen.asks]
    assert len(times) == 32  # retries are requests
    assert times[-1] - times[0] >= 31 / 20 - 0.05
    for begin in times:  # two more than 20 in a second: the window's own edge, and a late timer
        assert sum(begin <= at < begin + 1.0 for at in times) <= 22


def test_tokens_per_minute_as_the_server_counts_them(server: FaultServer) -> None:
    # 12 + 4 tokens each; max_tokens are reserved and given back.
    asking = captioner(server, limits=RateLimits(tokens_per_minute=60 * 320), max_tokens=100, in_flight=4)
    assert said(asking.caption(requests(range(30)))) == right(range(30))
    times = [seen.at_s for seen in server.seen.asks]
    assert 1.0 < times[-1] - times[0] < 6.0
    assert server.tokens / (times[-1] - times[0]) < 320 * 1.5


# The budget ---------------------------------------------------------------------------------------------


def test_the_token_budget_stops_cleanly_and_is_never_passed(server: FaultServer) -> None:
    server.delay_s = 0.02
    asking = captioner(server, budget=Budget(max_tokens_total=640), max_tokens=32, in_flight=8)
    results = asking.caption(requests(range(60)))
    good = [result for result in results if result.status == "ok"]
    rest = [result for result in results if result.status != "ok"]
    assert len(good) + len(rest) == 60
    assert server.requests == len(good)  # those refused were not sent
    assert server.tokens == asking.used.total == 16 * len(good)
    assert 640 - 16 - 2 * 32 <= server.tokens <= 640
    for result in rest:
        assert result.status == "error"
        assert (result.error or "").startswith("budget: ")
        assert "--captioner.openai.budget.max_tokens_total" in (result.error or "")
        assert (result.retries, result.cost_usd) == (0, None)

    sent = server.requests
    assert {r.status for r in asking.caption(requests(range(60, 70)))} == {"error"}  # over all batches
    assert server.requests == sent


def test_the_cost_budget_counts_dollars_and_fills_them_in(server: FaultServer) -> None:
    # 12 prompt tokens at 1000 dollars per million and 4 at 2000: two cents per answer.
    budget = Budget(max_cost_usd=0.4, usd_per_million_in=1000.0, usd_per_million_out=2000.0)
    asking = captioner(server, budget=budget, max_tokens=10, in_flight=5)
    results = asking.caption(requests(range(40)))
    good = [result for result in results if result.status == "ok"]
    assert {result.cost_usd for result in good} == {0.02}
    assert 17 <= len(good) <= 20
    assert server.requests == len(good)
    assert asking.used == Usage(12 * len(good), 4 * len(good))
    refused = [result.error or "" for result in results if result.status == "error"]
    assert all(error.startswith("budget: ") and "budget.max_cost_usd" in error for error in refused)


def test_failed_tries_are_paid_by_what_they_used(server: FaultServer) -> None:
    server.plan = by_word({"1": ["empty"], "2": ["500"], "3": ["cut"], "4": "no_usage"})
    budget = Budget(max_tokens_total=10_000, usd_per_million_in=1e6, usd_per_million_out=1e6)
    found = {}
    for n in range(5):
        asking = captioner(server, budget=budget, max_tokens=50)
        result = asking.caption(requests(range(n, n + 1)))[0]
        assert result.status == "ok"
        found[n] = (result.cost_usd, asking.used.total)
    assert found[0] == (16.0, 16)
    assert found[1] == (28.0, 28)  # the empty answer had read the prompt
    assert found[2] == (16.0, 16)  # an error is not billed
    # What was not told counts as all that it may have been, and as no known cost.
    guess = TokenEstimate().of(requests(range(3, 4))[0]) + 50
    assert found[3] == (16.0, 16 + guess)
    assert found[4] == (None, guess)


def test_estimates_learn_from_answers() -> None:
    estimate = TokenEstimate()
    request = requests(range(1))[0]
    text = replace(request, frames=request.frames[:0], frame_times_s=())
    first, first_of_text = estimate.of(request), estimate.of(text)
    for _ in range(10):
        estimate.learn(request, 3 * first)
    assert 2.5 * first < estimate.of(request) < 3.5 * first
    assert estimate.of(text) == first_of_text  # pictures say nothing about words


@pytest.mark.parametrize("fault", ["costly:5", "no_usage"])
def test_the_first_wave_waits_until_one_answer_has_told_its_tokens(server: FaultServer, fault: str) -> None:
    """A picture that is five times what was guessed: 16 requests at once would be 1,024 tokens."""
    server.plan, server.delay_s = lambda ask: fault, 0.1
    asking = captioner(server, budget=Budget(max_tokens_total=900), max_tokens=5, in_flight=16)
    results = asking.caption(requests(range(40)))
    times = [seen.at_s for seen in server.seen.asks]
    assert times[1] - times[0] >= 0.1
    if fault == "costly:5":
        assert asking.used.total == server.tokens == 64 * server.requests  # 12 x 5 + 4
        assert 900 - 64 - 5 < server.tokens <= 900
        assert sum(result.status == "ok" for result in results) == server.requests
    assert server.peak > 4  # and then they go together
    # What was learnt of pictures is not known of text.
    known = captioner(server, budget=Budget(max_tokens_total=10**6), max_tokens=5)
    known.caption(requests(range(1)))
    began, server.delay_s = server.requests, 0.6
    known.caption([replace(request, frames=request.frames[:0]) for request in requests(range(4))])
    text = [seen.at_s for seen in server.seen.asks[began:]]
    assert text[1] - text[0] >= 0.6
    assert text[3] - text[1] < 0.6  # sent before the other was answered


def test_without_a_budget_nobody_waits_for_the_first(server: FaultServer) -> None:
    server.delay_s = 0.3
    prices = Budget(usd_per_million_in=1.0, usd_per_million_out=1.0)
    captioner(server, budget=prices, in_flight=16).caption(requests(range(16)))
    assert server.peak == 16


def test_workers_share_the_budget_and_the_rates(server: FaultServer) -> None:
    settings = OpenAIConfig(
        base_url=server.url,
        model="tiny",
        max_tokens=5,
        budget=Budget(640, 0.8, usd_per_million_in=1.0, usd_per_million_out=1.0),
        limits=RateLimits(requests_per_minute=6000, tokens_per_minute=6e6),
    )
    config = CaptionerConfig("openai", openai=settings, actors=4)
    workers = [load_captioner(config) for _ in range(4)]
    for place, worker in enumerate(workers):
        assert isinstance(worker, OpenAICaptioner)
        assert worker.config.budget.max_tokens_total == 160
        assert worker.config.budget.max_cost_usd == 0.2
        assert worker.config.limits == RateLimits(1500, 1.5e6)
        assert worker.identity == settings.identity()
        worker.caption(requests(range(40 * place, 40 * place + 40)))
    assert 640 - 4 * 32 < server.tokens <= 640
    assert Budget(2).share(3) == Budget(1)  # never nothing at all
    assert OpenAIConfig(model="m").share(8) == OpenAIConfig(model="m")
