"""Runs a list of stages: in this process, or as one streaming Ray Data pipeline. The stages know neither.

    for row in run_stages("ray", items, UNIT_INPUT, [AnalyseSources(...), ScoreWithClip(...)], RayConfig()):
        ...                                   # small rows of the last stage, as they are finished

Stages without `actors` become tasks (as many as the cluster has cores for); stages with `actors` become a
pool of workers that keep their model loaded. Only the rows of the last stage come back to the driver.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from curate.errors import BadInput
from curate.stage import Stage, run_in_process
from model.errors import BadInput as ModelBadInput

if TYPE_CHECKING:
    from pipelines.metrics_watch import Watch

Engine = Literal["ray", "local"]

#: So often a worker that died begins anew. Ray's own answer is for ever, also where it dies as it begins.
MOST_RESTARTS = 100


@dataclass(frozen=True)
class RayConfig:
    """How to reach or start Ray.

    Attributes:
        address: a running cluster (`auto`, or host:port); null joins the one of this job, else starts one here.
        num_cpus: cores of a cluster started here; null takes all.
        object_store_gib: shared memory of a cluster started here.
        metrics_port: where a cluster started here serves its metrics to Prometheus; null takes any that is free.
    """

    address: str | None = None
    num_cpus: int | None = None
    object_store_gib: float = 1.0
    metrics_port: int | None = None


def run_stages(
    engine: Engine,
    items: list[dict],
    input_schema: pa.Schema,
    stages: Sequence[Stage],
    ray_config: RayConfig,
    watch: Watch | None = None,
) -> Iterator[dict]:
    """Stream `items` through `stages`; yields the rows of the last one in the order they finish.

    `watch` tells how far each stage is. Raises BadInput where the cluster has no room for the workers and a task beside
    them: they would wait for ever.
    """
    if not items:
        return iter(())
    if engine == "ray":
        return _run_on_ray(items, input_schema, stages, ray_config, watch)
    return run_in_process(items, stages) if watch is None else _run_watched(items, stages, watch)


def _run_watched(items: list[dict], stages: Sequence[Stage], watch: Watch) -> Iterator[dict]:
    with watch.over(stages, len(items), ray=False) as (watched, seen):
        yield from seen(run_in_process(items, watched))


# What these say of themselves would bury our own progress lines.
_CHATTY = (
    "ray.data._internal.progress",
    "ray.data._internal.execution.streaming_executor",
    "ray.data._internal.execution.streaming_executor_state",  # the traceback of an error that is raised anyway
    "ray.data.exceptions",
    "ray._private.authentication.authentication_token_setup",
)


def start_ray(config: RayConfig) -> None:
    """Join or start a cluster, once per process. Raises BadInput when the given one cannot be reached."""
    import ray

    if ray.is_initialized():
        return
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    joins = bool(config.address or os.environ.get("RAY_ADDRESS"))
    if not joins and config.metrics_port:
        _check_port(config.metrics_port)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if joins:
            ray.init(address=config.address, **quiet)
            return
        ray.init(
            num_cpus=config.num_cpus,
            object_store_memory=int(config.object_store_gib * (1 << 30)),
            include_dashboard=False,
            _metrics_export_port=config.metrics_port,
            **quiet,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"Ray could not be reached or started ({error}). Check --ray.address, or run without a cluster: "
            "--engine=local."
        ) from error


def _check_port(port: int) -> None:
    """Raises BadInput where Ray would try for half a minute, and then not say what was amiss."""
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"Ray cannot serve its metrics at port {port} ({error}). Choose a free one, or leave out "
            "--ray.metrics_port."
        ) from error


def _run_on_ray(
    items: list[dict],
    input_schema: pa.Schema,
    stages: Sequence[Stage],
    config: RayConfig,
    watch: Watch | None = None,
) -> Iterator[dict]:
    import ray

    start_ray(config)
    check_room(stages, ray.cluster_resources())
    if watch is None:
        yield from _stream(items, input_schema, stages)
        return
    with watch.over(stages, len(items), ray=True) as (watched, seen):
        yield from seen(_stream(items, input_schema, watched))


def _stream(items: list[dict], input_schema: pa.Schema, stages: Sequence[Stage]) -> Iterator[dict]:
    import ray

    data = dataset_of(items, input_schema)
    for stage in stages:
        data = with_stage(data, stage)
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from batch.to_pylist()
    except ray.exceptions.ActorDiedError as error:
        raise BadInput(
            f"a worker died more than {MOST_RESTARTS} times ({str(error).splitlines()[0]}). Most often the machine is "
            "out of memory: ask for fewer workers or smaller pictures, and run again; what is done stays done."
        ) from error


def check_room(stages: Sequence[Stage], there: Mapping[str, float]) -> None:
    """Raises BadInput unless all workers that stay fit a cluster of these resources, with room for one task."""
    pools = [
        (type(stage).__name__, stage.resources) for stage in stages if stage.resources.actors is not None
    ]
    told = ", ".join(f"{needs.actors} x {name}" for name, needs in pools)
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    # A GPU is shared by so many workers as fit on it whole.
    taken_gpus = sum(
        math.ceil((needs.actors or 0) / (1 / needs.gpus // 1))
        if needs.gpus <= 1
        else (needs.actors or 0) * needs.gpus
        for _, needs in pools
        if needs.gpus
    )
    if taken_gpus > gpus:
        raise BadInput(
            f"workers that stay ({told}) need {taken_gpus:g} GPUs, and Ray knows of {gpus:g}. Ask for fewer, or run "
            "without a GPU."
        )
    taken = sum((needs.actors or 0) * needs.cpus for _, needs in pools)
    task = max((stage.resources.cpus for stage in stages if stage.resources.actors is None), default=0.0)
    if taken + task > cpus:
        raise BadInput(
            f"workers that stay ({told}) take {taken:g} of the {cpus:g} cores that Ray knows of, and {task:g} must be "
            "left for the other stages. Ask for fewer workers, let Ray count on more cores (--ray.num_cpus), or run "
            "in this process (--engine=local)."
        )


def dataset_of(items: list[dict], schema: pa.Schema) -> Any:
    """`items` as a Ray Dataset; Ray must be there already."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # bad input found by a worker is one message here as well

    # Small blocks keep all workers busy to the end; large inputs get larger ones to spare the scheduler.
    rows_per_block = max(1, len(items) // 1000)
    table = pa.Table.from_pylist(items, schema=schema)
    return ray.data.from_arrow([table.slice(i, rows_per_block) for i in range(0, len(table), rows_per_block)])


def with_stage(data: Any, stage: Stage) -> Any:
    """A Ray Dataset that goes through `stage`: as tasks, or in a pool of workers if it asks for one."""
    import ray
    from ray.util.annotations import RayDeprecationWarning

    needs = stage.resources
    options: dict[str, Any] = {
        "batch_size": needs.batch_rows,
        "batch_format": "pyarrow",
        "num_cpus": needs.cpus,
        "zero_copy_batch": True,
    }
    if needs.gpus:
        options["num_gpus"] = needs.gpus
    if needs.actors is None and needs.ahead:
        # Else Ray makes one stage of these tasks and the next, whose workers would do both in turn. It does not
        # where their options differ: this one only tasks have, and it is their default.
        options["max_calls"] = 0
    if needs.actors is None:
        return data.map_batches(_Task(stage), **options)
    pool = ray.data.ActorPoolStrategy(
        size=needs.actors,
        max_concurrent_calls_per_actor=needs.threads,
        enable_true_multi_threading=needs.threads > 1,
    )
    with warnings.catch_warnings():  # Ray has no other way yet to say how often a worker may begin anew
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return data.map_batches(_actor(stage), compute=pool, max_restarts=MOST_RESTARTS, **options)


def _apply(stage: Stage, batch: pa.Table) -> pa.Table:
    return pa.Table.from_pylist(stage(batch.to_pylist()), schema=stage.output)


def _actor(stage: Stage) -> type:
    """A class for workers that stay. The stage travels with it: as an argument it could be lost to a restart."""

    class Actor:
        def __init__(self) -> None:
            self._amiss: ValueError | None = None
            try:
                stage.setup()
            except (BadInput, ModelBadInput) as error:  # only the error of a call comes back as it is
                self._amiss = error

        def __call__(self, batch: pa.Table) -> pa.Table:
            if self._amiss is not None:
                raise self._amiss
            return _apply(stage, batch)

    return Actor


# Ray runs many tasks in one worker process after another: set a stage up once per process, not per task.
_ready: dict[str, Stage] = {}


class _Task:
    """A stage as stateless tasks."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._key = uuid.uuid4().hex
        self.__name__ = getattr(stage, "__name__", type(stage).__name__)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._key not in _ready:
            self._stage.setup()
            _ready[self._key] = self._stage
        return _apply(_ready[self._key], batch)
