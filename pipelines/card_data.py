"""What a dataset card tells, counted from the tables as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.card_hub import configs
from pipelines.decide import rules_in_force, stored_rules
from pipelines.query import rows_of
from pipelines.query_examples import ASPECTS, LENGTHS
from pipelines.report_data import funnel, views_of
from pipelines.stale import rejected_since

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset
    from curate.decide import DecideConfig


@dataclass(frozen=True)
class Figures:
    """See the module. Lists of rows are empty where their table does not exist.

    Attributes:
        configs: what the Hub is told of the tables; see pipelines.card_hub.
        counts: files, hours of footage; clips, those that are kept, rejected and undecided (no decision has seen them
            yet), and hours of all and of the kept.
        funnel: stages as `pipelines.report_data.funnel` gives them.
        is_decided: decisions/ exists. Durations, sizes, samples and what is unscored are of kept clips then, and of
            all clips before.
        durations: seconds that 5, 25, 50, 75 and 95 % of the clips do not exceed; null without any.
        aspects, lengths: the answers of these examples of `reelmill query`.
        sizes: WIDTHxHEIGHT in pixels and clips: the most frequent sizes.
        captioners: captioner, model, revision, prompt and captions of each.
        hashes: table -> hashes of the configurations that made its rows.
        rules: those that made decisions/; null without decisions, or if they do not tell.
        by_hand: clips that a person kept, those of them that the rules would have rejected, and clips that a
            person rejected: `{kept, in_spite, rejected}`.
        languages: languages of the captions.
        unscored: score -> clips without it, of the scores that guard against unsafe or unlike content.
        failed: captions without a text.
        flags: flag of captions with a text -> how many have it, the most frequent first.
        stale: configuration of `configs` -> clips that lie in it and are rejected since, where there are any.
        samples: a few clips with a chosen caption.
        bins: for the plots: {"seconds": [(second, kept, rejected, undecided)], "words": [(kind, words, captions)]}.
    """

    configs: dict[str, str]
    counts: dict[str, Any]
    is_decided: bool
    funnel: list[dict[str, Any]]
    durations: list[float] | None
    aspects: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    sizes: list[dict[str, Any]]
    captioners: list[dict[str, Any]]
    hashes: dict[str, list[str]]
    rules: DecideConfig | None
    by_hand: dict[str, int]
    languages: list[str]
    unscored: dict[str, int]
    failed: int
    flags: dict[str, int]
    stale: dict[str, int]
    samples: list[dict[str, Any]]
    bins: dict[str, list[tuple[Any, ...]]]


def gather(dataset: Dataset, tables: duckdb.DuckDBPyConnection) -> Figures:
    """All figures of a dataset that has clips."""

    def ask(sql: str, *needs: str) -> list[dict[str, Any]]:
        return rows_of(tables, sql) if views_of(tables) >= set(needs) else []

    is_decided = "decisions" in views_of(tables)
    told = "keep" if is_decided else "true"  # the clips that the figures are of
    counts = ask(
        """
        SELECT count(*) AS clips, count(*) FILTER (keep) AS kept, count(*) FILTER (NOT keep) AS rejected,
               count(*) FILTER (keep IS NULL) AS undecided,
               coalesce(sum(end_s - start_s), 0) / 3600 AS hours_found,
               coalesce(sum(end_s - start_s) FILTER (keep), 0) / 3600 AS hours_kept
        FROM dataset
        """
    )[0]
    counts |= ask(
        "SELECT count(*) AS files, sum(duration_s) FILTER (duplicate_of IS NULL) / 3600 AS hours FROM sources",
        "sources",
    )[0]
    quantiles = ask(
        f"SELECT quantile_disc(round(end_s - start_s, 2), [0.05, 0.25, 0.5, 0.75, 0.95]) AS q FROM dataset WHERE {told}"
    )
    sizes = (
        f"SELECT width || '×' || height AS size, count(*) AS clips FROM dataset WHERE {told} GROUP BY size"
    )
    captioners = """
        SELECT captioner, model, revision, prompt_id, count(*) AS captions
        FROM captions WHERE text IS NOT NULL GROUP BY ALL ORDER BY captions DESC, captioner, model, prompt_id
    """
    nulls = ", ".join(f"count(*) - count({score}) AS {score}" for score in ("nsfw", "clip_text_sim"))
    text = "coalesce(caption_dense, caption_short, caption_original)"
    words = "len(string_split(text, ' '))"
    return Figures(
        configs=configs(dataset),
        counts=counts,
        is_decided=is_decided,
        funnel=funnel(tables),
        durations=quantiles[0]["q"],
        aspects=ask(ASPECTS.sql, "decisions"),
        lengths=ask(LENGTHS.sql, "captions"),
        sizes=ask(f"{sizes} ORDER BY clips DESC, size LIMIT 8"),
        captioners=ask(captioners, "captions"),
        hashes={
            table: [
                row["config_hash"]
                for row in ask(
                    f"SELECT DISTINCT config_hash FROM {table} WHERE config_hash IS NOT NULL ORDER BY 1",
                    table,
                )
            ]
            for table in ("clips", "decisions")
        },
        rules=None if stored_rules(dataset) is None else rules_in_force(dataset),
        by_hand=ask(
            """
            SELECT count(*) FILTER (keep) AS kept, count(*) FILTER (keep AND len(reasons) > 0) AS in_spite,
                   count(*) FILTER (NOT keep) AS rejected
            FROM dataset WHERE override IS NOT NULL
            """
        )[0],
        languages=[
            row["lang"]
            for row in ask("SELECT DISTINCT lang FROM captions WHERE lang IS NOT NULL ORDER BY 1", "captions")
        ],
        unscored=ask(f"SELECT {nulls} FROM dataset WHERE {told}")[0],
        failed=sum(
            row["n"] for row in ask("SELECT count(*) AS n FROM captions WHERE text IS NULL", "captions")
        ),
        flags={
            row["flag"]: row["n"]
            for row in ask(
                "SELECT flag, count(DISTINCT caption_id) AS n "
                "FROM (SELECT caption_id, unnest(flags) AS flag FROM captions WHERE text IS NOT NULL) "
                "GROUP BY flag ORDER BY n DESC, flag",
                "captions",
            )
        },
        stale=rejected_since(tables),
        samples=ask(
            f"SELECT clip_id, end_s - start_s AS seconds, camera, {text} AS text FROM dataset "
            f"WHERE {told} AND {text} IS NOT NULL ORDER BY md5(clip_id) LIMIT 5",
            "captions",
        ),
        bins={
            "seconds": [
                tuple(row.values())
                for row in ask(
                    "SELECT least(floor(end_s - start_s), 60)::INT AS second, count(*) FILTER (keep) AS kept, "
                    "count(*) FILTER (NOT keep) AS rejected, count(*) FILTER (keep IS NULL) AS undecided "
                    "FROM dataset GROUP BY 1 ORDER BY 1"
                )
            ],
            "words": [
                tuple(row.values())
                for row in ask(
                    f"SELECT kind, least({words}, 200) AS n, count(*) AS captions FROM captions WHERE text IS NOT NULL "
                    "GROUP BY ALL ORDER BY 1, 2",
                    "captions",
                )
            ],
        },
    )
