"""Metrics of a job: each thing done is counted once, and Prometheus reads from Ray what the tables say."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import moving_square, write_video

from curate.dataset import Dataset
from curate.decide import reason_name
from curate.stage import Resources, Stage
from pipelines.curate import main as curate
from pipelines.engine import RayConfig, run_stages
from pipelines.metrics import METRICS, Counts
from pipelines.metrics_tally import Report, State, Tally, is_whole
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
    tally.count(State("decide", "clips", 5), Counts(5, {("clips", "kept", ""): 5}))
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


def test_what_is_shown_begins_with_the_stages_own_unit_and_ends_with_failures() -> None:
    outcomes = Counter(
        {
            ("clips", "failed", "x"): 1,
            ("files", "failed", "transient"): 2,
            ("clips", "found", ""): 9,
            ("files", "failed", "permanent"): 1,
            ("files", "ok", ""): 4,
            ("files", "partial", ""): 0,
        }
    )
    shown = State("analyse", "files", None, outcomes=outcomes).shown()
    assert list(shown.items()) == [("ok", 4), ("failed", 3), ("clips", 9), ("clips failed", 1)]


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
    assert sorted(numbers) == list(range(60))
    assert "the stages are no longer counted" in caplog.text


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films that move, a copy, one that stands still and one that is none: 5 clips, 4 kept."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(3):
        write_video(folder / f"{i}.mp4", moving_square(40, seed=i, width=320, height=192))
    write_video(folder / "still.mp4", np.repeat(moving_square(1, seed=9, width=320, height=192), 40, 0))
    (folder / "copy.mp4").write_bytes((folder / "1.mp4").read_bytes())
    (folder / "bad.mp4").write_text("no video")
    return folder


def exported() -> dict[tuple[str, str, str, str], float]:
    """(metric, dataset, stage, outcome/reason or direction or le) -> its value, as Prometheus reads it from Ray."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found = {}
    for line in urllib.request.urlopen(url, timeout=10).read().decode().splitlines():
        if line.startswith("ray_reelmill"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            has = dict(re.findall(r'(\w+)="(.*?)"', labels))
            rest = "/".join(has[key] for key in ("outcome", "reason", "direction", "le") if has.get(key))
            assert set(has) >= {"command", "dataset", "stage"}
            found[name, has["dataset"], has["stage"], rest] = float(value)
    return found


@pytest.mark.slow
def test_prometheus_reads_the_counts_of_the_tables(
    films: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "dataset")
    assert curate(["--input", str(films), "--dataset", uri, "--clip.model=off"]) == 0
    until = time.monotonic() + 30
    while not (found := {key: value for key, value in exported().items() if key[1] == uri}):
        assert time.monotonic() < until
        time.sleep(0.5)

    def told(metric: str, stage: str) -> dict[str, float]:
        return {key[3]: value for key, value in found.items() if key[0] == metric and key[2] == stage}

    assert told("ray_reelmill_files_total", "analyse") == {"ok": 5, "failed/permanent": 1}
    assert told("ray_reelmill_files_total", "commit") == {"ok": 5, "failed": 1}
    assert told("ray_reelmill_clips_total", "commit") == {"found": 5}  # the exact copy is in no table
    assert told("ray_reelmill_clips_total", "text") == {"read": 4, "rejected/static_ratio": 1}
    size = sum(path.stat().st_size for path in films.iterdir())
    assert told("ray_reelmill_bytes_total", "analyse") == {"read": size}
    for stage in ("analyse", "clip", "text", "commit"):
        assert told("ray_reelmill_stage_seconds_count", stage)[""] == 6
        assert told("ray_reelmill_stage_seconds_bucket", stage)["+Inf"] == 6
        assert 0 < told("ray_reelmill_busy_seconds_total", stage)[""] < 60

    dataset = Dataset(uri)
    assert Counter(dataset.read("sources", ["status"])["status"].to_pylist()) == {"ok": 5, "failed": 1}
    decisions = dataset.read("decisions", ["keep", "reason"]).to_pylist()
    outcomes = Counter(
        "kept" if row["keep"] else f"rejected/{reason_name(row['reason'])}" for row in decisions
    )
    assert told("ray_reelmill_clips_total", "decide") == outcomes == {"kept": 3, "rejected/static_ratio": 1}

    last = [
        line.split(", done in")[0] for line in capsys.readouterr().err.splitlines() if ", done in" in line
    ]
    assert "curate/analyse: 6/6 files, ok 5, failed 1, clips 5" in last
    assert "curate/text: 6/6 files, clips read 4, clips rejected 1" in last
    assert "curate/decide: 4 clips, kept 3, rejected 1" in last


def test_metrics_have_names_that_prometheus_takes() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"reelmill_[a-z_]+", metric.name)
        assert metric.kind != "Counter" or metric.name.endswith("_total")
        assert not {"job", "instance", "le"} & set(metric.labels)  # Prometheus has its own
