"""The scores of a dataset as the report draws them: binned by what was decided, with the rules in force."""

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
_UNREAD = "not read: %"  # how curate.text_area begins
_UNWELCOME = {"black_ratio", "static_ratio", "text_area", "overlay_area", "embedding_spread", "nsfw"}
# Where a figure cannot lie outside, the axis does not go further either.
_WITHIN = {"luma": (0.0, 255.0), "embedding_spread": (0.0, 2.0)}
# The usual shapes, and below which width / height each is the nearest: those of the eighth example of `reelmill query`.
_SHAPES = ((9, 16, 0.65), (3, 4, 0.87), (1, 1, 1.15), (4, 3, 1.54), (16, 9, 2.04), (21, 9, None))


def histograms(
    tables: duckdb.DuckDBPyConnection, rules: DecideConfig | None = None, uri: str | None = None
) -> list[dict[str, Any]]:
    """Per score: bins of kept, rejected and undecided clips, nulls with reasons, limits, and counts for a slider.

    The limits are those of `rules`, the rules in force; without them, those that the reasons in decisions/ name.
    `all` counts every clip below and above each of `stops`; `free` only those that no other rule rejects, so that
    what passes, and `by_hand`, would be kept in the end. Two things can still take clips away: copies, which
    `reelmill decide` looks for anew (`seeks_copies`, and `n_copies` it has found), and rules over a score that was
    not read since another rule had rejected the clip: `unread` counts those of the free, by `unread_scores`.
    `undecided`: clips that decisions/ does not name, or all while there is none. `command` changes a bound, if `uri`
    tells the dataset; where there is none, `no_command` may say why.
    """
    views = views_of(tables)
    if "clips" not in views:
        return []
    has_decisions = "decisions" in views
    table = _values(tables, has_decisions)
    n_copies = int(table["is_copy"].to_numpy().sum())
    kept, undecided, by_hand = (table[name].to_numpy() for name in ("kept", "undecided", "by_hand"))
    ruled = limits(rules) if rules else limits_by_reasons(tables) if has_decisions else {}
    why = rows_of(
        tables,
        f"SELECT e.key AS name, regexp_replace(e.value, '(\\w+) \\S+ ([<>]) ', '\\1 \\2 ') AS why, "
        f"e.value LIKE '{_UNREAD}' AS unread, count(*) AS n "
        "FROM (SELECT unnest(score_errors) AS e FROM clips) GROUP BY ALL ORDER BY n DESC, why",
    )
    unread_scores = sorted({row["name"] for row in why if row["unread"]} & {*SCORES})
    found = []
    for name in SCORES:
        values = table[name].to_numpy()  # float64, NaN where null
        rule = ruled.get(name, {"limits": [], "if_null": "keep"})
        bounds = [limit["bound"] for limit in rule["limits"]]
        within = _WITHIN.get(name)
        at = stops(values, bounds, within)
        is_single = name != "duration_s" and CLIPS.field(name).type == pa.float32()
        exact = np.float32 if is_single else np.float64
        free = table[f"free_{name}"].to_numpy() & ~by_hand
        # Rules that may yet reject what this one lets through.
        hidden = [other for other in unread_scores if other != name and ruled.get(other, {}).get("limits")]
        unread = np.zeros(len(free), bool)
        for other in hidden:
            unread |= free & table[f"unread_{other}"].to_numpy()
        found.append(
            {
                "name": name,
                "about": _about(name),
                "reasons": _told([row for row in why if row["name"] == name]),
                "tries": ">" if name in _UNWELCOME else "<",
                "stops": at,
                "all": passing(values, at, exact),
                "free": passing(values[free], at, exact),
                "unread": passing(values[unread], at, exact),
                "unread_scores": hidden,
                "by_hand": int(by_hand.sum()),
                "undecided": int(undecided.sum()),
                "seeks_copies": rules is None
                or rules.copies.near
                or rules.semantic.min_similarity is not None,
                "n_copies": n_copies,
            }
            | (_command(uri, rules, name, has_decisions) if uri else {})
            | rule
            | bars(values, kept, bounds, undecided=undecided, within=within)
        )
    return found


