"""Counts of each stage of a dataset, from its tables and from what unfinished jobs have committed by now.

    state = State(dataset)
    for found in stages(dataset, state, jobs): ...

Of the tables only counts and a few columns are read; of unfinished jobs the parts that are in no table yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.overrides import waiting
from pipelines.query import quote
from pipelines.stale import rejected_since
from pipelines.status_curate import since
from pipelines.status_job import Job
from pipelines.status_state import State, times

if TYPE_CHECKING:
    import duckdb

#: Of the outcomes, in the order in which they are told; others stand between, the commonest first.
_FIRST, _LAST = ("ok", "partial", "truncated"), ("error", "failed")
CURATED, CAPTIONS, CUTS, LATENTS = "_state/curate", "_state/captions", "_state/cuts", "_state/latents"


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is. done + failed + waiting = all that there is for it.

    Attributes:
        stage: curate, decide, recaption, shard, or encode with the id of its VAE.
        unit: files or clips.
        done: those with a result; of decide, kept and rejected.
        kept: of decide, clips kept.
        kept_by_hand: those of `kept` that a person keeps.
        waiting_by_hand: of decide, clips of which people said something that the decisions do not follow yet.
        rejected_since: of shard and encode, clips that are rejected by now and still lie there.
        rejected: of decide, clips by the filter that rejected them, the commonest first.
        failed: those whose every try failed.
        waiting: those that the stage before has brought and that are not done; null if that is not known.
        outcomes: more about what is done: files by status, captions by status.
        changed_at: when something of it was written last.
    """

    stage: str
    unit: str
    done: int
    failed: int
    waiting: int | None
    kept: int | None = None
    kept_by_hand: int | None = None
    waiting_by_hand: int | None = None
    rejected_since: int | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    changed_at: datetime | None = None


def stages(dataset: Dataset, state: State, jobs: Sequence[Job]) -> list[StageStatus]:
    """Every stage that has begun, in the order of the road."""
    written = {table: max(times(dataset, table).values(), default=None) for table in ("sources", "captions")}
    found = [of_curate(dataset, state, written["sources"], jobs)]
    with _connection(dataset) as connection:
        if dataset.has("clips"):
            found.append(of_decide(connection, dataset))
        if dataset.has("decisions"):
            found.append(of_recaption(connection, dataset, state, written["captions"]))
        packed = [of_shard(connection, dataset, state), *of_encode(connection, dataset, state)]
        if dataset.has("decisions"):
            stale = rejected_since(connection)
            packed = [one and replace(one, rejected_since=stale.get(_lies_in(one), 0)) for one in packed]
    return [stage for stage in [*found, *packed] if stage is not None]


def _lies_in(stage: StageStatus) -> str:
    """What `rejected_since` calls the place where this stage puts its clips."""
    vae = stage.stage.partition("encode ")[2]
    return f"latents-{vae}" if vae else "shards"


