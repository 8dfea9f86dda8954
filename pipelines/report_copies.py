"""Copies for the report: pairs of what is kept and what was found to be a copy of it, least alike first."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from pipelines.query import rows_of
from pipelines.report_data import views_of

if TYPE_CHECKING:
    import duckdb

FILM_S = 8.0  # of a file, so much of its beginning is shown


def copies(tables: duckdb.DuckDBPyConnection, most: int) -> dict[str, Any]:
    """`n_clips`, `n_files`: how many copies there are; `pairs`: `most` of them, half of them files at most.

    A pair is `{kept, copy, reason}`; kept and copy are clips (or files) that add_strips can draw.
    """
    views = views_of(tables)
    n_files, files = _files(tables, most) if "sources" in views else (0, [])
    n_clips, clips = _clips(tables, most) if {"clips", "decisions"} <= views else (0, [])
    files = files[: max(most // 2, most - len(clips))]
    return {"n_clips": n_clips, "n_files": n_files, "pairs": clips[: most - len(files)] + files}


def _clips(tables: duckdb.DuckDBPyConnection, most: int) -> tuple[int, list[dict[str, Any]]]:
    """Near copies and semantic copies in turn, the least alike of each first."""
    rows = rows_of(
        tables,
        """
        SELECT clip_id, duplicate_of, coalesce(told[1], reason) AS reason
        FROM (SELECT *, [why FOR why IN coalesce(reasons, []) IF contains(why, ' of ')] AS told
              FROM decisions WHERE duplicate_of IS NOT NULL)
        ORDER BY md5(clip_id)
        """,
    )
    semantic = [row for row in rows if (row["reason"] or "").startswith("semantic")]
    near = [row for row in rows if not (row["reason"] or "").startswith("semantic")]
    near.sort(key=lambda row: -_figure(row["reason"], 0.0))  # bits that differ
    semantic.sort(key=lambda row: _figure(row["reason"], 2.0))  # cosine
    in_turn = [row for turn in zip_longest(near, semantic) for row in turn if row is not None]
    chosen = in_turn[:most]
    sides = _sides(tables, [row[name] for row in chosen for name in ("clip_id", "duplicate_of")])
    unknown = {"uri": None, "start_s": 0.0, "end_s": 0.0}
    return len(rows), [
        {
            "kept": sides.get(row["duplicate_of"], unknown | {"clip_id": row["duplicate_of"]}),
            "copy": sides.get(row["clip_id"], unknown | {"clip_id": row["clip_id"]}),
            "reason": row["reason"],
        }
        for row in chosen
    ]


def _figure(reason: str | None, unknown: float) -> float:
    """The first figure in the brackets of a reason: bits that differ, or a cosine."""
    for word in (reason or "").partition("(")[2].rstrip(")").split():
        try:
            return float(word)
        except ValueError:
            continue
    return unknown


def _sides(tables: duckdb.DuckDBPyConnection, ids: list[str]) -> dict[str, dict[str, Any]]:
    """What is shown of each clip, and where its pictures are."""
    if not ids:
        return {}
    marks = ", ".join("?" for _ in ids)
    columns = "clip_id, uri, start_s, end_s, width, height, keep, shard"
    rows = rows_of(tables, f"SELECT {columns} FROM dataset WHERE clip_id IN ({marks})", *ids)
    places: dict[str, dict[str, Any]] = {}
    if "shards" in views_of(tables):
        sql = f"SELECT clip_id, mp4_offset, mp4_size FROM shards WHERE clip_id IN ({marks})"
        places = {row["clip_id"]: row for row in rows_of(tables, sql, *ids)}
    return {row["clip_id"]: row | places.get(row["clip_id"], {}) for row in rows}


def _files(tables: duckdb.DuckDBPyConnection, most: int) -> tuple[int, list[dict[str, Any]]]:
    """Files with the same content as another; both pictures come from their own file."""
    rows = rows_of(
        tables,
        """
        SELECT copy.uri AS uri, copy.duplicate_of AS kept_uri, copy.size_bytes AS size_bytes,
               coalesce(copy.duration_s, kept.duration_s) AS duration_s,
               coalesce(copy.width, kept.width) AS width, coalesce(copy.height, kept.height) AS height
        FROM sources copy LEFT JOIN (FROM sources WHERE duplicate_of IS NULL) kept ON kept.uri = copy.duplicate_of
        WHERE copy.duplicate_of IS NOT NULL AND copy.status <> 'failed' ORDER BY md5(copy.uri)
        """,
    )
    pairs = []
    for row in rows[:most]:
        side = {"start_s": 0.0, "end_s": min(FILM_S, row["duration_s"] or FILM_S), "is_file": True}
        side |= {name: row[name] for name in ("width", "height", "size_bytes", "duration_s")}
        pairs.append(
            {
                "kept": side | {"uri": row["kept_uri"]},
                "copy": side | {"uri": row["uri"]},
                "reason": "the same bytes",
            }
        )
    return len(rows), pairs
