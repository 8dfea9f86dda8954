"""Training under Ray Train: the same numbers as under torchrun, and a worker that dies costs no more than its steps."""

import json
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from small_latents import random_clips, write_latents

from model.config import SizeConfig
from model.errors import BadInput
from pipelines.engine import RayConfig
from pipelines.train import TrainCommand
from pipelines.train import train as command
from pipelines.train_follow import Followed
from pipelines.train_raw_config import RawRun
from pipelines.train_ray import last_checkpoint, train_on_ray
from train.checkpoint import finished
from train.config import (
    FeedConfig,
    GuardConfig,
    OptimConfig,
    PackingConfig,
    ParallelConfig,
    TrainConfig,
    ValidationConfig,
)
from train.data import LatentDataset
from train.loop import train
from train.metrics import Metrics
from train.store import Store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("data"), random_clips(40, ((3, 4, 4), (1, 4, 4))))


def config_for(dataset: Path, out: Path, **changes: object) -> TrainConfig:
    config = TrainConfig(
        dataset=str(dataset), out=str(out), steps=8, save_every=2, log_every=1, device="cpu",
        model=SizeConfig(width=16, depth=1, heads=1), packing=PackingConfig(budget=60),
        optim=OptimConfig(lr=1e-3, warmup=0), validation=ValidationConfig(every=0),
    )  # fmt: skip
    return replace(config, **changes)