def _connection(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """The views of `reelmill query`; of a dataset with nothing but shards and latents, what is counted of these."""
    import duckdb

    from pipelines.query import connect

    if dataset.has("clips") or dataset.has("sources"):
        return connect(dataset)
    connection = duckdb.connect()
    if dataset.has("shards"):
        connection.register("shards", dataset.read("shards", ["clip_id", "shard", "error"]))
    indexes = [pa.table({name: pa.array([], pa.string()) for name in ("clip_id", "error", "vae_id")})]
    for name in dataset.files("latents", "/index.parquet"):
        with dataset.open("latents", *name.split("/")) as file:
            index = pq.read_table(file, columns=["clip_id", "error"])
        indexes.append(index.append_column("vae_id", pa.array([name.split("/")[0]] * len(index))))
    connection.register("latents", pa.concat_tables(indexes, promote_options="permissive"))
    return connection


def of_curate(
    dataset: Dataset, state: State, tables_at: datetime | None, jobs: Sequence[Job]
) -> StageStatus | None:
    """Files by status: of the job that is unfinished what it found done and what it did, else of all units."""
    units = state.under(CURATED, ".parquet")
    if not units and tables_at is None:
        return None
    job = next((job for job in jobs if job.command == "curate" and job.began_at is not None), None)
    waiting: int | None = 0 if tables_at else None
    if job is not None:
        now = since(units, job.began_at)
        waiting = max(0, job.to_do.get("analyse", 0) - now.total())
        counts = Counter(job.before) + now
    elif units:
        counts = since(units, None)
    else:  # a copy of the dataset without its state
        counts = Counter(dataset.read("sources", ["status"])["status"].to_pylist())
    changed_at = max(filter(None, [*units.values(), tables_at]))
    done = counts["ok"] + counts["partial"]
    return StageStatus(
        "curate", "files", done, counts["failed"], waiting, outcomes=in_order(counts), changed_at=changed_at
    )


def in_order(outcomes: Mapping[str, int]) -> dict[str, int]:
    """Outcomes from the best to the worst, whatever their number: `ok`, `partial`, ..., `failed`."""

    def place(outcome: str) -> tuple[int, int, str]:
        if outcome in _FIRST:
            return _FIRST.index(outcome), 0, ""
        return len(_FIRST) + (outcome in _LAST), -outcomes[outcome], outcome

    return {outcome: outcomes[outcome] for outcome in sorted(outcomes, key=place)}


def of_decide(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> StageStatus:
    clips = _number(connection, "SELECT count(*) FROM clips")
    if not dataset.has("decisions"):
        return StageStatus("decide", "clips", 0, 0, clips)
    rows = connection.sql(
        "SELECT split_part(reason, ' ', 1), count(*) FROM decisions WHERE NOT keep GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    rejected: dict[str, int] = dict(rows)
    done = _number(connection, "SELECT count(*) FROM decisions")
    by_hand = _number(connection, "SELECT count(*) FROM decisions WHERE keep AND override IS NOT NULL")
    changed_at = max(times(dataset, "decisions").values(), default=None)
    return StageStatus(
        "decide",
        "clips",
        done,
        0,
        max(0, clips - done),
        kept=done - sum(rejected.values()),
        kept_by_hand=by_hand,
        waiting_by_hand=len(waiting(dataset)),
        rejected=rejected,
        changed_at=changed_at,
    )


def of_recaption(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, state: State, table_at: datetime | None
) -> StageStatus | None:
    """Kept clips by whether a captioner wrote something usable of them; originals do not count."""
    parts = state.under(CAPTIONS, ".parquet")
    if not parts and table_at is None:
        return None
    columns = {name: pa.string() for name in ("caption_id", "clip_id", "kind", "status")}
    pending = state.rows(CAPTIONS, columns, list(parts))
    connection.register("pending_captions", pending)
    names = ", ".join(columns)
    stored = f"SELECT {names}, 0 AS part FROM captions UNION ALL" if dataset.has("captions") else ""
    connection.execute(
        f"CREATE TEMP VIEW made AS SELECT * FROM ({stored} SELECT {names}, 1 AS part FROM pending_captions) "
        "WHERE kind <> 'original'"
    )
    # A caption that was asked for again is in both, and counts once, as what it is by now.
    once = "(SELECT DISTINCT ON (caption_id) * FROM made ORDER BY caption_id, part DESC)"
    once = once if len(pending) else "made"
    outcomes = connection.sql(f"SELECT status, count(*) FROM {once} GROUP BY 1").fetchall()
    done, failed = connection.sql(
        "SELECT count(*) FILTER (usable), count(*) FILTER (NOT usable) FROM "
        "(SELECT clip_id, bool_or(status IN ('ok', 'truncated')) AS usable FROM made GROUP BY clip_id) "
        "SEMI JOIN (SELECT clip_id FROM decisions WHERE keep) USING (clip_id)"
    ).fetchall()[0]
    kept = _number(connection, "SELECT count(*) FROM decisions WHERE keep")
    changed_at = max(filter(None, [*parts.values(), table_at]))
    return StageStatus(
        "recaption",
        "clips",
        done,
        failed,
        kept - done - failed,
        outcomes=in_order(dict(outcomes)),
        changed_at=changed_at,
    )


def of_shard(connection: duckdb.DuckDBPyConnection, dataset: Dataset, state: State) -> StageStatus | None:
    """Kept clips that are cut, in shards or on their way there; without decisions those that the shards know of."""
    cuts = state.under(CUTS, ".parquet")
    written = [*cuts.values(), *_index_times(dataset, "shards")]
    if not written:
        return None
    wanted, left = "(SELECT clip_id FROM shards)", None
    if dataset.has("decisions"):
        wanted = "(SELECT clip_id FROM decisions WHERE keep)"
    done, failed = _covered(connection, state, CUTS, list(cuts), "shards", dataset.has("shards"), wanted)
    if dataset.has("decisions"):
        left = _number(connection, "SELECT count(*) FROM decisions WHERE keep") - done - failed
    return StageStatus("shard", "clips", done, failed, left, changed_at=max(written))


def of_encode(connection: duckdb.DuckDBPyConnection, dataset: Dataset, state: State) -> list[StageStatus]:
    """For each VAE, clips in shards that are encoded, in latent shards or on their way there."""
    if not dataset.has("shards"):
        return []
    indexed = times(dataset, "latents")
    begun = {name.split("/")[0] for name in [*indexed, *state.under(LATENTS, ".parquet")] if "/" in name}
    return [_of_vae(connection, state, vae, indexed.get(f"{vae}/index.parquet")) for vae in sorted(begun)]


def _of_vae(
    connection: duckdb.DuckDBPyConnection, state: State, vae: str, index_at: datetime | None
) -> StageStatus:
    folder = f"{LATENTS}/{vae}"
    parts = state.under(folder, ".parquet")
    # The rows of packed shards stay when the index is written: then they are in it.
    unread = [name for name, written in parts.items() if index_at is None or written > index_at]
    source = f"(SELECT * FROM latents WHERE vae_id = {quote(vae)})"
    wanted = "(SELECT clip_id FROM shards WHERE shard IS NOT NULL)"
    done, failed = _covered(connection, state, folder, unread, source, index_at is not None, wanted)
    there = _number(connection, "SELECT count(*) FROM shards WHERE shard IS NOT NULL")
    changed_at = max(filter(None, [*parts.values(), index_at]))
    return StageStatus(f"encode {vae}", "clips", done, failed, there - done - failed, changed_at=changed_at)


def _covered(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    folder: str,
    names: list[str],
    index: str,
    has_index: bool,
    wanted: str,
) -> tuple[int, int]:
    """Clips of `wanted` that the index or the parts `names` have without an error, and those only with one."""
    pending = state.rows(folder, {"clip_id": pa.string(), "error": pa.string()}, names)
    connection.register("pending", pending)
    stored = f"SELECT clip_id, error FROM {index} UNION ALL" if has_index else ""
    done, failed = connection.sql(
        "SELECT count(*) FILTER (good), count(*) FILTER (NOT good) FROM (SELECT clip_id, bool_or(error IS NULL) "
        f"AS good FROM ({stored} SELECT clip_id, error FROM pending) GROUP BY clip_id) "
        f"SEMI JOIN {wanted} USING (clip_id)"
    ).fetchall()[0]
    connection.unregister("pending")
    return done, failed


def _index_times(dataset: Dataset, table: str) -> list[datetime]:
    found: Any = dataset.fs.modified(dataset.path(table, "index.parquet")) if dataset.has(table) else None
    return [found] if found is not None else []


def _number(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.sql(sql).fetchall()[0][0])
