"""What the demo prints last: the funnel, what was made, how the loss fell, and where to look."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.demo.__main__ import DemoConfig
    from pipelines.demo.steps import Places

_BARS = "▁▂▃▄▅▆▇█"


def summary(config: DemoConfig, places: Places, seconds: dict[str, float]) -> str:
    """The summary as lines of text; every figure is read from what lies on disk."""
    from curate.dataset import Dataset
    from curate.funnel import count_funnel

    dataset = Dataset(places.dataset)
    funnel = count_funnel(dataset)
    lines = ["", "=" * 78, "What the demo made", "", *funnel.text().splitlines()]
    for uri, error in funnel.failures:
        lines.append(f"       {Path(uri).name}: {error}")
    if dataset.has("captions"):
        kinds = Counter(dataset.read("captions", ["kind"])["kind"].to_pylist())
        lines.append("words  " + ", ".join(f"{n} {kind} captions" for kind, n in sorted(kinds.items())))
    if dataset.has("shards"):
        shards = dataset.read("shards", ["shard"])["shard"].drop_null()
        lines.append(f"shards {len(shards)} clips in {len(shards.unique())} tars: {places.dataset}/shards")
    losses = read_losses(places.run / "metrics.jsonl")
    if losses:
        lines.append(
            f"loss   {losses[0]:.3f} {sparkline(losses)} {mean_of_last(losses):.3f}  ({config.steps} steps)"
        )
    videos = sorted(places.samples.rglob("*.mp4"))
    lines.append(f"videos {len(videos)} sampled: {places.samples}")
    lines.append(f"report {places.report}   (open it in a browser)")
    times = ", ".join(f"{name} {_minutes(s)}" for name, s in seconds.items())
    lines += [f"time   {_minutes(sum(seconds.values()))}: {times}", "=" * 78]
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def read_losses(path: Path) -> list[float]:
    """The `loss` column of a metrics.jsonl, in order; empty if there is none."""
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text().splitlines() if line)
    return [row["loss"] for row in rows if row.get("loss") is not None]


def mean_of_last(values: list[float]) -> float:
    """Mean of the last tenth: single steps are noisy."""
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last)


def sparkline(values: list[float], width: int = 32) -> str:
    """The course of a series in `width` characters, each the mean of its part."""
    edges = [i * len(values) // width for i in range(width + 1)]
    parts = [values[a:b] for a, b in pairwise(edges) if b > a]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
