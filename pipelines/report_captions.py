"""Caption statistics for the report: lengths, CLIP scores, what failed, words, words by camera motion, cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.query import rows_of
from pipelines.report_bins import bars
from pipelines.report_data import N_WORDS, views_of

if TYPE_CHECKING:
    import duckdb

SAMPLED = 20_000  # captions whose words are counted
WORDS = 14
# Fewer captions, or a smaller gap, are chance: of 20 captions, a word in half of all stands in 6 to 14.
_CAPTIONS_AT_LEAST = 20
_GAP_AT_LEAST = 0.1
LONGEST_WORD = 40
# What stands between words, besides blanks. Regular expressions take many times as long.
_BETWEEN = '.,;:!?&"“”„«»()[]{}<>/\\|*#=+~…—–。，、！？\n\r\t'
# Words that tell nothing of the picture. Other languages keep theirs.
_PLAIN_WORDS = """
a an the this that these those some any each every it its he him his she her they them their we us our you your i me
my is are was were be been being am has have had do does did can could will would may might of in on at to from by
with without into onto over under as for and or but not no nor so if then than while during there here which who
whose what where when how very more most other another one two also only just same such s t
"""
_PLAIN = frozenset(_PLAIN_WORDS.split())


def statistics(tables: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """What the report tells of captions/; None where there are none. Words are those of a sample of SAMPLED texts."""
    if "captions" not in views_of(tables):
        return None
    counts = rows_of(tables, "SELECT count(text) AS texts, count(*) AS n FROM captions")[0]
    words = _words(tables)
    return {
        "status": rows_of(
            tables,
            "SELECT kind, captioner, model, coalesce(status, 'none') AS status, count(*) AS n FROM captions "
            "GROUP BY ALL ORDER BY n DESC, status",
        ),
        "kinds": [kind | _vocabulary(words, kind["kind"]) for kind in _kinds(tables)],
        "camera": _by_camera(words),
        "cost": _cost(tables),
        "sampled": SAMPLED if counts["texts"] > SAMPLED else None,
    }


def _kinds(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Per kind with a text: how many, how many distinct, bins of words and of CLIP scores, tenths of words."""
    found = rows_of(
        tables,
        "SELECT kind, count(*) AS n, count(DISTINCT text) AS n_distinct FROM captions "
        "WHERE text IS NOT NULL GROUP BY kind ORDER BY n DESC, kind",
    )
    for kind in found:
        columns = tables.sql(
            f"SELECT {N_WORDS}::DOUBLE AS words, clip_score::DOUBLE AS clip_score FROM captions "
            "WHERE text IS NOT NULL AND kind IS NOT DISTINCT FROM ?",
            params=[kind["kind"]],
        ).to_arrow_table()
        for name in ("words", "clip_score"):
            values = columns[name].to_numpy()
            kind[name] = bars(values, np.ones(len(values), bool), [], whole=name == "words")
        kind["tenths"] = [float(at) for at in np.quantile(columns["words"].to_numpy(), [0.1, 0.5, 0.9])]
    return found


def _words(tables: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """`{kind, camera, word, n}`: n captions of the sample hold the word; a row without a word counts them all."""
    return rows_of(
        tables,
        """
        WITH sample AS (SELECT caption_id FROM captions WHERE text IS NOT NULL ORDER BY md5(caption_id) LIMIT ?),
        texts AS (
            SELECT kind, camera, list_distinct(string_split(translate(lower(text), ?, ?), ' ')) AS words
            FROM captions SEMI JOIN sample USING (caption_id) LEFT JOIN clips USING (clip_id)
        ),
        words AS (SELECT kind, camera, left(trim(unnest(words), ?), ?) AS word FROM texts)
        SELECT kind, camera, NULL AS word, count(*) AS n FROM texts GROUP BY ALL
        UNION ALL
        SELECT kind, camera, word, count(*) FROM words WHERE word <> '' GROUP BY ALL
        """,
        SAMPLED,
        _BETWEEN,
        " " * len(_BETWEEN),
        "'’-",
        LONGEST_WORD,
    )


def _vocabulary(words: list[dict[str, Any]], kind: str | None) -> dict[str, Any]:
    """`vocabulary`: distinct words of a kind; `top`: those that most of its captions hold, with their share."""
    counts = Counter[str]()
    n = 0
    for row in words:
        if row["kind"] == kind and row["word"] is None:
            n += row["n"]
        elif row["kind"] == kind:
            counts[row["word"]] += row["n"]
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    top = [{"word": word, "share": count / n} for word, count in most if word not in _PLAIN]
    return {"vocabulary": len(counts), "top": top[:WORDS]}


def _by_camera(words: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Words that captions of clips with one camera motion hold far more often than all: of the richest kind.

    `{kind, rows: [{camera, n, words: [{word, share, overall}]}]}`, shares of captions; the widest gap comes first.
    """
    texts = Counter[str]()
    for row in words:
        if row["word"] is not None and row["kind"]:
            texts[row["kind"]] += row["n"]
    if not texts:
        return None
    kind = texts.most_common(1)[0][0]
    totals = Counter[str]()
    by_word: dict[str, Counter[str]] = defaultdict(Counter)
    for row in words:
        if row["kind"] == kind and row["camera"]:
            if row["word"] is None:
                totals[row["camera"]] += row["n"]
            else:
                by_word[row["word"]][row["camera"]] += row["n"]
    n = totals.total()
    rows = []
    for camera, of_camera in totals.most_common():
        if of_camera < _CAPTIONS_AT_LEAST:
            break
        told: list[dict[str, Any]] = []
        for word, counts in by_word.items():
            share, overall = counts[camera] / of_camera, counts.total() / n
            if share - overall >= _GAP_AT_LEAST and word not in _PLAIN:
                told.append({"word": word, "share": share, "overall": overall})
        told.sort(key=lambda row: (row["overall"] - row["share"], row["word"]))
        rows.append({"camera": camera, "n": of_camera, "words": told[:6]})
    return {"kind": kind, "rows": [row for row in rows if row["words"]]}


def _cost(tables: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Sums over all answers; None where no captioner told."""
    return rows_of(
        tables,
        "SELECT sum(cost_usd)::DOUBLE AS usd, sum(tokens_in)::BIGINT AS tokens_in, "
        "sum(tokens_out)::BIGINT AS tokens_out, median(latency_ms)::DOUBLE AS latency_ms, "
        "sum(retries)::BIGINT AS retries FROM captions",
    )[0]
