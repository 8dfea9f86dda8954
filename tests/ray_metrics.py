"""What Prometheus reads from the Ray of these tests, over HTTP."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping

#: (metric, dataset, command/stage, outcome/reason or direction or le) -> its value.
Exported = Mapping[tuple[str, str, str, str], float]


def exported(dataset: str, *stages: str) -> Exported:
    """All metrics of `dataset`, as soon as there are some of each of `stages` (command/stage)."""
    until = time.monotonic() + 60
    while True:
        found = {key: value for key, value in _exported().items() if key[1] == dataset}
        if {key[2] for key in found} >= set(stages):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.5)


def of(found: Exported, metric: str, stage: str) -> dict[str, float]:
    """The values of a metric of a stage, by what tells them apart."""
    return {key[3]: value for key, value in found.items() if key[0] == metric and key[2] == stage}


def _exported() -> Exported:
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found = {}
    for line in urllib.request.urlopen(url, timeout=10).read().decode().splitlines():
        if line.startswith("ray_reelmill"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            has = dict(re.findall(r'(\w+)="(.*?)"', labels))
            rest = "/".join(has[key] for key in ("outcome", "reason", "direction", "le") if has.get(key))
            found[name, has["dataset"], f"{has['command']}/{has['stage']}", rest] = float(value)
    return found
