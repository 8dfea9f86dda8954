"""Five readers open the tables as docs/tables.md says, on disk and on S3, without a line of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto_store import moto_store

from curate.dataset import Dataset, write_parquet
from curate.table_docs import document
from curate.tables import CAPTIONS, CLIPS, TABLES

CLIP_ROWS, PARTS = 17_000, 3  # more than one row group; files of captions
WORDS = ["a", "red", "disc", "moves", "left", "over", "a", "green", "hill", "under", "a", "grey", "sky"]

# The question of every reader: how many captions of clips with motion above 5 are dense, how long are they, and
# what do one clip's crop and embedding hold?
Answer = tuple[int, int, dict[str, int], list[float]]


def clip(i: int) -> dict[str, Any]:
    return {
        "clip_id": f"{i:024x}", "source_id": f"{i // 50:032x}", "index": i % 50, "motion": (i % 100) / 10,
        "crop": {"x": 0, "y": i % 9, "w": 1280, "h": 720}, "embedding": [i / 4, -1.0],
        "score_errors": [("nsfw", "no model")] if i % 7 == 0 else [],
    }  # fmt: skip


def caption(i: int) -> dict[str, Any]:
    return {
        "caption_id": f"{i:032x}", "clip_id": f"{i // 2:024x}", "kind": ("dense", "short")[i % 2],
        "text": " ".join(WORDS[: 3 + i % 9]), "flags": ["plain"], "created_at": START + timedelta(seconds=i),
    }  # fmt: skip


START = datetime(2026, 11, 22, tzinfo=UTC)
FAST = {i for i in range(CLIP_ROWS) if i % 100 > 50}
TEXTS = [caption(2 * i)["text"] for i in range(1_500) if i in FAST]
EXPECTED: Answer = (len(TEXTS), sum(map(len, TEXTS)), clip(700)["crop"], [175.0, -1.0])


def write_tables(dataset: Dataset) -> None:
    dataset.write("clips", pa.Table.from_pylist([clip(i) for i in range(CLIP_ROWS)], schema=CLIPS))
    each = 3_000 // PARTS
    for part in range(PARTS):
        rows = [caption(i) for i in range(part * each, (part + 1) * each)]
        with dataset.atomic_writer("captions", f"part-{part:05}.parquet") as file:
            write_parquet(file, CAPTIONS, [pa.Table.from_pylist(rows, schema=CAPTIONS)])


@pytest.fixture(scope="module", params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where datasets lie; for s3 the environment says where the store is, as an analyst's would."""
    if request.param == "disk":
        yield str(tmp_path_factory.mktemp("tables"))
        return
    with moto_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield store.uri


@pytest.fixture(scope="module")
def uri(place: str) -> str:
    """Clips and captions, of which there are many."""
    write_tables(Dataset(f"{place}/films"))
    return f"{place}/films"


@pytest.fixture(scope="module")
def every_table(place: str) -> str:
    """Every table with two rows: one with all its values, and one with as few as may be. And tars, as in a dataset."""
    dataset = Dataset(f"{place}/whole")
    for name, schema in TABLES.items():
        with dataset.atomic_writer(
            *FILES[name].replace("*", "vae-1" if name == "latents" else "part").split("/")
        ) as f:
            write_parquet(f, schema, [pa.Table.from_pylist(list(two_rows(schema)), schema=schema)])
    for folder in ("shards/16x9-h72", "latents/vae-1"):
        dataset.write_bytes(b"a tar", folder, "000000.tar")
    return dataset.uri


# As docs/tables.md names them.
FILES = {table: f"{table}/*.parquet" for table in TABLES} | {
    "shards": "shards/index.parquet", "latents": "latents/*/index.parquet",
}  # fmt: skip


def two_rows(schema: pa.Schema) -> Iterator[dict[str, Any]]:
    yield {field.name: value(field.type, place) for place, field in enumerate(schema)}
    yield {f.name: None if f.nullable else value(f.type, place + 1) for place, f in enumerate(schema)}


