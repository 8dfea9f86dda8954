"""Training under Ray Train, which places the processes on a cluster and starts them again when one dies.

place = train_on_ray(config, log, workers=8, restarts=3, config=RayConfig(address="auto"))

The processes run the same function as under torchrun and meet in the same way. What they write must be on a file system
that they and the caller see (--out, or --save_to for the checkpoints): through it the caller learns how far they are
(metrics.jsonl), and asks them to save and end when SIGTERM tells it to (train/stop.py). `ray job stop` sends that,
but kills 3 s later unless RAY_JOB_STOP_WAIT_TIME_S is larger, among the env_vars that the job was submitted with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from curate.errors import BadInput as BadFootage
from model.errors import BadInput
from pipelines.engine import RayConfig, start_ray
from pipelines.places import absolute
from pipelines.train_follow import Followed
from pipelines.train_raw_config import RawRun
from train.config import TrainConfig
from train.stop import sigterm_asks

logger = logging.getLogger(__name__)

Log = Callable[[dict[str, Any]], None]


def train_on_ray(run: TrainConfig, log: Log, *, workers: int, restarts: int, config: RayConfig) -> str:
    """Train with `workers` processes; returns the place of the last checkpoint.

    `log` is called with the rows of metrics.jsonl as they come, and what they note is a warning here. On SIGTERM the
    run saves after the step it is in, and this returns. Raises BadInput where the cluster has no room, and as soon as a
    process does; any other error is raised, as ray.train.TrainingFailedError, once it has come `restarts` times more.
    """
    if workers < 1 or restarts < 0:
        raise BadInput(
            f"--workers={workers}, --restarts={restarts}: give at least one worker, and no negative number."
        )
    if "://" in run.out:
        raise BadInput(
            f"--out {run.out} must be a folder that all workers see; checkpoints go to a store by --save_to."
        )
    start_ray(config)
    import ray
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
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
    run = replace(
        run,
        out=str(Path(run.out).resolve()),
        dataset=absolute(run.dataset),
        save_to=run.save_to and (run.save_to if "://" in run.save_to else str(Path(run.save_to).resolve())),
        init=run.init and absolute(run.init),
        validation=replace(run.validation, vae=run.validation.vae and absolute(run.validation.vae)),
    )
    if isinstance(run, RawRun):
        text = ",".join(absolute(name) for name in run.encode.text.split(","))
        run = replace(run, encode=replace(run.encode, vae=absolute(run.encode.vae), text=text))
    out = Path(run.out)
    trainer = TorchTrainer(
        _work,
        torch_config=TorchConfig(timeout_s=round(run.guard.wait_s)),
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="ray",
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=restarts),
            callbacks=[_ends_at_bad_input()],
        ),
    )

    def warn_and_log(row: dict[str, Any]) -> None:
        if row.get("note"):  # what the workers warn of is seen on their machines only
            logger.warning("%s", row["note"])
        log(row)

    with sigterm_asks(out / "stop"), Followed(out / "metrics.jsonl", warn_and_log):
        try:
            trainer.fit()
        except ControllerError as error:
            if isinstance(error.controller_failure, BadInput | BadFootage):
                raise error.controller_failure from None
            raise
    return last_checkpoint(run)


def last_checkpoint(run: TrainConfig) -> str:
    """The place of the newest finished checkpoint of a run that has ended. Raises BadInput where there is none."""
    from train.checkpoint import finished
    from train.store import Store

    store = Store(run.save_to or f"{run.out}/checkpoints")
    names = finished(store)
    if not names:
        raise BadInput(
            f"the workers are done, and there is no finished checkpoint in {store.place}. If they wrote it on machines "
            "of their own, give --out, or --save_to, on a file system that all of them and this machine see."
        )
    return store.uri(names[-1])


def _ends_at_bad_input() -> Any:
    """For Ray's controller: what a worker raises for a person to mend would be raised by the next attempt as well."""
    from ray.train import UserCallback

    class EndsAtBadInput(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            # Also where one alone raises: the controller tries no more after an error of a callback, and ends the
            # workers that wait for the one.
            for error in worker_exceptions.values():
                if isinstance(error, BadInput | BadFootage):
                    raise error

    return EndsAtBadInput()


def _work(told: dict[str, Any]) -> None:
    """What each process does."""
    from pipelines.train import train_here

    train_here(told["run"], lambda row: None)
