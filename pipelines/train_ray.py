"""Training under Ray Train, which places the processes on a cluster and starts them again when one dies.

place = train_on_ray(config, log, workers=8, restarts=3, config=RayConfig(address="auto"))

The processes run the same function as under torchrun and meet in the same way. What they write must be on a file system
that all of them see (--out, or --save_to for the checkpoints).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.errors import BadInput
from pipelines.engine import RayConfig, start_ray
from train.config import TrainConfig

Log = Callable[[dict[str, Any]], None]


def train_on_ray(run: TrainConfig, log: Log, *, workers: int, restarts: int, config: RayConfig) -> str:
    """Train with `workers` processes; returns the place of the last checkpoint.

    `log` is called with the rows of metrics.jsonl as they come. Raises BadInput where the cluster has no room, and what
    the training raised once it has failed `restarts` times more.
    """
    if workers < 1 or restarts < 0:
        raise BadInput(
            f"--workers={workers}, --restarts={restarts}: give at least one worker, and no negative number."
        )
    start_ray(config)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    there = ray.cluster_resources()
    use_gpu = run.device != "cpu" and there.get("GPU", 0) >= 1
    kind = "GPU" if use_gpu else "CPU"
    if there.get(kind, 0) < workers:
        raise BadInput(
            f"--workers={workers} need as many {kind}s, and the cluster has {there.get(kind, 0):g}: give fewer, "
            "or a larger cluster (--ray.address)."
        )
    # Workers have another working folder.
    vae = _absolute(run.validation.vae)
    run = replace(
        run,
        out=str(Path(run.out).resolve()),
        dataset=_absolute(run.dataset) or run.dataset,
        save_to=run.save_to and (run.save_to if "://" in run.save_to else str(Path(run.save_to).resolve())),
        init=_absolute(run.init),
        validation=replace(run.validation, vae=vae),
    )
    out = Path(run.out)
    wait_s = 2 * run.guard.stall_s + 600 if run.guard.stall_s else 7 * 86400
    trainer = TorchTrainer(
        _work,
        torch_config=TorchConfig(timeout_s=round(wait_s)),
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="ray", storage_path=str(out), failure_config=FailureConfig(max_failures=restarts)
        ),
    )
    with _Followed(out / "metrics.jsonl", log):
        trainer.fit()
    from train.checkpoint import finished
    from train.store import Store

    store = Store(run.save_to or f"{run.out}/checkpoints")
    return store.uri(finished(store)[-1])


def _absolute(place: str | None) -> str | None:
    """The place for a process in another working folder; URIs and names of models stay."""
    if place is None or "://" in place or place.startswith("hf:"):
        return place
    return str(Path(place).resolve()) if Path(place).exists() or place.startswith(".") else place


def _work(told: dict[str, Any]) -> None:
    """What each process does."""
    from pipelines.train import train_here

    train_here(told["run"], lambda row: None)


class _Followed:
    """Calls `log` with each row that is appended to a file; rows that are there already are left out."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path, self._log, self._step = path, log, self._last(path)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="metrics", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._tell()

    def _follow(self) -> None:
        while not self._ended.wait(1.0):
            self._tell()

    def _tell(self) -> None:
        for row in _rows(self._path):
            if row["step"] > self._step:
                self._step = row["step"]
                self._log(row)

    @staticmethod
    def _last(path: Path) -> int:
        return max((row["step"] for row in _rows(path)), default=0)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1] if line]