def value(kind: pa.DataType, number: int) -> Any:
    """A value of that type, another one for each number."""
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, number + i) for i, field in enumerate(kind)}
    if pa.types.is_map(kind):  # which lies in the file as a list
        return [{"key": f"score {number}", "value": "no model"}, {"key": "other", "value": ""}]
    if pa.types.is_list(kind):
        return [value(kind.value_type, number), value(kind.value_type, number + 1)]
    if pa.types.is_timestamp(kind):
        return START + timedelta(microseconds=number)
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    return (
        f"text {number} ö"
        if pa.types.is_string(kind)
        else number / 4
        if pa.types.is_floating(kind)
        else number
    )


def by_duckdb(uri: str, cache: Path) -> Answer:
    import duckdb
    import fsspec

    tables = duckdb.connect()
    if uri.startswith("s3://"):  # DuckDB's own httpfs would have to be downloaded
        tables.register_filesystem(fsspec.filesystem("s3"))
    n, length = tables.execute(
        f"""SELECT count(*), sum(length(text))::BIGINT FROM '{uri}/captions/*.parquet'
        JOIN '{uri}/clips/*.parquet' USING (clip_id) WHERE kind = 'dense' AND motion > 5.01"""
    ).fetchone()
    crop, embedding = tables.execute(
        f"SELECT crop, embedding FROM '{uri}/clips/*.parquet' WHERE clip_id = ?",
        [f"{700:024x}"],
    ).fetchone()
    return n, length, crop, embedding


def by_polars(uri: str, cache: Path) -> Answer:
    import polars as pl

    clips, captions = pl.scan_parquet(f"{uri}/clips/*.parquet"), pl.scan_parquet(f"{uri}/captions/*.parquet")
    dense = captions.filter(pl.col("kind") == "dense").join(
        clips.filter(pl.col("motion") > 5.01), on="clip_id"
    )
    found = dense.select(n=pl.len(), length=pl.col("text").str.len_chars().sum()).collect().row(0)
    one = clips.filter(pl.col("clip_id") == f"{700:024x}").collect().to_dicts()[0]
    return found[0], found[1], one["crop"], one["embedding"]


def by_pandas(uri: str, cache: Path) -> Answer:
    import pandas as pd

    clips = pd.read_parquet(f"{uri}/clips", columns=["clip_id", "motion"])
    captions = pd.read_parquet(f"{uri}/captions", filters=[("kind", "==", "dense")])
    dense = captions.merge(clips[clips["motion"] > 5.01], on="clip_id")
    one = pd.read_parquet(f"{uri}/clips", filters=[("clip_id", "==", f"{700:024x}")]).iloc[0]
    texts = dense["text"].str.len()
    return len(dense), int(texts.sum()), one["crop"], one["embedding"].tolist()


def by_pyarrow(uri: str, cache: Path) -> Answer:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    clips = ds.dataset(f"{uri}/clips")
    fast = clips.to_table(columns=["clip_id"], filter=pc.field("motion") > 5.01)
    captions = ds.dataset(f"{uri}/captions").to_table(filter=pc.field("kind") == "dense")
    dense = captions.filter(pc.is_in(captions["clip_id"], fast["clip_id"].combine_chunks()))
    one = clips.to_table(filter=pc.field("clip_id") == f"{700:024x}").to_pylist()[0]
    length = pc.sum(pc.utf8_length(dense["text"])).as_py()
    return len(dense), length, one["crop"], one["embedding"]


def by_datasets(uri: str, cache: Path) -> Answer:
    from datasets import load_dataset

    def rows(table: str) -> Any:
        files = f"{uri}/{table}/*.parquet"
        return load_dataset("parquet", data_files=files, cache_dir=str(cache), split="train")

    clips, captions = rows("clips"), rows("captions")
    fast = {row["clip_id"] for row in clips if row["motion"] > 5.01}
    texts = [r["text"] for r in captions if r["kind"] == "dense" and r["clip_id"] in fast]
    one = clips[700]
    return len(texts), sum(map(len, texts)), one["crop"], one["embedding"]


