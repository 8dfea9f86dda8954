"""The tables of a dataset in SQL, through DuckDB.

    reelmill query --dataset films.reel                                    # what is there
    reelmill query --dataset films.reel "SELECT reason, count(*) FROM decisions GROUP BY ALL"
    reelmill query --dataset s3://bucket/films --out kept.csv "SELECT * FROM dataset WHERE keep"

Every table is a view; `dataset` joins them, one row per clip. Nothing is copied: DuckDB reads the Parquet.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput

if TYPE_CHECKING:
    import duckdb

    from curate.dataset import Dataset

# One row per clip. `arg_max` takes the chosen caption of its kind, or the newest where none was chosen.
_JOINED = """
CREATE VIEW dataset AS
WITH text AS (
    SELECT clip_id,
           arg_max(text, rank) FILTER (kind = 'original') AS caption_original,
           arg_max(text, rank) FILTER (kind = 'short') AS caption_short,
           arg_max(text, rank) FILTER (kind = 'dense') AS caption_dense,
           count(*) AS n_captions
    FROM (SELECT *, (coalesce(chosen, false), coalesce(epoch_us(created_at), 0)) AS rank FROM {captions})
    WHERE text IS NOT NULL GROUP BY clip_id
)
SELECT clips.*,
       s.uri, s.status AS source_status, s.caption AS source_caption,
       d.keep, d.reason, d.reasons, d.duplicate_of, d.cluster, d.weight,
       text.caption_original, text.caption_short, text.caption_dense,
       coalesce(text.n_captions, 0) AS n_captions,
       h.shard, h.bucket
FROM clips
LEFT JOIN (FROM {sources} WHERE duplicate_of IS NULL) s USING (source_id)
LEFT JOIN {decisions} d USING (clip_id)
LEFT JOIN text USING (clip_id)
LEFT JOIN {shards} h USING (clip_id)
"""


@dataclass(frozen=True)
class QueryConfig:
    """Ask the tables of a dataset in SQL.

    The views are sources, clips, decisions, captions, shards, latents, and `dataset`, which joins them with
    one row per clip. Without SQL, lists the views with their rows and columns.

    Attributes:
        dataset: folder or URI of the dataset.
        sql: what to ask, in DuckDB's SQL.
        out: file to write the answer to (.csv, .parquet or .json) instead of printing it.
        max_rows: most rows to print.

    Example:
        reelmill query --dataset films.reel "SELECT reason, count(*) FROM decisions GROUP BY ALL"
        reelmill query --dataset films.reel --out kept.parquet "FROM dataset WHERE keep AND motion > 2"
    """

    dataset: str
    sql: str | None = None
    out: str | None = None
    max_rows: int = 40


def query(config: QueryConfig) -> None:
    """Answer `config.sql`, on the terminal or in a file. Raises BadInput for SQL that DuckDB refuses."""
    import duckdb

    from curate.dataset import Dataset

    dataset = Dataset(config.dataset)
    connection = connect(dataset)
    if config.sql is None:
        print(overview(connection))
        return
    try:
        answer = connection.sql(config.sql)
        if answer is None:  # a statement without rows, such as CREATE TEMP TABLE
            return
        if config.out is not None:
            print(f"{write(connection, answer, config.out)} rows written to {config.out}")
            return
        width = shutil.get_terminal_size((160, 24)).columns
        answer.show(max_rows=config.max_rows, max_width=width)
    except duckdb.CatalogException as error:
        for table in _absent(dataset):
            if f"Table with name {table} does not exist" in str(error):
                # Raises the BadInput that names the command which writes this table.
                dataset.read("clips" if table == "dataset" else table)
        raise BadInput(str(error)) from error
    except duckdb.Error as error:
        raise BadInput(str(error)) from error


def connect(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view per table that exists, and `dataset`. Raises BadInput without clips."""
    import duckdb

    from curate.tables import TABLES

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")  # `FROM config` is no variable of ours
    if not dataset.is_local:
        connection.register_filesystem(dataset.fs)
    names = {}
    for table, schema in TABLES.items():
        parts = _parts(dataset, table)
        names[table] = table if parts else f"no_{table}"
        if parts:
            files = ", ".join(_quote(part) for part in parts)
            # Latents of several VAEs stand side by side; the folder tells which made a row.
            vae_id = "EXCLUDE filename, regexp_extract(filename, '/latents/([^/]+)/', 1) AS vae_id"
            is_latents = table == "latents"
            connection.execute(
                f"CREATE VIEW {table} AS SELECT * {vae_id if is_latents else ''} "
                f"FROM read_parquet([{files}], union_by_name=true, filename={is_latents})"
            )
        else:  # an empty stand-in, so that the joined view has all its columns
            connection.register(f"empty_{table}", schema.empty_table())
            connection.execute(f"CREATE TEMP VIEW no_{table} AS FROM empty_{table}")
    if names["clips"] != "clips":
        if names["sources"] == "sources":
            return connection
        dataset.read("clips")  # raises the BadInput that names the command
    connection.execute(_JOINED.format(**names))
    return connection


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str, *values: Any) -> list[dict[str, Any]]:
    """The rows of an answer, with `values` for its question marks."""
    # Through Arrow: DuckDB's own Python rows want pytz for a time with its zone.
    rows: list[dict[str, Any]] = connection.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return rows


