"""The views of `reelmill query` in SQL: each table with today's columns, whatever version wrote it, and `dataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.table_versions import sql_migration
from curate.tables import TABLES
from pipelines.query_files import PROTOCOL

# One row per clip. `arg_max` takes the chosen caption of its kind, or the newest where none was chosen; it skips
# null texts. Texts are read only when they are asked for: a WHERE on them would read them for every question.
JOINED = """
CREATE VIEW dataset AS
WITH text AS (
    SELECT clip_id,
           arg_max(text, rank) FILTER (kind = 'original') AS caption_original,
           arg_max(text, rank) FILTER (kind = 'short') AS caption_short,
           arg_max(text, rank) FILTER (kind = 'dense') AS caption_dense,
           count(text) AS n_captions,
           count(*) FILTER (kind <> 'original' AND status IN ('ok', 'truncated')) AS n_generated
    FROM (SELECT *, (coalesce(chosen, false), coalesce(epoch_us(created_at), 0)) AS rank FROM {captions})
    GROUP BY clip_id
)
SELECT clips.*,
       s.uri, s.status AS source_status, s.caption AS source_caption,
       d.keep, d.reason, d.reasons, d.duplicate_of, d.cluster, d.weight, d.override,
       text.caption_original, text.caption_short, text.caption_dense,
       coalesce(text.n_captions, 0) AS n_captions, coalesce(text.n_generated, 0) AS n_generated,
       h.shard, h.bucket
FROM clips
LEFT JOIN (FROM {sources} WHERE duplicate_of IS NULL) s USING (source_id)
LEFT JOIN {decisions} d USING (clip_id)
LEFT JOIN text USING (clip_id)
LEFT JOIN {shards} h USING (clip_id)
"""

# What the views have beside the columns of the tables.
ADDED = {
    "source_status": "status of the source: ok, partial or failed",
    "source_caption": "caption from the source's sidecar file, if there is one",
    "caption_original": "chosen caption of kind original; the newest where none was chosen",
    "caption_short": "chosen caption of kind short; the newest where none was chosen",
    "caption_dense": "chosen caption of kind dense; the newest where none was chosen",
    "n_captions": "captions of the clip that have a text, of all kinds",
    "n_generated": "usable captions of the clip that a captioner wrote",
    "vae_id": "the VAE that made the latents: the name of their folder",
}


def rows_in_sql(dataset: Dataset, table: str, names: Sequence[str]) -> str:
    """SQL that gives the rows of the files `names`; columns that no file has are taken from `empty_TABLE`.

    Raises BadInput for a file of a newer version.
    """
    alike: dict[tuple[str, ...], list[str]] = {}  # what must be done to a file -> the files
    found = set()
    with ThreadPoolExecutor(8) as pool:  # on an object store every look takes a while
        schemas = pool.map(lambda name: _schema(dataset, name), names)
        for name, schema in zip(names, schemas, strict=True):
            alike.setdefault(tuple(sql_migration(schema, dataset.path(name))), []).append(name)
            found.update(schema.names)
    parts = list(_selects(table, alike))
    if missing := [f'"{name}"' for name in TABLES[table].names if name not in found]:
        parts.append(f"SELECT {', '.join(missing)} FROM empty_{table}")
    return " UNION ALL BY NAME ".join(parts)


def _schema(dataset: Dataset, name: str) -> pa.Schema:
    with dataset.open(name) as file:
        return pq.read_schema(file)


def _selects(table: str, alike: dict[tuple[str, ...], list[str]]) -> Iterator[str]:
    # Latents of several VAEs stand side by side; the folder tells which made a row.
    is_latents = table == "latents"
    vae_id = "* EXCLUDE filename, regexp_extract(filename, '/latents/([^/]+)/', 1) AS vae_id"
    for steps, names in alike.items():
        files = ", ".join("'" + f"{PROTOCOL}://{name}".replace("'", "''") + "'" for name in names)
        sql = f"SELECT * FROM read_parquet([{files}], union_by_name=true, filename={is_latents})"
        for select in (*steps, vae_id) if is_latents else steps:
            sql = f"SELECT {select} FROM ({sql})"
        yield sql
