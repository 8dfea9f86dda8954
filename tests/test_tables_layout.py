"""How the Parquet files are laid out: compression, dictionaries, row groups, statistics, page index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate.table_files
from curate.dataset import Dataset
from curate.tables import CAPTIONS, CLIPS, TABLES

VIEWER_BYTES = 100_000_000  # Hugging Face's viewer refuses larger row groups


def clips(n: int, dims: int) -> pa.Table:
    """n clips with unit-like embeddings of `dims` floats."""
    vectors = np.random.default_rng(0).standard_normal(n * dims, np.float32)
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * dims)
    given = {
        "clip_id": [f"{i:024x}" for i in range(n)],
        "source_id": [f"{i // 100:032x}" for i in range(n)],
        "crop": [{"x": 0, "y": 8, "w": 1280, "h": 704}] * n,
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors)),
    }
    return curate.table_files.conform(pa.table(given), CLIPS)


def written(folder: Path, table: str, rows: pa.Table | list[pa.Table]) -> pq.FileMetaData:
    Dataset(folder).write(table, rows)
    return pq.read_metadata(folder / table / "part-00000.parquet")


def group_rows(found: pq.FileMetaData) -> list[int]:
    return [found.row_group(i).num_rows for i in range(found.num_row_groups)]


def test_row_groups_hold_16_000_rows_however_the_chunks_come(tmp_path: Path) -> None:
    table = clips(50_001, 1)
    chunks = [table.slice(0, 7), table.slice(7, 40_000), table.slice(40_007)]
    assert group_rows(written(tmp_path, "clips", chunks)) == [16_000, 16_000, 16_000, 2_001]
    assert Dataset(tmp_path).read("clips").equals(table)


def test_embeddings_of_1024_floats_stay_below_what_viewers_take(tmp_path: Path) -> None:
    table = clips(33_000, 1024)  # 4 KiB a row: 16,000 rows are 65.5 MB, just under 64 MiB
    found = written(tmp_path, "clips", table)
    sizes = [found.row_group(i).total_byte_size for i in range(found.num_row_groups)]
    assert max(sizes) < VIEWER_BYTES
    assert group_rows(found) == [8_000, 8_000, 8_000, 8_000, 1_000]


def test_long_captions_are_split_where_they_are_long(tmp_path: Path) -> None:
    long, short = "x" * 100_000, "y" * 10
    texts = pa.array([long] * 2_000 + [short] * 14_000)
    ids = [f"{i:024x}" for i in range(16_000)]
    rows = curate.table_files.conform(pa.table({"caption_id": ids, "clip_id": ids, "text": texts}), CAPTIONS)
    found = written(tmp_path, "captions", rows)
    assert group_rows(found) == [500, 500, 500, 500, 2_000, 4_000, 8_000]
    assert max(found.row_group(i).total_byte_size for i in range(found.num_row_groups)) < VIEWER_BYTES


def test_a_row_larger_than_a_group_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.table_files, "ROW_GROUP_BYTES", 1_000)
    assert group_rows(written(tmp_path, "clips", clips(3, 1024))) == [1, 1, 1]


def test_small_chunks_of_long_rows_are_not_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.table_files, "ROW_GROUP_BYTES", 1 << 20)
    table = clips(1_000, 1024)  # 4 KiB a row: a chunk of 150 is 600 KiB
    found = written(tmp_path, "clips", [table.slice(start, 150) for start in range(0, 1_000, 150)])
    assert group_rows(found) == [150, 150, 150, 150, 150, 150, 100]
    assert Dataset(tmp_path).read("clips").equals(table)


def test_every_column_is_zstd_with_statistics_and_page_index(tmp_path: Path) -> None:
    found = written(tmp_path, "clips", clips(20_000, 4))
    for group in range(2):
        for i in range(found.num_columns):
            column = found.row_group(group).column(i)
            assert column.compression == "ZSTD"
            assert column.has_offset_index, column.path_in_schema
            assert column.has_column_index, column.path_in_schema
    statistics = [found.row_group(group).column(0).statistics for group in range(2)]
    assert [(s.min, s.max) for s in statistics] == [
        (f"{0:024x}", f"{15_999:024x}"),
        (f"{16_000:024x}", f"{19_999:024x}"),
    ]


def test_dictionaries_are_where_values_repeat(tmp_path: Path) -> None:
    found = written(tmp_path, "clips", clips(20_000, 4)).row_group(0)
    with_dictionary = {
        found.column(i).path_in_schema
        for i in range(found.num_columns)
        if "RLE_DICTIONARY" in found.column(i).encodings
    }
    assert {"source_id", "crop.x", "crop.h", "camera", "score_errors.list.element.key"} <= with_dictionary
    assert not with_dictionary & {"clip_id", "phash", "embedding.list.element", "motion"}


def test_embeddings_are_split_by_bytes(tmp_path: Path) -> None:
    found = written(tmp_path, "clips", clips(100, 4)).row_group(0)
    split = [found.column(i) for i in range(found.num_columns)]
    assert [c.path_in_schema for c in split if "BYTE_STREAM_SPLIT" in c.encodings] == [
        "embedding.list.element"
    ]


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_has_its_schema_and_its_dictionaries_name_real_columns(
    table: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    with path.open("wb") as file:
        assert curate.table_files.write_parquet(file, TABLES[table], []) == 0
    found = pq.read_schema(path)
    assert found.equals(curate.table_files.stored(TABLES[table]))
    assert found.metadata == TABLES[table].metadata
    assert [f.metadata for f in found] == [f.metadata for f in TABLES[table]]
    leaves = {pq.ParquetFile(path).schema.column(i).path for i in range(len(pq.ParquetFile(path).schema))}
    assert set(curate.table_files._repeated(curate.table_files.stored(TABLES[table]))) <= leaves
