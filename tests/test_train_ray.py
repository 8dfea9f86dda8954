"""Training under Ray Train: the same numbers as under torchrun, and a worker that dies costs no more than its steps."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from small_latents import random_clips, write_latents

from model.config import SizeConfig
from model.errors import BadInput
from pipelines.engine import RayConfig
from pipelines.train import TrainCommand
from pipelines.train import train as command
from pipelines.train_ray import train_on_ray
from train.config import OptimConfig, PackingConfig, ParallelConfig, TrainConfig, ValidationConfig
from train.loop import train


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
    train(config_for(dataset, tmp_path / "one", accumulate=2, steps=400, save_every=20), lambda row: None)
    killed: list[int] = []

    def kill_one(row: dict) -> None:
        if not killed and row["step"] >= 20:
            workers = [p for p in psutil.process_iter(["name", "cmdline"]) if _is_worker(p)]
            assert workers
            killed.append(row["step"])
            os.kill(workers[0].pid, signal.SIGKILL)

    config = config_for(
        dataset, tmp_path / "two", parallel=ParallelConfig(shard=True), steps=400, save_every=20
    )
    place = train_on_ray(config, kill_one, workers=2, restarts=2, config=RayConfig())
    assert killed
    assert place.endswith("step-00000400")
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert [step for step, _ in ours] == list(range(1, 401))
    assert any(json.loads(line)["resumed_at"] for line in (tmp_path / "two" / "metrics.jsonl").open())
    for (_, a), (_, b) in zip(ours[:60], theirs[:60], strict=True):
        assert a == pytest.approx(b, rel=1e-5)

    told = vars(config_for(dataset, tmp_path / "three", steps=2))
    command(TrainCommand(**told, engine="ray", workers=1))
    assert "step-00000002: loss" in capsys.readouterr().out
    assert [step for step, _ in losses(tmp_path / "three")] == [1, 2]


def _is_worker(process: psutil.Process) -> bool:
    """A Ray worker that trains."""
    told = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
    return "ray::" in told and "Train" in told and "Controller" not in told


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