def _told(why: list[dict[str, Any]], most: int = 3) -> list[str]:
    """Reasons for null with their counts, the most frequent first, and how many clips have another one."""
    told = [f"{row['why']} ({row['n']})" for row in why[:most]]
    rest = sum(row["n"] for row in why[most:])
    return [*told, f"other reasons ({rest})"] if rest else told


def _command(uri: str, rules: DecideConfig | None, score: str, has_decisions: bool) -> dict[str, str]:
    if score not in DecideConfig().ranges():
        return {"no_command": "No rule of reelmill decide reads this score."}
    if rules is None and has_decisions:
        return {
            "no_command": "decisions/ does not tell its rules. Run reelmill decide once with those you want."
        }
    return {"command": command(uri, rules or DecideConfig(), score)}


def _values(tables: duckdb.DuckDBPyConnection, has_decisions: bool) -> pa.Table:
    """One row per clip: `kept`, `undecided`, `by_hand` (kept by a person), `is_copy`, the scores, and more per score.

    `free_SCORE`: decisions/ names the clip, and holds no reason against it but of that score. `unread_SCORE`: it is
    null since the clip was rejected before.
    """
    scores = ", ".join(f"{name}::DOUBLE AS {name}" for name in SCORES if name != "duration_s")
    # Rounded as curate.decide rounds it.
    unread = ", ".join(
        f"list_contains([e.key FOR e IN coalesce(score_errors, []) IF e.value LIKE '{_UNREAD}'], '{name}') "
        f"AS unread_{name}"
        for name in SCORES
    )
    columns = f"round(end_s - start_s, 6) AS duration_s, {scores}, {unread}"
    if not has_decisions:
        free = ", ".join(f"false AS free_{name}" for name in SCORES)
        return tables.sql(
            f"SELECT false AS kept, true AS undecided, false AS by_hand, false AS is_copy, {columns}, {free} FROM clips"
        ).to_arrow_table()
    free = ", ".join(f"coalesce(names = [] OR names = ['{name}'], false) AS free_{name}" for name in SCORES)
    return tables.sql(
        f"""
        SELECT coalesce(keep, false) AS kept, keep IS NULL AS undecided,
               coalesce(override LIKE 'keep %', false) AS by_hand,
               coalesce(list_has_any(names, ['copy', 'semantic']), false) AS is_copy, {columns}, {free}
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
    """Clips by a column that names things, such as camera: `{name, kept, rejected, waiting}`, most first.

    `waiting`: not decided yet.
    """
    views = views_of(tables)
    if "clips" not in views:
        return []
    joined = "LEFT JOIN decisions USING (clip_id)" if "decisions" in views else ""
    keep = "keep" if joined else "NULL::BOOLEAN"
    return rows_of(
        tables,
        f"SELECT coalesce(({column})::VARCHAR, 'not measured') AS name, "
        f"count(*) FILTER ({keep}) AS kept, count(*) FILTER (NOT {keep}) AS rejected, "
        f"count(*) FILTER (({keep}) IS NULL) AS waiting "
        f"FROM clips {joined} GROUP BY 1 ORDER BY count(*) DESC, 1",
    )


def aspects(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Clips by the nearest usual shape inside black borders: as counts_by, with `w` and `h` of that shape."""
    shape = "(nullif(coalesce(crop.w, width), 0)::DOUBLE / nullif(coalesce(crop.h, height), 0))"
    cases = " ".join(
        f"WHEN {shape} {'IS NOT NULL' if below is None else f'< {below}'} THEN '{w}:{h}'"
        for w, h, below in _SHAPES
    )
    rows = counts_by(tables, f"CASE {cases} END")
    sides = {f"{w}:{h}": {"w": w, "h": h} for w, h, _ in _SHAPES}
    return [row | sides.get(row["name"], {}) for row in rows]
