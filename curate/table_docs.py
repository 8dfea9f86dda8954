"""docs/tables.md, made from the schemas: what each table is, one row per what, its key, its columns.

python -m curate.table_docs > docs/tables.md
"""

from __future__ import annotations

import pyarrow as pa

from curate.table_files import stored
from curate.tables import SCHEMA_VERSION, TABLES, order_of, told

# table -> files, the commands that write them, what an analyst should know before the columns.
_ABOUT = {
    "sources": (
        "sources/*.parquet",
        "curate",
        "What went in, and what became of it; where reading failed, with the full error text.",
    ),
    "clips": (
        "clips/*.parquet",
        "curate",
        "Facts that never change with a threshold. A score that could not be measured is null, never 0 or -1; "
        "`score_errors` says why. Join it to `sources` by `source_id`, to everything else by `clip_id`.",
    ),
    "decisions": (
        "decisions/*.parquet",
        "decide",
        "Made anew in seconds from `clips` whenever the thresholds change; nothing is decoded for it. The rules stand "
        "in the file's metadata as `reelmill.rules`.",
    ),
    "overrides": (
        "overrides/*.parquet",
        "serve overrule",
        "What people said against the rules. `decide` obeys the newest word on each clip and never writes here.",
    ),
    "captions": (
        "captions/*.parquet",
        "recaption",
        "Several rows per clip: kinds, captioners, windows, rewrites, tries that failed. For one caption per clip and "
        "kind take the rows with `chosen`.",
    ),
    "shards": (
        "shards/index.parquet",
        "shard",
        "Where the bytes of every clip lie in the WebDataset tars, and how it was encoded.",
    ),
    "latents": (
        "latents/*/index.parquet",
        "encode",
        "Where the latents and text embeddings of every clip lie. One folder, and one such table, per VAE.",
    ),
}

_HEAD = f"""# The tables

This page is made from `curate/tables.py` by `python -m curate.table_docs > docs/tables.md`; a test keeps it true.

A dataset is a folder, local or `s3://`, of Parquet tables that any reader opens without us (each of these is tested,
on disk and on S3):

```
reelmill query --dataset films.reel "SELECT split_part(reason, ' ', 1) AS rule, count(*) FROM decisions GROUP BY ALL"
duckdb      SELECT camera, avg(motion) FROM 'films.reel/clips/*.parquet' GROUP BY ALL
polars      pl.scan_parquet("films.reel/captions/*.parquet").filter(pl.col("chosen"))
pandas      pd.read_parquet("films.reel/clips", columns=["clip_id", "motion"])
pyarrow     pyarrow.dataset.dataset("films.reel/clips").to_table(columns=["clip_id", "motion"])
datasets    load_dataset("parquet", data_files="films.reel/captions/*.parquet")
```

The folders `shards/` and `latents/` hold tars too, which pandas and pyarrow would take for tables: name the index, as
in `pd.read_parquet("films.reel/shards/index.parquet")`. Likewise `films.reel/**/*.parquet` and
`load_dataset("films.reel")` would read what runs leave in `_state/`. Once `reelmill card --dataset films.reel` has
written the card, `load_dataset("films.reel", "captions")` takes a table by its name, as it does from the Hub.

On `s3://` Polars, pandas, pyarrow and datasets take the credentials of the environment. DuckDB wants one line before:

```
in Python   duckdb.register_filesystem(fsspec.filesystem("s3"))                  # tested
elsewhere   INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);
```

Types, units and descriptions below stand in the files too: `pyarrow.parquet.read_schema(FILE)` shows them per column.

- **Missing values are null**, never 0 or -1.
- **Units** are in the column's name where one could doubt (`_s`, `_ms`, `_bytes`) and in the table below: `s` seconds,
  `px` pixels, `B` bytes, `%/s` percent of the picture's diagonal per second, `1` a ratio, a cosine or a score.
- **Layout**: zstd, dictionaries where values repeat, sorted as said for each table, row groups of at most 16,000 rows
  and 64 MiB uncompressed, with statistics and a page index, so a reader skips what a filter on the key rules out.
- **Embeddings** are a column like any other: a scan that does not name it does not read it. In files of their own no
  question became faster by more than the noise (`tests/bench/tables.py`; see `tests/bench/results`).
- **Versions**: the files tell their schema's version (`reelmill.schema_version`; today's is {SCHEMA_VERSION}). Older
  files are read as today's: columns that they lack are null. A newer file is refused with a sentence that says so.
- **Many small files**: `reelmill compact --dataset URI` merges them. Rows are there once at any moment for our
  commands, and on a local disk for every reader that lists the folder. On an object store such a reader may see merged
  rows twice during the command's last seconds.
"""


def document() -> str:
    """The whole page, in Markdown."""
    return "\n".join([_HEAD, *(_section(name, stored(schema)) for name, schema in TABLES.items())])


def _section(name: str, schema: pa.Schema) -> str:
    files, commands, about = _ABOUT[name]
    writers = " and ".join(f"`reelmill {command}`" for command in commands.split())
    order = ", ".join(f"`{column}`" for column in order_of(schema))
    lines = [
        f"## {name}",
        "",
        f"One row per {_cell(told(schema, 'row'))}. {about}",
        "",
        f"`{files}`, written by {writers} · key `{told(schema, 'key')}` · sorted by {order}",
        "",
        "| column | type | unit | what it is |",
        "|---|---|---|---|",
    ]
    for field in schema:
        lines.append(_row(field.name, field))
        if pa.types.is_struct(field.type):
            lines += [_row(f"{field.name}.{inner.name}", inner) for inner in field.type]
    return "\n".join([*lines, ""])


def _row(name: str, field: pa.Field) -> str:
    about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    kind = _kind(field.type) + ("" if field.nullable else ", never null")
    return f"| `{name}` | {kind} | {about.get('unit', '')} | {_cell(about['description'])} |"


def _kind(kind: pa.DataType) -> str:
    """An Arrow type in few words: list<string>, struct, timestamp[us, tz=UTC]."""
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return f"list<({', '.join(field.name for field in kind.value_type)})>"
    if pa.types.is_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return "struct"
    return str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(document(), end="")
