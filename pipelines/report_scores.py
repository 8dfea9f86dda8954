"""The scores of a dataset as the report draws them: binned, kept beside rejected, with the limits applied."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.tables import CLIPS, describe
from pipelines.query import rows_of
from pipelines.report_data import views_of

if TYPE_CHECKING:
    import duckdb

SCORES = (
    "duration_s", "motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area",
    "aesthetic", "clip_text_sim", "nsfw",
)  # fmt: skip
BINS = 36
_LIMIT = re.compile(r"(\w+) \S+ ([<>]) (\S+)")


def histograms(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Per score: bins of kept and of rejected clips, nulls with their reasons, and the limits applied.

    The limits are read from the reasons in decisions/, so the lines drawn are those that rejected clips.
    """
    views = views_of(tables)
    if "clips" not in views:
        return []
    joined = "LEFT JOIN decisions USING (clip_id)" if "decisions" in views else ""
    keep = "coalesce(keep, true)" if joined else "true"
    columns = ", ".join(f"{name}::DOUBLE AS {name}" for name in SCORES if name != "duration_s")
    table = tables.sql(
        f"SELECT {keep} AS keep, end_s - start_s AS duration_s, {columns} FROM clips {joined}"
    ).to_arrow_table()
    kept = table["keep"].to_numpy()
    limits = _limits(tables) if joined else {}
    why = rows_of(
        tables,
        "SELECT e.key AS name, e.value AS why, count(*) AS n "
        "FROM (SELECT unnest(score_errors) AS e FROM clips) GROUP BY ALL ORDER BY n DESC",
    )
    found = []
    for name in SCORES:
        values = table[name].to_numpy()  # float64, NaN where null
        reasons = [f"{row['why']} ({row['n']})" for row in why if row["name"] == name][:3]
        found.append(
            {"name": name, "about": _about(name), "limits": limits.get(name, []), "reasons": reasons}
            | _binned(values, kept, [limit["bound"] for limit in limits.get(name, [])])
        )
    return found


def _about(name: str) -> str:
    return "length of the shot in seconds" if name == "duration_s" else describe(CLIPS)[name]


def _limits(tables: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    reasons = rows_of(tables, "SELECT DISTINCT unnest(reasons) AS reason FROM decisions")
    limits: dict[str, set[tuple[str, float]]] = {}
    for row in reasons:
        if match := _LIMIT.fullmatch(row["reason"] or ""):
            limits.setdefault(match[1], set()).add((match[2], float(match[3])))
    return {
        name: [{"op": op, "bound": bound} for op, bound in sorted(pairs)] for name, pairs in limits.items()
    }


def _binned(values: np.ndarray, kept: np.ndarray, bounds: list[float]) -> dict[str, Any]:
    """Counts per bin; when a few values lie far out, they fall into the last bin and `over` counts them."""
    present = values[np.isfinite(values)]
    facts: dict[str, Any] = {"n": len(present), "nulls": len(values) - len(present)}
    if not len(present):
        return facts | {"edges": [], "kept": [], "rejected": [], "over": 0}
    low, high = float(present.min()), float(present.max())
    most = float(np.quantile(present, 0.99, method="higher"))
    if high - low > 1.5 * (most - low):
        high = most
    low, high = min([low, *bounds]), max([high, *bounds])
    if high <= low:
        high = low + max(abs(low), 1.0) * 0.1
    edges = np.linspace(low, high, BINS + 1)
    shown = np.minimum(values, high)
    is_there = np.isfinite(values)
    return facts | {
        "edges": [low, high],
        "kept": np.histogram(shown[is_there & kept], edges)[0].tolist(),
        "rejected": np.histogram(shown[is_there & ~kept], edges)[0].tolist(),
        "over": int((present > high).sum()),
        "max": float(present.max()),
        "median": float(np.median(present)),
    }


def counts_by(tables: duckdb.DuckDBPyConnection, column: str) -> list[dict[str, Any]]:
    """Clips by a column that names things, such as camera: `{name, kept, rejected}`, most first."""
    views = views_of(tables)
    if "clips" not in views:
        return []
    joined = "LEFT JOIN decisions USING (clip_id)" if "decisions" in views else ""
    keep = "coalesce(keep, true)" if joined else "true"
    return rows_of(
        tables,
        f"SELECT coalesce({column}::VARCHAR, 'not measured') AS name, "
        f"count(*) FILTER ({keep}) AS kept, count(*) FILTER (NOT {keep}) AS rejected "
        f"FROM clips {joined} GROUP BY 1 ORDER BY count(*) DESC, 1",
    )
