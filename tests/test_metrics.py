"""Metrics of a job: each thing that its stages do is counted once, also where Ray did it again."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from curate.stage import Resources, Stage
from pipelines.engine import RayConfig, run_stages
from pipelines.metrics import METRICS, Counts
from pipelines.metrics_tally import Report, State, Tally, is_whole, since
from pipelines.metrics_watch import Watch

NUMBERS = pa.schema([("number", pa.int64())])


def report(stage: int, call: str, rows_in: int = 1, rows_out: int = 1) -> Report:
    return Report(stage, call, rows_in, rows_out, 0.5, Counts(rows_in, {("files", "ok", ""): rows_in}))


def test_a_call_that_is_reported_twice_counts_once() -> None:
    tally = Tally("curate", "films")
    assert tally.open([State("analyse", "files", 3), State("clip", "files", 3)], 3) == 0
    for call in ("a:1", "a:2", "a:1", "b:1"):
        tally.add(report(0, call))
    tally.add(report(1, "a:1"))  # of another stage
    analyse, clip = tally.states()
    assert (analyse.done, analyse.rows_in, analyse.rows_out, analyse.seconds) == (3, 3, 3, 1.5)
    assert (clip.done, clip.shown()) == (1, {"ok": 1})


def test_calls_in_one_process_have_no_name_and_all_count() -> None:
    tally = Tally("curate", "films")
    tally.open([State("analyse", "files", 2)], 2)
    for _ in range(2):
        tally.add(report(0, ""))
    assert tally.states()[0].done == 2


def test_stages_that_come_later_follow_the_first_ones() -> None:
    tally = Tally("shard", "films")
    tally.open([State("cut", "files", 1)], 1)
    tally.add(report(0, ""))
    assert tally.open([State("pack", "shards", 1)], 1) == 1
    tally.decide(State("decide", "clips", 5), Counts(5, {("clips", "kept", ""): 5}))
    assert [(state.stage, state.done) for state in tally.states()] == [("cut", 1), ("pack", 0), ("decide", 5)]


@pytest.mark.parametrize(
    ("calls", "rows", "whole"),
    [
        ([(0, 2, 3), (1, 3, 3)], 3, True),
        ([(0, 2, 3), (1, 2, 2)], 3, False),  # a report of the second stage is missing
        ([(0, 2, 3), (1, 2, 3)], 3, False),  # one of a call that made nothing
        ([(0, 1, 3), (1, 3, 3)], 3, False),  # one of the first
        ([(0, 2, 3), (1, 3, 2)], 3, False),
    ],
)
def test_reports_are_whole_when_rows_add_up(
    calls: list[tuple[int, int, int]], rows: int, whole: bool
) -> None:
    tally = Tally("x", "y")
    tally.open([State("a", "files", 2), State("b", "files", 2)], 2)
    for stage, rows_in, rows_out in calls:
        tally.add(report(stage, "", rows_in, rows_out))
    assert is_whole(tally.states(), 2, rows) is whole


def test_a_round_goes_on_with_the_stages_of_the_one_before() -> None:
    tally = Tally("recaption", "films")
    tally.open([State("request", "captions", 3), State("caption", "captions", 5)], 3)
    tally.add(report(0, "", 3, 3))
    then = tally.states()
    tally.again(0, [2, 5], 2)  # of three answers that were asked for, none came
    tally.add(report(0, "", 2, 2))
    tally.add(report(1, "", 2, 2))
    request, caption = tally.states()
    assert (request.done, request.total, caption.done, caption.total) == (5, 5, 2, 5)
    assert is_whole(since([request, caption], then), 2, 2)
    assert not is_whole([request, caption], 2, 2)


def test_what_ends_in_a_stage_is_done_in_those_after_it() -> None:
    tally = Tally("recaption", "films")
    tally.open([State(name, "captions", 4) for name in ("request", "caption", "commit")], 4)
    failed = {("captions", "error", ""): 1}
    tally.add(Report(0, "a", 4, 3, 0.5, Counts(4, failed, ended=failed)))
    tally.add(Report(0, "a", 4, 3, 0.5, Counts(4, failed, ended=failed)))  # Ray made the call again
    tally.end(1, {("captions", "lost", ""): 2})
    assert [state.done for state in tally.states()] == [4, 1, 3]
    assert [state.shown() for state in tally.states()] == [
        {"error": 1},
        {"error": 1},
        {"lost": 2, "error": 1},
    ]


def test_what_is_shown_begins_with_the_stages_own_unit_and_ends_with_failures() -> None:
    outcomes = Counter(
        {
            ("clips", "failed", "x"): 1,
            ("files", "failed", "transient"): 2,
            ("clips", "found", ""): 9,
            ("files", "exact copy", ""): 5,
            ("files", "failed", "permanent"): 1,
            ("files", "partial", ""): 2,
            ("files", "ok", ""): 4,
            ("files", "gone", ""): 0,
        }
    )
    shown = State("analyse", "files", None, outcomes=outcomes).shown()
    assert list(shown.items()) == [
        *(("ok", 4), ("partial", 2), ("exact copy", 5), ("failed", 3)),
        *(("clips", 9), ("clips failed", 1)),
    ]


@dataclass(frozen=True)
class Config:
    """The least that a watch asks for."""

    dataset: str


def doubles_then_dies(marker: Path) -> list[Stage]:
    """Two rows for each; then a stage whose first worker dies at the number 3.

    The classes are local, for Ray's workers cannot import tests.
    """

    class Doubles:
        resources, output = Resources(cpus=0.5), NUMBERS

        def setup(self) -> None:
            pass

        def __call__(self, rows: list[dict]) -> list[dict]:
            return [row for row in rows for _ in range(2)]

    class Deadly(Doubles):
        def __call__(self, rows: list[dict]) -> list[dict]:
            if any(row["number"] == 3 for row in rows) and not marker.exists():
                marker.touch()
                time.sleep(0.5)  # the reports of the stage before are on their way
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

    return [Doubles(), Deadly()]


@pytest.mark.slow
def test_what_ray_does_again_for_a_dead_worker_counts_once(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = doubles_then_dies(tmp_path / "died")
    items = [{"number": number} for number in range(8)]
    to_do = {"Doubles": 16, "Deadly": 16}
    with Watch("double", Config(str(tmp_path / "dataset")), {}, to_do=to_do) as watch:
        rows = list(run_stages("ray", items, NUMBERS, stages, RayConfig(), watch))
        first, second = watch._states()
    assert (tmp_path / "died").exists()
    assert sorted(row["number"] for row in rows) == sorted([*range(8), *range(8)])
    assert (first.rows_in, first.rows_out, second.rows_in, second.rows_out) == (8, 16, 16, 16)
    told = capsys.readouterr().err
    assert "double/Doubles: 16/16 rows, done in" in told
    assert "double/Deadly: 16/16 rows, done in" in told


class Late(Watch):
    """Reports are underway for a while, as those of Ray's workers are; `lost` of them for ever."""

    lost = 0

    def _sender(self) -> Callable[[Report], None]:
        def send(report: Report) -> None:
            if self.lost:
                self.lost -= 1
            else:
                threading.Timer(0.3, self._tally.add, [report]).start()

        return send


