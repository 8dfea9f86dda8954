"""What the stages of a command do, in Prometheus metrics of Ray. The only place that knows their names and labels.

    meters = Meters("curate", "s3://films")          # in a process of a Ray cluster
    meters.note("analyse", 4.2, Counts(1, {("files", "ok", ""): 1}, {"read": 1 << 20}))
    meters.queue("clip", 3)

Ray exports them on each node, every few seconds and when the process ends, with `ray_` before their names. One process
of a job notes them for all its workers (pipelines.metrics_tally): so each thing done counts once, also where Ray did
it again for a worker that died, and nothing is lost with a worker. docs/monitoring.md tells how to look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LABELS = ("command", "dataset", "stage")
#: What is counted; each is a metric of its own.
UNITS = ("files", "clips", "captions")
#: read: from the footage or a shard. decoded: pictures handed on. written: into the dataset.
Direction = Literal["read", "decoded", "written"]
#: (unit, outcome, reason): ("clips", "rejected", "motion"). The reason is a filter's name or a word, never a figure.
Outcome = tuple[str, str, str]


@dataclass(frozen=True)
class Metric:
    """A metric as Ray declares it.

    Attributes:
        kind: its class in ray.util.metrics.
        name: without the `ray_` that Ray puts before it.
        told: what it says.
        labels: its labels, beside those that Ray adds.
    """

    kind: Literal["Counter", "Gauge", "Histogram"]
    name: str
    told: str
    labels: tuple[str, ...] = LABELS

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        parts = ("_bucket", "_sum", "_count") if self.kind == "Histogram" else ("",)
        return tuple(f"ray_{self.name}{part}" for part in parts)


#: Seconds of one call of a stage: a caption takes a tenth, a long film minutes.
BOUNDARIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
OUTCOMES = {
    unit: Metric(
        "Counter",
        f"reelmill_{unit}_total",
        f"{unit} that a stage is done with, by what came of them and why",
        (*LABELS, "outcome", "reason"),
    )
    for unit in UNITS
}
SECONDS = Metric("Histogram", "reelmill_stage_seconds", "seconds that a call of a stage took")
# Ray takes the middle of its bucket for each call, so the sum of the histogram is rough: this one is exact.
BUSY = Metric("Counter", "reelmill_busy_seconds_total", "seconds that calls of a stage took together")
QUEUE = Metric("Gauge", "reelmill_queue", "rows that wait for a stage or are in it")
BYTES = Metric(
    "Counter",
    "reelmill_bytes_total",
    "bytes that a stage read, decoded or wrote",
    (*LABELS, "direction"),
)
# A gauge: the decisions of a later job are not more clips but other ones.
DECIDED = Metric(
    "Gauge",
    "reelmill_decided",
    "clips of the dataset, by what was decided of them and why",
    (*LABELS, "outcome", "reason"),
)
METRICS = (*OUTCOMES.values(), SECONDS, BUSY, QUEUE, BYTES, DECIDED)


@dataclass(frozen=True)
class Counts:
    """What one call of a stage did.

    Attributes:
        done: units of the stage that are done, whatever came of them.
        outcomes: what came of them, and of what is in them (the clips of a file).
        bytes: by direction.
        ended: units that go no further, by outcome: they are done in all stages after it as well.
        seconds: how long it took, where its rows tell that better than a clock; null: as long as the call.
    """

    done: int
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    bytes: Mapping[Direction, int] = field(default_factory=dict)
    ended: Mapping[Outcome, int] = field(default_factory=dict)
    seconds: float | None = None


class Meters:
    """The metrics of one command over one dataset, in a process that Ray knows."""

    def __init__(self, command: str, dataset: str) -> None:
        self._labels = {"command": command, "dataset": dataset}
        self._metrics = {metric.name: _declared(metric) for metric in METRICS}

    def note(self, stage: str, seconds: float | None, counts: Counts) -> None:
        """A call of `stage` took so long and did that; null seconds where it was no call of a stage."""
        labels = self._labels | {"stage": stage}
        if seconds is not None:
            self._metrics[SECONDS.name].observe(seconds, tags=labels)
            self._metrics[BUSY.name].inc(max(seconds, 1e-9), tags=labels)  # Ray refuses to add nothing
        for (unit, outcome, reason), count in counts.outcomes.items():
            if count:  # as above
                told = labels | {"outcome": outcome, "reason": reason}
                self._metrics[OUTCOMES[unit].name].inc(count, tags=told)
        for direction, size in counts.bytes.items():
            if size:
                self._metrics[BYTES.name].inc(size, tags=labels | {"direction": direction})

    def decided(self, stage: str, counts: Counts) -> None:
        """What was decided of all clips of the dataset."""
        for (_, outcome, reason), count in counts.outcomes.items():
            told = self._labels | {"stage": stage, "outcome": outcome, "reason": reason}
            self._metrics[DECIDED.name].set(count, tags=told)

    def queue(self, stage: str, rows: int) -> None:
        """So many rows wait for `stage`, or are in it."""
        self._metrics[QUEUE.name].set(rows, tags=self._labels | {"stage": stage})


def _declared(metric: Metric) -> Any:
    from ray.util import metrics

    options: dict[str, Any] = {"description": metric.told, "tag_keys": metric.labels}
    if metric.kind == "Histogram":
        options["boundaries"] = list(BOUNDARIES)
    return getattr(metrics, metric.kind)(metric.name, **options)
