"""The Grafana dashboard in docs/grafana asks only for metrics and labels that exist, and can be imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.metrics import METRICS

FILE = Path(__file__).resolve().parents[1] / "docs" / "grafana" / "reelmill.json"
# What Ray and Prometheus add to the labels of a metric.
ADDED = {"SessionName", "NodeAddress", "WorkerId", "Component", "Version"}
LABELS = {name: {*metric.labels, *ADDED} for metric in METRICS for name in metric.exported}
for name in [name for name in LABELS if name.endswith("_bucket")]:
    LABELS[name].add("le")
SELECTOR = re.compile(r"(ray_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def amiss(expr: str) -> list[str]:
    """Metrics and labels of a PromQL expression that do not exist."""
    found = []
    known: set[str] = set.intersection(*LABELS.values()) if not SELECTOR.search(expr) else set()
    for name, matchers in SELECTOR.findall(expr):
        if name not in LABELS:
            found.append(name)
            continue
        known |= LABELS[name]
        used = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers)
        found += [f"{name}{{{label}}}" for label in used if label not in LABELS[name]]
    for labels in GROUPED.findall(expr):
        found += [label for label in re.split(r",\s*", labels) if label not in known]
    return found


def test_what_does_not_exist_is_found() -> None:
    assert amiss('sum by (stage) (ray_reelmill_queue{dataset=~"$dataset"})') == []
    assert amiss("sum by (stag) (ray_reelmill_queue)") == ["stag"]
    assert amiss('sum(ray_reelmill_queue{outcome="kept"})') == ["ray_reelmill_queue{outcome}"]
    assert amiss("ray_reelmill_clip_total") == ["ray_reelmill_clip_total"]
    assert amiss("sum by (le) (ray_reelmill_stage_seconds_sum)") == ["le"]
    assert amiss("sum by (le) (ray_reelmill_stage_seconds_bucket)") == []


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend)."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def test_every_expression_asks_for_what_is_exported(dashboard: dict[str, Any]) -> None:
    asked = list(expressions(dashboard))
    assert [(panel, found) for panel, expr, _ in asked if (found := amiss(expr))] == []
    used = {name for _, expr, _ in asked for name, _ in SELECTOR.findall(expr)}
    assert {metric.name for metric in METRICS if not used & set(metric.exported)} == set()


def test_every_legend_shows_labels_that_are_left(dashboard: dict[str, Any]) -> None:
    for panel, expr, legend in expressions(dashboard):
        grouped = {label.strip() for labels in GROUPED.findall(expr) for label in labels.split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == grouped - {"le"}, panel


def test_every_expression_heeds_the_variables(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["command", "dataset"]
    for panel, expr, _ in expressions(dashboard):
        for _, matchers in SELECTOR.findall(expr):
            assert 'command=~"$command"' in matchers, panel
            assert 'dataset=~"$dataset"' in matchers, panel
    for variable in variables.values():
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert match is not None
        assert match[2] == variable["name"]
        assert amiss(match[1]) == []
        assert variable["query"]["query"] == variable["definition"]


def test_grafana_can_import_it(dashboard: dict[str, Any]) -> None:
    (source,) = dashboard["__inputs"]
    assert (source["name"], source["type"], source["pluginId"]) == (
        "DS_PROMETHEUS",
        "datasource",
        "prometheus",
    )
    assert dashboard["id"] is None  # one that Grafana gave elsewhere would be taken here
    assert dashboard["uid"] and dashboard["title"] == "Reelmill"  # noqa: PT018
    assert dashboard["schemaVersion"] >= 39
    required = {(one["type"], one["id"]) for one in dashboard["__requires"]}
    assert {("grafana", "grafana"), ("datasource", "prometheus")} <= required
    assert {panel["type"] for panel in dashboard["panels"]} == {
        id for kind, id in required if kind == "panel"
    }
    datasource = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    places = [*dashboard["panels"], *dashboard["templating"]["list"]]
    places += [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(place["datasource"] == datasource for place in places)


def test_panels_have_names_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
