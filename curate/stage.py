"""What a stage is: a class that turns rows into rows, and what it needs to run. No scheduler here.

A stage can be called from a plain test:  `list(run_in_process([{"uri": ...}], [Analyse(config)]))`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage needs.

    Attributes:
        cpus: cores reserved per worker; on Ray, workers that stay must leave one for the tasks of other stages.
        gpus: GPUs reserved per worker; may be a fraction.
        actors: workers that stay and keep their model loaded; None means stateless tasks, as many as fit.
        batch_rows: rows handed over in one call.
        threads: calls at once in one worker, for stages that wait for a server rather than compute; these must
            bear being called from several threads. More than one needs `actors`.
        ahead: batches made before they are asked for, so that the next stage need not wait: by so many threads
            where stages run in one process; on Ray by tasks that run beside the workers of the next stage, as
            far ahead as its object store allows. 0 leaves it to the engine.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    actors: int | None = None
    batch_rows: int = 1
    threads: int = 1
    ahead: int = 0


class Stage(Protocol):
    """One step of a pipeline. `setup` runs once per worker; calling it must not raise for one bad row."""

    resources: Resources
    output: pa.Schema

    def setup(self) -> None: ...

    def __call__(self, rows: list[dict]) -> list[dict]: ...


def run_in_process(rows: Iterable[dict], stages: Sequence[Stage]) -> Iterator[dict]:
    """Stream rows through the stages in this process, batch by batch."""
    for stage in stages:
        stage.setup()
    stream: Iterator[dict] = iter(rows)
    for stage in stages:
        stream = _through(stage, stream)
    return stream


def _through(stage: Stage, rows: Iterator[dict]) -> Iterator[dict]:
    needs = stage.resources
    batches = iter(lambda: list(islice(rows, needs.batch_rows)), [])
    at_once = max(needs.threads, needs.ahead)
    if at_once == 1 and not needs.ahead:
        for batch in batches:
            yield from stage(batch)
        return
    with ThreadPoolExecutor(at_once) as pool:
        waiting: deque[Future[list[dict]]] = deque()
        for batch in batches:  # the stages before this one run here, while the threads wait
            waiting.append(pool.submit(stage, batch))
            # What is there goes on at once, unless new batches must be begun first to stay ahead.
            while len(waiting) > at_once or (not needs.ahead and waiting and waiting[0].done()):
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()
