"""What the report shows, gathered from the tables as plain values that JSON can hold. No picture, no HTML.

Counts are taken so that they must add up: what does not is shown as a difference, never hidden.
"""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from curate.decide import reason_name
from pipelines.query import rows_of

if TYPE_CHECKING:
    import duckdb


def views_of(tables: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of the tables that exist."""
    found = rows_of(tables, "SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary")
    return {row["view_name"] for row in found}


def funnel(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The stages of the road: `{name, total, parts: [{name, n, outcome}]}`; parts add up to total.

    `outcome` is good (goes on), rejected, failed or waiting (the next command has not seen it).
    """
    views = views_of(tables)
    stages = [_stage("files in", _sources(tables))]
    if "clips" not in views:
        return stages
    n_clips = _count(tables, "FROM clips")
    reasons = Counter[str]()
    kept = undecided = 0
    if "decisions" in views:
        decided = rows_of(tables, "SELECT keep, reason FROM clips JOIN decisions USING (clip_id)")
        kept = sum(row["keep"] for row in decided)
        reasons.update(reason_name(row["reason"] or "unnamed") for row in decided if not row["keep"])
        undecided = n_clips - len(decided)
    else:
        undecided = n_clips
    parts = [("kept", kept, "good")]
    parts += [(f"{_plain(name)}", n, "rejected") for name, n in reasons.most_common()]
    stages.append(_stage("shots found", [*parts, ("not decided yet", undecided, "waiting")], n_clips))
    kept_ids = "SELECT clip_id FROM decisions WHERE keep"
    if "decisions" not in views:
        return stages
    for view, name, done in (
        ("captions", "kept shots to caption", "captioned"),
        ("shards", "kept shots to shard", "in shards"),
        ("latents", "kept shots to encode", "encoded"),
    ):
        good = failed = 0
        if view in views:
            is_good = "text IS NOT NULL AND kind <> 'original'" if view == "captions" else "shard IS NOT NULL"
            good = _count(
                tables, f"SELECT DISTINCT clip_id FROM {view} WHERE {is_good} AND clip_id IN ({kept_ids})"
            )
            failed = (
                _count(tables, f"SELECT DISTINCT clip_id FROM {view} WHERE clip_id IN ({kept_ids})") - good
            )
            if view == "captions":  # a clip with its original caption alone has not failed: nobody tried
                tried = "status <> 'ok' AND kind <> 'original'"
                seen = f"SELECT DISTINCT clip_id FROM {view} WHERE {tried} AND clip_id IN ({kept_ids})"
                well = f"SELECT clip_id FROM {view} WHERE {is_good}"
                failed = _count(tables, f"FROM ({seen}) WHERE clip_id NOT IN ({well})")
        parts = [
            (done, good, "good"),
            ("failed", failed, "failed"),
            ("not yet", kept - good - failed, "waiting"),
        ]
        stages.append(_stage(name, parts, kept))
    return stages


def _sources(tables: duckdb.DuckDBPyConnection) -> list[tuple[str, int, str]]:
    rows = rows_of(
        tables, "SELECT status, duplicate_of IS NOT NULL AS is_copy, count(*) AS n FROM sources GROUP BY ALL"
    )
    counts = Counter[str]()
    for row in rows:
        counts["copy" if row["is_copy"] and row["status"] != "failed" else row["status"]] += row["n"]
    return [
        ("ok", counts.pop("ok", 0), "good"),
        ("read in part", counts.pop("partial", 0), "good"),
        ("exact copies", counts.pop("copy", 0), "rejected"),
        ("failed", counts.pop("failed", 0), "failed"),
        *((status, n, "failed") for status, n in counts.items()),
    ]


def _stage(name: str, parts: list[tuple[str, int, str]], total: int | None = None) -> dict[str, Any]:
    total = sum(n for _, n, _ in parts) if total is None else total
    told = [{"name": part, "n": n, "outcome": outcome} for part, n, outcome in parts if n]
    return {"name": name, "total": total, "parts": told}


def _count(tables: duckdb.DuckDBPyConnection, sql: str) -> int:
    found = rows_of(tables, f"SELECT count(*) AS n FROM ({sql})")
    return int(found[0]["n"])


def _plain(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def captions(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Per kind, captioner and model: how many, how long, how many distinct, how many failed, remarks."""
    if "captions" not in views_of(tables):
        return []
    return rows_of(
        tables,
        """
        SELECT kind, captioner, model, count(*) AS n, count(text) AS with_text,
               avg(len(string_split(text, ' '))) AS words, count(DISTINCT text) AS distinct_texts,
               avg(clip_score)::DOUBLE AS clip_score,
               list_sort(list_distinct(flatten(list(coalesce(flags, []))))) AS flags
        FROM captions GROUP BY kind, captioner, model ORDER BY kind, captioner, model
        """,
    )


def gallery(tables: duckdb.DuckDBPyConnection, count: int) -> list[dict[str, Any]]:
    """Up to `count` kept and as many rejected clips; the rejected ones in turn from every reason.

    Clips are taken in the order of a hash of their ids: a random sample, and the same one every time.
    """
    views = views_of(tables)
    if "clips" not in views:
        return []
    if "decisions" not in views:
        tables_sql = "SELECT clips.clip_id FROM clips ORDER BY md5(clip_id) LIMIT ?"
        chosen = [row["clip_id"] for row in rows_of(tables, tables_sql, count)]
    else:
        kept = rows_of(
            tables, "SELECT clip_id FROM decisions WHERE keep ORDER BY md5(clip_id) LIMIT ?", count
        )
        rejected = rows_of(
            tables, "SELECT clip_id, reason FROM decisions WHERE NOT keep ORDER BY md5(clip_id)"
        )
        by_reason: dict[str, list[str]] = {}
        for row in rejected:
            by_reason.setdefault(reason_name(row["reason"] or "unnamed"), []).append(row["clip_id"])
        in_turn = [clip for turn in zip_longest(*by_reason.values()) for clip in turn if clip is not None]
        chosen = [row["clip_id"] for row in kept] + in_turn[:count]
    marks = ", ".join("?" for _ in chosen)
    if not chosen:
        return []
    clips = rows_of(tables, f"SELECT * EXCLUDE (embedding) FROM dataset WHERE clip_id IN ({marks})", *chosen)
    places: dict[str, dict[str, Any]] = {}
    if "shards" in views:
        sql = f"SELECT clip_id, mp4_offset, mp4_size FROM shards WHERE clip_id IN ({marks})"
        places = {row["clip_id"]: row for row in rows_of(tables, sql, *chosen)}
    texts: dict[str, list[dict[str, Any]]] = {}
    if "captions" in views:
        for row in rows_of(
            tables,
            "SELECT clip_id, kind, text, text_raw, captioner, status, error, chosen FROM captions "
            f'WHERE clip_id IN ({marks}) ORDER BY kind, chosen DESC NULLS LAST, "window", caption_id',
            *chosen,
        ):
            texts.setdefault(row["clip_id"], []).append(row)
    order = {clip: place for place, clip in enumerate(chosen)}
    return [
        clip | places.get(clip["clip_id"], {}) | {"captions": texts.get(clip["clip_id"], [])}
        for clip in sorted(clips, key=lambda row: order[row["clip_id"]])
    ]


def errors(tables: duckdb.DuckDBPyConnection, most: int = 500) -> tuple[int, list[dict[str, Any]]]:
    """How many errors the tables hold, and the first `most` of them with their full text."""
    parts = {
        "sources": "SELECT 'file' AS what, uri AS who, status, error FROM sources WHERE error IS NOT NULL",
        "captions": "SELECT 'caption ' || kind, clip_id, status, error FROM captions WHERE error IS NOT NULL",
        "shards": "SELECT 'shard', clip_id, 'failed', error FROM shards WHERE error IS NOT NULL",
        "latents": "SELECT 'latents', clip_id, 'failed', error FROM latents WHERE error IS NOT NULL",
    }
    views = views_of(tables)
    sql = " UNION ALL ".join(part for view, part in parts.items() if view in views)
    return _count(tables, sql), rows_of(tables, f"{sql} LIMIT ?", most)