READERS = {
    "duckdb": by_duckdb, "polars": by_polars, "pandas": by_pandas, "pyarrow": by_pyarrow, "datasets": by_datasets,
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_the_folder_is_read_directly(uri: str, reader: Callable[[str, Path], Answer], tmp_path: Path) -> None:
    assert reader(uri, tmp_path) == EXPECTED


def rows_by_duckdb(uri: str, table: str, cache: Path) -> list[dict[str, Any]]:
    import duckdb
    import fsspec

    tables = duckdb.connect()
    if uri.startswith("s3://"):
        tables.register_filesystem(fsspec.filesystem("s3"))
    return tables.sql(f"FROM '{uri}/{FILES[table]}'").to_arrow_table().to_pylist()


def rows_by_polars(uri: str, table: str, cache: Path) -> list[dict[str, Any]]:
    import polars as pl

    return pl.scan_parquet(f"{uri}/{FILES[table]}").collect().to_dicts()


def one_place(uri: str, table: str) -> str:
    """What readers without a `*` open: the folder, or the index where tars lie beside it."""
    place = FILES[table].removesuffix("/*.parquet").replace("*", "vae-1")
    return f"{uri}/{place}"


def rows_by_pandas(uri: str, table: str, cache: Path) -> list[dict[str, Any]]:
    import numpy as np
    import pandas as pd

    def plain(cell: Any) -> Any:
        if isinstance(cell, np.ndarray):
            return [plain(inner) for inner in cell]
        return cell if isinstance(cell, dict) or not pd.isna(cell) else None

    frame = pd.read_parquet(one_place(uri, table))
    return [{name: plain(cell) for name, cell in row.items()} for row in frame.to_dict("records")]


def rows_by_pyarrow(uri: str, table: str, cache: Path) -> list[dict[str, Any]]:
    import pyarrow.dataset as ds

    return ds.dataset(one_place(uri, table)).to_table().to_pylist()


def rows_by_datasets(uri: str, table: str, cache: Path) -> list[dict[str, Any]]:
    """Hugging Face's viewer is made of it."""
    from datasets import load_dataset

    files = f"{uri}/{FILES[table]}"
    return list(load_dataset("parquet", data_files=files, cache_dir=str(cache), split="train"))


OPENED_BY = {
    "duckdb": rows_by_duckdb, "polars": rows_by_polars, "pandas": rows_by_pandas, "pyarrow": rows_by_pyarrow,
    "datasets": rows_by_datasets,
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("reader", OPENED_BY.values(), ids=OPENED_BY)
def test_every_table_is_read_with_all_its_values(
    every_table: str, reader: Callable[[str, str, Path], list[dict[str, Any]]], table: str, tmp_path: Path
) -> None:
    found = reader(every_table, table, tmp_path)
    assert [list(row) for row in found] == [TABLES[table].names] * 2
    assert found == list(two_rows(TABLES[table]))


def test_the_page_says_how_each_table_is_opened() -> None:
    page = document()
    for table, files in FILES.items():
        assert f"`{files}`, written by" in page.partition(f"## {table}\n")[2]


def test_a_scan_that_does_not_name_the_embeddings_does_not_read_them(tmp_path: Path) -> None:
    """They are a column like any other: their bytes are not touched."""
    dataset = Dataset(tmp_path)
    write_tables(dataset)
    path = tmp_path / "clips" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    found = pq.ParquetFile(path)
    place = found.schema.names.index("element")
    assert found.schema.column(place).path == "embedding.list.element"
    for group in range(found.num_row_groups):
        column = found.metadata.row_group(group).column(place)
        start = column.data_page_offset
        data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    assert len(dataset.read("clips", ["clip_id", "motion"])) == CLIP_ROWS
    with pytest.raises(OSError, match=r"[Pp]age|[Dd]eserializ"):
        dataset.read("clips", ["embedding"])