def overview(connection: duckdb.DuckDBPyConnection) -> str:
    """The views, their rows and columns, and two questions to begin with."""
    lines = []
    names = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary ORDER BY view_oid"
    for name in [row["view_name"] for row in rows_of(connection, names)]:
        counted = rows_of(connection, f"SELECT count(*) AS n FROM {name}")
        columns = rows_of(connection, f"SELECT column_name FROM (DESCRIBE {name})")
        lines.append(f"{name} ({counted[0]['n']:,} rows)")
        lines.append("    " + ", ".join(row["column_name"] for row in columns))
    lines += [
        "",
        "Ask, for example:",
        "  \"SELECT split_part(reason, ' ', 1) AS why, count(*) FROM decisions GROUP BY ALL ORDER BY 2 DESC\"",
        '  "SELECT kind, captioner, avg(length(text)) FROM captions GROUP BY ALL"',
    ]
    return "\n".join(lines)


def write(connection: duckdb.DuckDBPyConnection, answer: duckdb.DuckDBPyRelation, out: str) -> int:
    """Write an answer to a local .csv, .parquet or .json file, whole or not at all. Returns its rows."""
    formats = {
        ".csv": "FORMAT csv, HEADER",
        ".parquet": "FORMAT parquet, COMPRESSION zstd",
        ".json": "FORMAT json, ARRAY true",
    }
    target = Path(out)
    if target.suffix not in formats:
        raise BadInput(f"cannot tell the format of {out!r}; end its name in {', '.join(formats)}.")
    if not target.parent.is_dir():
        raise BadInput(f"cannot write {out!r}: there is no folder {str(target.parent)!r}.")
    answer.create_view("answer_rows")
    # DuckDB writes beside the target and renames, so a failure leaves the old file as it was.
    copied = connection.execute(
        f"COPY answer_rows TO {_quote(out)} ({formats[target.suffix]}, USE_TMP_FILE true)"
    ).fetchone()
    return int(copied[0]) if copied else 0


def _parts(dataset: Dataset, table: str) -> list[str]:
    """The Parquet files behind a view, as DuckDB should open them."""
    suffix = "index.parquet" if table in ("shards", "latents") else ".parquet"
    scheme = "" if dataset.is_local else dataset.uri.partition("://")[0] + "://"
    return [scheme + dataset.path(table, name).removeprefix(scheme) for name in dataset.files(table, suffix)]


def _absent(dataset: Dataset) -> list[str]:
    from curate.tables import TABLES

    absent = [table for table in TABLES if not _parts(dataset, table)]
    return [*absent, "dataset"] if "clips" in absent else absent


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(QueryConfig, query, argv, name="query", positional="sql")


if __name__ == "__main__":
    raise SystemExit(main())