@pytest.mark.parametrize("lost", [0, 1])
def test_the_end_waits_for_reports_that_are_underway(
    lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.metrics_watch.SETTLE_S", 1.0)
    with Late("wait", Config(str(tmp_path)), {}) as watch:
        watch.lost = lost
        items = [{"number": number} for number in range(5)]
        assert len(list(run_stages("local", items, NUMBERS, [waits()], RayConfig(), watch))) == 5
        (state,) = watch._states()
    assert state.done == 5 - lost
    assert ("the counts of the stages are not complete" in caplog.text) is bool(lost)


def waits() -> Stage:
    """A stage that a worker runs in several threads at once."""

    class Waits:
        resources, output = Resources(cpus=0, actors=2, threads=4, batch_rows=1), NUMBERS

        def setup(self) -> None:
            pass

        def __call__(self, rows: list[dict]) -> list[dict]:
            time.sleep(0.01)
            return rows

    return Waits()


@pytest.mark.slow
def test_calls_in_several_threads_of_a_worker_all_count(
    tmp_path: Path, ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"number": number} for number in range(60)]
    with Watch("wait", Config(str(tmp_path)), {}) as watch:
        assert len(list(run_stages("ray", items, NUMBERS, [waits()], RayConfig(), watch))) == 60
        (state,) = watch._states()
    assert (state.done, state.rows_in, state.rows_out) == (60, 60, 60)
    assert "the counts of the stages are not complete" not in caplog.text


@pytest.mark.slow
def test_a_job_outlives_the_actor_that_counts(
    tmp_path: Path, ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    items = [{"number": number} for number in range(60)]
    with Watch("wait", Config(str(tmp_path)), {}) as watch:
        rows = run_stages("ray", items, NUMBERS, [waits()], RayConfig(), watch)
        numbers = [next(rows)["number"]]
        ray.kill(watch._tally)
        numbers += [row["number"] for row in rows]
        more = list(run_stages("ray", items, NUMBERS, [waits()], RayConfig(), watch))
        watch.decided("decide", "clips", Counts(60))
    assert sorted(numbers) == sorted(row["number"] for row in more) == list(range(60))
    assert caplog.text.count("the stages are no longer counted") == 1


def test_metrics_have_names_that_prometheus_takes() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"reelmill_[a-z_]+", metric.name)
        assert metric.kind != "Counter" or metric.name.endswith("_total")
        assert not {"job", "instance", "le"} & set(metric.labels)  # Prometheus has its own