def losses(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


@pytest.mark.slow
def test_two_workers_train_as_one_process_and_one_may_die(
    dataset: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config_for(dataset, tmp_path / "one", accumulate=2, steps=80, save_every=10), lambda row: None)

    @dataclass(frozen=True)
    class OneDies(RawRun):
        def data(self) -> Any:
            if os.environ["RANK"] == "0" and not self.killed.exists():
                threading.Thread(target=self.die_once_there_is_a_checkpoint, daemon=True).start()
            return LatentDataset(self.dataset)

        @property
        def killed(self) -> Path:
            return Path(self.out).parent / "killed"

        def die_once_there_is_a_checkpoint(self) -> None:
            while not finished(Store(f"{self.out}/checkpoints")):
                time.sleep(0.002)
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    parallel = ParallelConfig(shard=True)
    config = OneDies(
        **vars(config_for(dataset, tmp_path / "two", parallel=parallel, steps=80, save_every=10))
    )
    place = train_on_ray(config, lambda row: None, workers=2, restarts=2, config=RayConfig())
    assert config.killed.exists()
    assert place.endswith("step-00000080")
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert [step for step, _ in ours] == list(range(1, 81))
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").open()]
    (resumed_at,) = {row["resumed_at"] for row in rows} - {0}
    assert [row["resumed_at"] for row in rows] == [0] * resumed_at + [resumed_at] * (80 - resumed_at)
    for step, ((_, a), (_, b)) in enumerate(zip(ours, theirs, strict=True)):
        assert a == pytest.approx(b, rel=1e-5 if step < 60 else 1e-2)  # the last digits drift apart
    more: list[dict] = []  # the same command, for longer
    train_on_ray(replace(config, steps=82), more.append, workers=2, restarts=0, config=RayConfig())
    assert [(row["step"], row["resumed_at"]) for row in more] == [(81, 80), (82, 80)]

    told = vars(config_for(dataset, tmp_path / "three", steps=2))
    command(TrainCommand(**told, engine="ray", workers=1))
    assert "step-00000002: loss" in capsys.readouterr().out
    assert [step for step, _ in losses(tmp_path / "three")] == [1, 2]


def test_more_workers_than_the_cluster_has_room_for_are_refused(
    dataset: Path, tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(BadInput, match="--workers=9 need as many CPUs, and the cluster has 2"):
        train_on_ray(
            config_for(dataset, tmp_path), lambda row: None, workers=9, restarts=0, config=RayConfig()
        )
    with pytest.raises(BadInput, match="give at least one worker"):
        train_on_ray(
            config_for(dataset, tmp_path), lambda row: None, workers=0, restarts=0, config=RayConfig()
        )
    with pytest.raises(BadInput, match="--out s3://films/run must be a folder that all workers see"):
        train_on_ray(config_for(dataset, "s3://films/run"), print, workers=1, restarts=0, config=RayConfig())


@pytest.mark.slow
def test_bad_input_ends_the_run_without_another_attempt(
    dataset: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """All ranks find that the run diverged, and the words are those of a run in one process."""
    config = config_for(
        dataset, tmp_path / "ray", optim=OptimConfig(lr=1e30, warmup=0), guard=GuardConfig(skips=3),
        steps=50, save_every=100,
    )  # fmt: skip
    with pytest.raises(BadInput, match="the run diverged") as found:
        train_on_ray(config, lambda row: None, workers=2, restarts=2, config=RayConfig())
    with pytest.raises(BadInput) as ours:
        train(replace(config, out=str(tmp_path / "one"), accumulate=2), lambda row: None)
    assert str(found.value) == str(ours.value)
    events = [json.loads(line) for line in (tmp_path / "ray" / "events.jsonl").open()]
    assert [event["event"] for event in events] == ["skipped"] * 3


@pytest.mark.slow
def test_bad_input_of_one_rank_ends_those_that_wait_for_it(
    dataset: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """Rank 0 can read the data, begins, and waits for the other in an exchange."""

    @dataclass(frozen=True)
    class UnreadableOnOneMachine(RawRun):
        def data(self) -> Any:
            rank = os.environ["RANK"]
            with open(Path(self.out).parent / f"attempts-{rank}", "a") as file:
                file.write("began\n")
            if rank == "1":
                while not (Path(self.out).parent / "attempts-0").exists():
                    time.sleep(0.1)
                time.sleep(1)
                raise BadInput("this machine cannot read the data: mend it.")
            return LatentDataset(self.dataset)

    run = UnreadableOnOneMachine(**vars(config_for(dataset, tmp_path / "run")))
    with pytest.raises(BadInput) as found:
        train_on_ray(run, lambda row: None, workers=2, restarts=2, config=RayConfig())
    assert str(found.value) == "this machine cannot read the data: mend it."
    assert [(tmp_path / f"attempts-{rank}").read_text() for rank in (0, 1)] == ["began\n", "began\n"]


@pytest.mark.slow
def test_sigterm_saves_and_ends(dataset: Path, tmp_path: Path, ray_cluster: None) -> None:
    told: list[int] = []

    def ask(row: dict) -> None:
        if not told:
            os.kill(os.getpid(), signal.SIGTERM)
        told.append(row["step"])

    before = signal.getsignal(signal.SIGTERM)
    run = tmp_path / "run"
    run.mkdir()
    (run / "stop").touch()  # of a command that was killed: it must not end this one before its time
    config = config_for(dataset, run, steps=100_000, save_every=100_000)
    place = train_on_ray(config, ask, workers=2, restarts=0, config=RayConfig())
    assert told == list(range(1, len(told) + 1))
    assert place == f"{run}/checkpoints/step-{told[-1]:08d}"
    assert 1 < told[-1] < 100_000
    assert not (run / "stop").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_what_workers_warn_of_is_told_here(
    tmp_path: Path, ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = write_latents(tmp_path / "data", random_clips(40, ((3, 4, 4), (1, 4, 4))))
    shard = min((dataset / "latents").rglob("*.tar"))  # half of the clips
    shard.write_bytes(bytes(shard.stat().st_size))
    config = config_for(dataset, tmp_path / "run", steps=2, feed=FeedConfig(tries=1, corrupt_share=1.0))
    with caplog.at_level(logging.WARNING):
        train_on_ray(config, lambda row: None, workers=1, restarts=0, config=RayConfig())
    notes = [json.loads(line)["note"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert "could not be read and are left out" in notes[0]
    said = [r.getMessage() for r in caplog.records if r.name == "pipelines.train_ray"]
    assert said == notes


def test_a_run_without_a_checkpoint_is_told(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"there is no finished checkpoint in {tmp_path}/checkpoints. If they"):
        last_checkpoint(config_for(dataset, tmp_path))


def row(step: int, made: int = 0) -> dict[str, int]:
    """`made` tells apart those of the same step."""
    return {"step": step, "made": made}


def test_rows_are_told_once_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    followed = Followed(path, rows.append)
    followed.tell()  # not there yet
    metrics = Metrics(path, 0)
    followed.tell()
    for step in (1, 2, 3):
        metrics.write(row(step))
    followed.tell()
    followed.tell()
    assert rows == [row(1), row(2), row(3)]
    later: list[dict[str, Any]] = []
    second = Followed(path, later.append)  # begins with what is there
    with path.open("ab") as file:
        file.write(b'{"step": 4, "ma')
        file.flush()
        followed.tell()
        assert len(rows) == 3
        file.write('de": 0, "of": "ä"}\n'.encode())
    followed.tell()
    second.tell()
    assert rows[3:] == later == [{**row(4), "of": "ä"}]


def test_only_what_was_appended_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.train_follow.TAIL_BYTES", 40)
    path = tmp_path / "metrics.jsonl"
    metrics, rows = Metrics(path, 0), list[dict[str, Any]]()
    for step in range(1, 11):
        metrics.write(row(step))
    followed = Followed(path, rows.append)
    with path.open("r+b") as file:
        file.write(b"what is here would be no row")
    metrics.write(row(11))
    followed.tell()
    assert rows == [row(11)]


@pytest.mark.parametrize("again", [3, 2, 1])
def test_steps_made_again_are_told_again(tmp_path: Path, again: int) -> None:
    """Three steps, back to the first: the file is then shorter, as long, or longer, when it is looked at."""
    path, rows = tmp_path / "metrics.jsonl", list[dict[str, Any]]()
    metrics, followed = Metrics(path, 0), Followed(path, rows.append)
    for step in (1, 2, 3):
        metrics.write(row(step))
    followed.tell()
    metrics.forget(1)
    made = [row(step, made=1) for step in range(2, 2 + again)]
    for one in made:
        metrics.write(one)
    followed.tell()
    metrics.write(row(9))
    followed.tell()
    assert rows == [row(1), row(2), row(3), *made, row(9)]


def test_rows_that_stay_are_not_told_again(tmp_path: Path) -> None:
    """A run that is started again rewrites its file: without rows to drop, with the last dropped, with all dropped."""
    path, rows = tmp_path / "metrics.jsonl", list[dict[str, Any]]()
    metrics, followed = Metrics(path, 0), Followed(path, rows.append)
    for step in (1, 2):
        metrics.write(row(step))
    followed.tell()
    metrics = Metrics(path, 2)
    followed.tell()
    metrics = Metrics(path, 1)
    followed.tell()
    metrics.write(row(2))  # the same to the byte, and made again
    followed.tell()
    assert rows == [row(1), row(2), row(2)]
    metrics = Metrics(path, 0)
    followed.tell()
    metrics.write(row(1))
    followed.tell()
    assert rows == [row(1), row(2), row(2), row(1)]
