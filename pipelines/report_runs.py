"""What the report shows of training: loss curves from metrics.jsonl, and the samples that lie beside them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pipelines.report_budget import cut, size_of
from pipelines.report_pictures import as_uri

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from pipelines.report_budget import Budget

POINTS = 400
SAMPLES = 12
SAMPLE_BYTES = 1_500_000
NAMES = 20  # of the samples left out
_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}


def runs(folder: Dataset, below: str, budget: Budget | None = None) -> list[dict[str, Any]]:
    """Every run under `below` (`""`: the folder itself is the run) that has a metrics.jsonl.

    `budget`: bytes that the samples of all runs may take in the page; None for no bound.
    """
    names = folder.files(below) if below else folder.files("")
    found = []
    for name in names:
        if name.rpartition("/")[2] != "metrics.jsonl":
            continue
        run = name.rpartition("/")[0]
        prefix = "/".join(part for part in (below, run) if part)
        title = run or folder.uri.rstrip("/").rpartition("/")[2]
        found.append(_run(folder, prefix, title, budget))
    return found


def _run(folder: Dataset, prefix: str, name: str, budget: Budget | None) -> dict[str, Any]:
    path = [prefix] if prefix else []
    rows = read_metrics(folder.read_bytes(*path, "metrics.jsonl"))
    # Null where all steps of a row were skipped: their loss was not finite.
    losses = [
        (row["step"], math.nan if row["loss"] is None else row["loss"]) for row in rows if "loss" in row
    ]
    checks = [(row["step"], loss) for row in rows if (loss := _validated(row)) is not None]
    last = {key: value for row in rows for key, value in row.items()}  # the newest of every figure
    return {
        "name": name,
        "steps": last.get("step", 0),
        "points": thin([point for point in losses if math.isfinite(point[1])], POINTS),
        "val_points": thin([point for point in checks if math.isfinite(point[1])], POINTS),
        "not_finite": sum(not math.isfinite(loss) for _, loss in losses),
        "last": {k: v for k, v in last.items() if isinstance(v, int | float) and math.isfinite(v)},
        **samples(folder, "/".join([*path, "samples"]), budget),
    }


def _validated(row: dict[str, Any]) -> float | None:
    """Loss on clips held back: one figure, or the mean of those by noise level."""
    if "val_loss" in row:
        return float(row["val_loss"])
    levels = [loss for loss in (row.get("validation") or {}).values() if loss is not None]
    return sum(levels) / len(levels) if levels else None


def read_metrics(text: bytes) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that have a step; a last line cut short by a kill is left out."""
    rows = []
    for line in text.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def thin(points: list[tuple[int, float]], most: int) -> list[list[float]]:
    """At most `most` points, each the mean of as many neighbours."""
    size = max(1, math.ceil(len(points) / most))
    groups = [points[place : place + size] for place in range(0, len(points), size)]
    return [[group[-1][0], sum(loss for _, loss in group) / len(group)] for group in groups]


def samples(folder: Dataset, below: str, budget: Budget | None = None) -> dict[str, Any]:
    """Pictures and videos as data: URIs with their prompts, pictures first; of those too large or too many some names.

    `samples`: `{name, kind, text, uri}`, text null without a prompt; `n_left_out` of them are not there, and
    `samples_left_out` names the first NAMES.
    """
    shown: list[dict[str, str | None]] = []
    left_out: list[str] = []
    files = folder.files(below)
    prompts = _prompts(folder, below, [name for name in files if name.rpartition("/")[2] == "prompts.json"])
    names = [name for name in files if _kind(name)]
    for name in sorted(names, key=lambda name: (not _kind(name).startswith("image"), name)):
        path = [below, name] if below else [name]
        data = folder.read_bytes(*path) if len(shown) < SAMPLES else b""
        kind = _kind(name)
        sample = {
            "name": name,
            "kind": kind.partition("/")[0],
            "text": prompts.get(name),
            "uri": as_uri(data, kind),
        }
        if not data or len(data) > SAMPLE_BYTES or (budget and not budget.take(size_of(sample))):
            left_out.append(name)
        else:
            shown.append(sample)
    return {"samples": shown, "samples_left_out": left_out[:NAMES], "n_left_out": len(left_out)}


def _prompts(folder: Dataset, below: str, files: list[str]) -> dict[str, str]:
    """What was asked for, by the name of the video, from each prompts.json that `reelmill sample` wrote."""
    found = {}
    for file in files:
        try:
            rows = json.loads(folder.read_bytes(*([below] if below else []), file))
        except ValueError:  # some other file of that name
            continue
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and isinstance(text := row.get("original") or row.get("text"), str):
                found[f"{file.removesuffix('prompts.json')}{row.get('video')}"] = cut(text)
    return found


def _kind(name: str) -> str:
    """Media type of a file by its name; empty for what is not shown."""
    return _KINDS.get("." + name.rpartition(".")[2].lower(), "")
