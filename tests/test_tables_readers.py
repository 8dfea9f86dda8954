"""Five readers open the tables' folders directly, on disk and on S3, without a line of ours."""

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
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dataset with both tables; for s3 the environment says where the store is, as an analyst's would."""
    if request.param == "disk":
        found = str(tmp_path_factory.mktemp("tables"))
        write_tables(Dataset(found))
        yield found
        return
    with moto_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        write_tables(Dataset(f"{store.uri}/films"))
        yield f"{store.uri}/films"


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


@pytest.mark.parametrize("table", TABLES)
def test_datasets_knows_every_type_of_the_tables(table: str, tmp_path: Path) -> None:
    """Hugging Face's viewer is made of it."""
    from datasets import load_dataset

    schema = TABLES[table]
    values = {"keep": True, "created_at": datetime(2026, 11, 22, tzinfo=UTC)}
    row = {f.name: None if f.nullable else values.get(f.name, "a") for f in schema}
    with (tmp_path / "t.parquet").open("wb") as file:
        write_parquet(file, schema, [pa.Table.from_pylist([row], schema=schema)])
    found = load_dataset(
        "parquet", data_files=str(tmp_path / "*.parquet"), cache_dir=str(tmp_path), split="train"
    )
    assert found.column_names == schema.names
    assert found[0] == row


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
