"""A server that is down, or busy for ever, or that lets us in with nothing: rows fail soon, and say why."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from asked_by_number import captioner, requests, right, said
from fault_server import FaultServer
from test_recaption_command import dataset, run

from curate.dataset import Dataset
from curate.errors import BadInput
from recaption.openai.circuit_breaker import CircuitBreaker, ServerDown
from recaption.openai.config import Breaker, OpenAIConfig
from recaption.openai.server import OpenAICaptioner
from recaption.table import known

__all__ = ["dataset"]  # a fixture


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as found:
        yield found


def test_the_breaker_opens_sends_one_probe_at_a_time_and_closes(server: FaultServer) -> None:
    down = threading.Event()
    down.set()
    server.plan = lambda ask: "500" if down.is_set() else None
    server.delay_s = 0.02
    breaker = Breaker(failures=4, pause_s=0.25)
    asking = captioner(server, in_flight=8, retries=1, breaker=breaker, backoff_s=0.25, backoff_max_s=0.25)
    threading.Timer(1.2, down.clear).start()
    results = asking.caption(requests(range(30)))
    assert said(results) == right(range(30))  # one retry alone would have lost them all
    times = [seen.at_s - server.seen.asks[0].at_s for seen in server.seen.asks]
    while_down = [at for at in times if at < 1.1]
    assert 4 + 1 <= len(while_down) <= 8 + 5  # those sent at first, then a probe every 0.27 s
    probes = [at for at in times if 0.2 < at < 1.1]
    assert all(later - sooner > 0.2 for sooner, later in pairwise(probes))
    assert max(times) > 1.1


def test_a_server_that_comes_back_on_its_port_is_found_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asking = OpenAICaptioner(
        OpenAIConfig(
            base_url=f"http://127.0.0.1:{port}/v1", model="tiny", retries=3, backoff_s=0.01,
            breaker=Breaker(failures=3, pause_s=0.2),
        )
    )  # fmt: skip
    found: dict[str, str | None] = {}
    thread = threading.Thread(target=lambda: found.update(said(asking.caption(requests(range(20))))))
    thread.start()
    time.sleep(0.7)
    with FaultServer(port=port):
        thread.join()
    assert found == right(range(20))


def test_a_server_that_is_down_for_good_ends_in_errors_soon(server: FaultServer) -> None:
    server.plan = lambda ask: "502"
    asking = captioner(
        server, in_flight=4, deadline_s=0.8, breaker=Breaker(failures=3, pause_s=0.2), backoff_max_s=0.4
    )
    began = time.monotonic()
    results = asking.caption(requests(range(400)))
    assert time.monotonic() - began < 8.0  # not 100 times the deadline
    assert {result.status for result in results} == {"error"}
    assert server.requests < 30
    last = results[-1].error or ""
    assert "has answered nothing for" in last
    assert "HTTP 502" in last
    server.plan = lambda ask: None
    time.sleep(0.5)
    assert said(asking.caption(requests(range(5)))) == right(range(5))  # the next probe finds it well


# Busy for ever ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "429:0.3", "503:0.3"])
def test_a_server_that_is_busy_for_good_ends_in_errors_soon(server: FaultServer, fault: str) -> None:
    server.plan = lambda ask: fault
    asking = captioner(
        server, in_flight=4, deadline_s=0.8, retries=99, breaker=Breaker(failures=100, pause_s=0.2),
        backoff_max_s=0.4,
    )  # fmt: skip
    began = time.monotonic()
    results = asking.caption(requests(range(400)))
    assert time.monotonic() - began < 6.0  # not 100 times the deadline
    assert {result.status for result in results} == {"error"}
    last = results[-1].error or ""
    assert "has answered nothing for" in last
    assert f"HTTP {fault[:3]}" in last
    server.plan = lambda ask: None
    time.sleep(0.5)
    assert said(asking.caption(requests(range(5)))) == right(range(5))  # the next probe finds it well


def test_a_server_that_wants_to_be_left_alone_for_longer_than_the_deadline_fails_rows_at_once(
    server: FaultServer,
) -> None:
    server.plan = lambda ask: "429:86400"
    asking = captioner(server, in_flight=4, deadline_s=5.0)
    began = time.monotonic()
    results = asking.caption(requests(range(200)))
    assert time.monotonic() - began < 3.0  # less than a single deadline
    assert server.requests <= 4
    for result in results:
        assert result.status == "error"
        assert "left alone for 86400 s more (Retry-After), which is longer than deadline_s=5" in (
            result.error or ""
        )
        assert "--retry=failed" in (result.error or "")


def test_a_busy_server_that_answers_now_and_then_is_not_down(server: FaultServer) -> None:
    server.plan = lambda ask: "429:0.05" if ask.nth <= 3 else None
    asking = captioner(server, in_flight=2, deadline_s=1.0)
    began = time.monotonic()
    assert said(asking.caption(requests(range(20)))) == right(range(20))
    assert time.monotonic() - began > 1.0  # it was busy for longer than one may be without an answer


def test_time_in_which_nobody_asked_is_not_held_against_the_server() -> None:
    async def story() -> list[str]:
        breaker = CircuitBreaker(99, pause_s=0.05, pause_max_s=0.05, give_up_s=0.2, jitter_s=0.0)
        told = []
        for pause_s in (0.0, 0.3, 0.15, 0.15):  # the second comes after a break of its own
            await asyncio.sleep(pause_s)
            breaker.done(False, alive=True, busy=True, why="HTTP 429")
            try:
                told.append("probe" if await breaker.admit() else "go")
                breaker.done(told[-1] == "probe", alive=True, busy=True, why="HTTP 429")
            except ServerDown:
                told.append("down")
        return told

    assert asyncio.run(story()) == ["go", "go", "go", "down"]


# Not let in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("401", r"Set REELMILL_API_KEY or OPENAI_API_KEY \(no key is set"),
        ("403", "Set REELMILL_API_KEY"),
        ("404", r"--captioner\.openai\.base_url=http://127\.0\.0\.1.*--captioner\.openai\.model=tiny"),
    ],
)
def test_a_wrong_key_or_model_stops_the_run(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, fault: str, remedy: str
) -> None:
    monkeypatch.delenv("REELMILL_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.plan = lambda ask: fault
    asking = captioner(server, in_flight=4)
    with pytest.raises(BadInput, match=f"refused the first 5 requests.*HTTP {fault}.*{remedy}"):
        asking.caption(requests(range(300)))
    assert server.requests <= 5 + 4
    asked = server.requests
    with pytest.raises(BadInput, match="refused"):
        asking.caption(requests(range(300, 310)))
    assert server.requests == asked


def test_the_key_is_not_told_when_it_is_refused(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELMILL_API_KEY", "sekret-9")
    server.plan = lambda ask: "echo"
    with pytest.raises(BadInput, match="not the right one") as refused:
        captioner(server).caption(requests(range(10)))
    assert "sekret" not in str(refused.value)


def test_refusals_after_or_without_five_are_rows(server: FaultServer) -> None:
    server.plan = lambda ask: "403" if ask.place else None
    found = captioner(server, in_flight=1).caption(requests(range(20)))
    assert [result.status for result in found] == ["ok"] + ["error"] * 19
    server.plan = lambda ask: "403"
    assert {result.status for result in captioner(server).caption(requests(range(4)))} == {"error"}


def test_the_command_stops_with_one_line(
    server: FaultServer, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan = lambda ask: "401"
    flags = ("--captioner.backend=openai", f"--captioner.openai.base_url={server.url}")
    assert run(dataset, *flags, "--captioner.openai.model=tiny") == 2
    told = capsys.readouterr().err
    assert "reelmill recaption: error: the server refused the first 5 requests" in told
    assert "Traceback" not in told
    assert set(known(dataset).values()) == {
        "ok"
    }  # the sidecars': nothing is a failure that a retry must find
