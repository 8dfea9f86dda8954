"""Progress: plain lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io

import pytest

import pipelines.progress
from pipelines.progress import Progress, clock


def test_clock() -> None:
    assert [clock(s) for s in (0, 7.4, 59.6, 750, 3723)] == ["0:00", "0:07", "1:00", "12:30", "1:02:03"]


def test_plain_lines_come_every_few_seconds(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(pipelines.progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with Progress("curate", total=60, unit="sources", stream=stream) as progress:
        for _ in range(12):
            now += 0.5
            progress.advance(1, kept=2, rejected=1)
        progress.show(loss=0.123456)
    assert stream.getvalue().splitlines() == [
        "curate: 10/60 sources, kept 20, rejected 10, 2.0 sources/s, 0:25 left",
        "curate: 12/60 sources, kept 24, rejected 12, loss 0.1235, done in 0:06",
    ]


def test_unknown_total_and_slow_work(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(pipelines.progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with Progress("render", unit="films", stream=stream) as progress:
        now = 10.0
        progress.advance(1)
    assert stream.getvalue().splitlines()[0] == "render: 1 films, 6.0 films/min"


def test_an_interrupted_job_says_where_it_stopped() -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with Progress("shard", total=5, unit="clips", stream=stream) as progress:
            progress.advance(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == "shard: 2/5 clips, stopped in 0:00\n"


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("train [x]", total=4, unit="steps", stream=stream) as progress:
        progress.advance(4, clips=8)
    assert "train [x]" in stream.getvalue()
    assert "4/4 steps, clips 8" in stream.getvalue()
