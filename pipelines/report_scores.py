"""The scores of a dataset as the report draws them: binned, kept beside rejected, with the rules in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.decide import DecideConfig
from curate.tables import CLIPS, describe
from pipelines.query import rows_of
from pipelines.report_bins import bars, passing, stops
from pipelines.report_data import views_of
from pipelines.report_rules import command, limits, limits_by_reasons

if TYPE_CHECKING:
    import duckdb

SCORES = (
    "duration_s", "motion", "object_motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area",
    "overlay_area", "aesthetic", "clip_text_sim", "embedding_spread", "nsfw",
)  # fmt: skip
# Of these a high figure is unwelcome: a slider for one that has no rule tries a greatest value.
_UNWELCOME = {"black_ratio", "static_ratio", "text_area", "overlay_area", "embedding_spread", "nsfw"}
_RATIOS = ((21, 9), (2, 1), (16, 9), (3, 2), (4, 3), (5, 4), (1, 1), (4, 5), (3, 4), (2, 3), (9, 16))


def histograms(
    tables: duckdb.DuckDBPyConnection, rules: DecideConfig | None = None, uri: str | None = None
) -> list[dict[str, Any]]:
    """Per score: bins of kept and of rejected clips, nulls with their reasons, limits, and counts for a slider.

    The limits are those of `rules`, the rules in force; without them, those that the reasons in decisions/ name.
    `all` counts every clip below and above each of `stops`; `free` only those that no other rule rejects, so that
    what passes, and `by_hand`, would be kept in the end (copies aside: `reelmill decide` looks for them anew).
    `command` changes a bound, if `uri` tells the dataset; where there is none, `no_command` may say why.
    """
    views = views_of(tables)
    if "clips" not in views:
        return []
    has_decisions = "decisions" in views
    table = _values(tables, has_decisions)
    kept, by_hand = table["keep"].to_numpy(), table["by_hand"].to_numpy()
    ruled = limits(rules) if rules else limits_by_reasons(tables) if has_decisions else {}
    why = rows_of(
        tables,
        "SELECT e.key AS name, e.value AS why, count(*) AS n "
        "FROM (SELECT unnest(score_errors) AS e FROM clips) GROUP BY ALL ORDER BY n DESC",
    )
    found = []
    for name in SCORES:
        values = table[name].to_numpy()  # float64, NaN where null
        rule = ruled.get(name, {"limits": [], "if_null": "keep"})
        bounds = [limit["bound"] for limit in rule["limits"]]
        at = stops(values, bounds)
        is_single = name != "duration_s" and CLIPS.field(name).type == pa.float32()
        exact = np.float32 if is_single else np.float64
        free = table[f"free_{name}"].to_numpy() & ~by_hand
        found.append(
            {
                "name": name,
                "about": _about(name),
                "reasons": [f"{row['why']} ({row['n']})" for row in why if row["name"] == name][:3],
                "tries": ">" if name in _UNWELCOME else "<",
                "stops": at,
                "all": passing(values, at, exact),
                "free": passing(values[free], at, exact),
                "by_hand": int(by_hand.sum()),
            }
            | (_command(uri, rules, name, has_decisions) if uri else {})
            | rule
            | bars(values, kept, bounds)
        )
    return found


def _command(uri: str, rules: DecideConfig | None, score: str, has_decisions: bool) -> dict[str, str]:
    if score not in DecideConfig().ranges():
        return {"no_command": "No rule of reelmill decide reads this score."}
    if rules is None and has_decisions:
        return {
            "no_command": "decisions/ does not tell its rules. Run reelmill decide once with those you want."
        }
    return {"command": command(uri, rules or DecideConfig(), score)}


def _values(tables: duckdb.DuckDBPyConnection, has_decisions: bool) -> pa.Table:
    """One row per clip: `keep`, `by_hand` (kept by a person), the scores, and per score `free_SCORE`.

    A clip is free for a score if decisions/ holds no reason against it but of that score.
    """
    scores = ", ".join(f"{name}::DOUBLE AS {name}" for name in SCORES if name != "duration_s")
    # Rounded as curate.decide rounds it.
    columns = f"round(end_s - start_s, 6) AS duration_s, {scores}"
    if not has_decisions:
        free = ", ".join(f"true AS free_{name}" for name in SCORES)
        return tables.sql(
            f"SELECT true AS keep, false AS by_hand, {columns}, {free} FROM clips"
        ).to_arrow_table()
    free = ", ".join(f"coalesce(names = [] OR names = ['{name}'], false) AS free_{name}" for name in SCORES)
    return tables.sql(
        f"""
        SELECT coalesce(keep, true) AS keep, coalesce(override LIKE 'keep %', false) AS by_hand, {columns}, {free}
        FROM clips LEFT JOIN (
            SELECT clip_id, keep, override,
                   CASE WHEN NOT keep AND len(coalesce(reasons, [])) = 0 THEN ['unnamed']
                        ELSE list_distinct([split_part(why, ' ', 1) FOR why IN coalesce(reasons, [])]) END AS names
            FROM decisions
        ) USING (clip_id)
        """
    ).to_arrow_table()


def _about(name: str) -> str:
    return "length of the shot in seconds" if name == "duration_s" else describe(CLIPS)[name]


def counts_by(tables: duckdb.DuckDBPyConnection, column: str) -> list[dict[str, Any]]:
    """Clips by a column that names things, such as camera: `{name, kept, rejected}`, most first."""
    views = views_of(tables)
    if "clips" not in views:
        return []
    joined = "LEFT JOIN decisions USING (clip_id)" if "decisions" in views else ""
    keep = "coalesce(keep, true)" if joined else "true"
    return rows_of(
        tables,
        f"SELECT coalesce(({column})::VARCHAR, 'not measured') AS name, "
        f"count(*) FILTER ({keep}) AS kept, count(*) FILTER (NOT {keep}) AS rejected "
        f"FROM clips {joined} GROUP BY 1 ORDER BY count(*) DESC, 1",
    )


def aspects(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Clips by the shape of their picture inside black borders: as counts_by, with `w` and `h` of a named ratio.

    A shape counts as a ratio if it is within 2 % of it; any else is `other wide` or `other tall`.
    """
    shape = "coalesce(crop.w, width)::DOUBLE / nullif(coalesce(crop.h, height), 0)"
    cases = " ".join(f"WHEN abs(shape / ({w} / {h}.0) - 1) < 0.02 THEN '{w}:{h}'" for w, h in _RATIOS)
    named = f"CASE {cases} WHEN shape >= 1 THEN 'other wide' WHEN shape < 1 THEN 'other tall' END"
    rows = counts_by(tables, named.replace("shape", f"({shape})"))
    sides = {f"{w}:{h}": {"w": w, "h": h} for w, h in _RATIOS}
    return [row | sides.get(row["name"], {}) for row in rows]
