"""What a stage is: a class that turns rows into rows, and what it needs to run. No scheduler here.

A stage can be called from a plain test:  `list(run_in_process([{"uri": ...}], [Analyse(config)]))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage needs.

    Attributes:
        cpus: cores reserved per worker.
        gpus: GPUs reserved per worker; may be a fraction.
        actors: workers that stay and keep their model loaded; None means stateless tasks, as many as fit.
        batch_rows: rows handed over in one call.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    actors: int | None = None
    batch_rows: int = 1


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
    while batch := list(islice(rows, stage.resources.batch_rows)):
        yield from stage(batch)
