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


# How many words a caption has, in SQL: whatever blanks and line breaks stand between them. A regular expression would
# take three times as long.
_SPLIT = "string_split(translate(text, chr(9) || chr(10) || chr(13), '   '), ' ')"
N_WORDS = f"len([word FOR word IN {_SPLIT} IF word <> ''])"
# What makes errors of one kind differ: quoted names, paths, ids, times and long numbers. `HTTP 500` stays.
_DIFFERS = r"(^|[^\w])('[^'\n]*'|\"[^\"\n]*\")|\S*/\S+|\b[0-9a-f]{12,}\b|\d+\.\d+|\d{4,}"


def views_of(tables: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of the tables that exist."""
    found = rows_of(tables, "SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary")
    return {row["view_name"] for row in found}


def funnel(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The stages of the road: `{name, total, parts: [{name, n, outcome}]}`; parts add up to total.

    `outcome` is good (goes on), rejected, failed or waiting (the next command has not seen it). `by_hand` of a part
    counts those in it that a person keeps, if there are any.
    """
    views = views_of(tables)
    stages = [_stage("files in", _sources(tables))]
    if "clips" not in views:
        return stages
    n_clips = _count(tables, "FROM clips")
    reasons = Counter[str]()
    kept = undecided = by_hand = 0
    if "decisions" in views:
        decided = rows_of(tables, "SELECT keep, reason, override FROM clips JOIN decisions USING (clip_id)")
        kept = sum(row["keep"] for row in decided)
        by_hand = sum(row["keep"] and row["override"] is not None for row in decided)
        reasons.update(reason_name(row["reason"] or "unnamed") for row in decided if not row["keep"])
        undecided = n_clips - len(decided)
    else:
        undecided = n_clips
    parts = [("kept", kept, "good")]
    parts += [(_plain(name), n, "rejected") for name, n in reasons.most_common()]
    shots = _stage("shots found", [*parts, ("not decided yet", undecided, "waiting")], n_clips)
    if by_hand:
        shots["parts"][0]["by_hand"] = by_hand
    stages.append(shots)
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
    return "by hand" if name == "override" else name.removesuffix("_s").replace("_", " ")


def captions(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Per kind, captioner and model: how many, how long, how many distinct, how many failed, remarks."""
    if "captions" not in views_of(tables):
        return []
    return rows_of(
        tables,
        f"""
        SELECT kind, captioner, model, count(*) AS n, count(text) AS with_text,
               avg({N_WORDS}) AS words, count(DISTINCT text) AS distinct_texts,
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
    """How many errors the tables hold, and up to `most` kinds of them, in turn from every sort of thing that failed.

    `{table, what, status, n, who, error}`, the most frequent first: n errors that differ in names, paths, ids and
    long numbers alone, with the full text of the first; `who` names two of those that have it.
    """
    parts = {
        "sources": "SELECT 'sources' AS \"table\", 'file' AS what, uri AS who, status, error FROM sources",
        "captions": "SELECT 'captions', 'caption ' || coalesce(kind, ''), clip_id, status, error FROM captions",
        "shards": "SELECT 'shards', 'shard', clip_id, 'failed', error FROM shards",
        "latents": "SELECT 'latents', 'latents', clip_id, 'failed', error FROM latents",
    }
    views = views_of(tables)
    found = [f"{part} WHERE error IS NOT NULL" for view, part in parts.items() if view in views]
    if not found:
        return 0, []
    every = " UNION ALL ".join(found)
    kinds = rows_of(
        tables,
        f"""
        WITH every AS (SELECT * REPLACE (coalesce(who, 'unknown') AS who) FROM ({every})),
        kinds AS (
            SELECT "table", what, status, count(*) AS n, min(who, 2) AS names, arg_min(error, who) AS error
            FROM every GROUP BY "table", what, status, regexp_replace(replace(error, who, '…'), ?, '\\1…', 'g')
        ),
        in_turn AS (SELECT *, row_number() OVER (PARTITION BY what ORDER BY n DESC, error) AS turn FROM kinds)
        SELECT * EXCLUDE (turn) FROM in_turn ORDER BY turn, n DESC, what LIMIT ?
        """,
        _DIFFERS,
        most,
    )
    for kind in kinds:
        names, more = kind.pop("names"), kind["n"] - 2
        kind["who"] = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
    return _count(tables, every), kinds
