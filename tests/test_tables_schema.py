"""Every column says its type, unit and meaning; docs/tables.md is made from that; files of other versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate.table_versions
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.table_docs import document
from curate.tables import CAPTIONS, CLIPS, SCHEMA_VERSION, TABLES, describe, order_of, told

DOCS = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
# Numbers that name or place a thing, and so have no unit.
NO_UNIT = {
    ("clips", "index"), ("decisions", "cluster"), ("captions", "window"), ("captions", "seed"),
}  # fmt: skip


def inner(field: pa.Field) -> list[pa.Field]:
    """The fields of a struct; none of another column."""
    return list(field.type) if pa.types.is_struct(field.type) else []


def columns() -> list[tuple[str, pa.Field]]:
    """(table, field) of every column, those inside a struct too."""
    return [
        (table, f) for table, schema in TABLES.items() for column in schema for f in (column, *inner(column))
    ]


def is_number(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return is_number(kind.value_type)
    return pa.types.is_struct(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def test_every_column_has_a_description() -> None:
    assert [(t, f.name) for t, f in columns() if not (f.metadata or {}).get(b"description")] == []


def test_every_number_has_a_unit_and_nothing_else_has_one() -> None:
    with_unit = {(t, f.name) for t, f in columns() if b"unit" in f.metadata}
    assert with_unit == {(t, f.name) for t, f in columns() if is_number(f.type)} - NO_UNIT


def test_units_are_few() -> None:
    units = {f.metadata[b"unit"].decode() for _, f in columns() if b"unit" in f.metadata}
    assert units == {
        "1", "s", "ms", "px", "B", "deg", "frames", "frames/s", "%/s", "tokens", "tries", "passes", "USD",
        "latent frames", "latent px",
    }  # fmt: skip


def test_the_unit_is_that_of_the_name() -> None:
    for table, field in columns():
        for ending, unit in {"_s": "s", "_ms": "ms", "_bytes": "B", "_usd": "USD", "_deg": "deg"}.items():
            if field.name.endswith(ending):
                assert field.metadata[b"unit"].decode() == unit, (table, field.name)


@pytest.mark.parametrize("table", TABLES)
def test_key_and_order_are_columns(table: str) -> None:
    schema = TABLES[table]
    assert told(schema, "key") in schema.names
    assert order_of(schema)
    assert set(order_of(schema)) <= set(schema.names)
    assert told(schema, "row")
    assert told(schema, "table") == table


def test_the_document_is_that_of_the_schemas() -> None:
    assert DOCS.read_text() == document(), "run `python -m curate.table_docs > docs/tables.md`"


def test_the_document_names_every_column_with_its_unit() -> None:
    page = document()
    for table, schema in TABLES.items():
        section = page.split(f"## {table}\n")[1].split("\n## ")[0]
        assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == [
            name
            for field in schema
            for name in [field.name, *(f"{field.name}.{f.name}" for f in inner(field))]
        ]
    assert "| `motion` | float | %/s | median over time of mean optical flow" in page
    assert "| `crop.x` | int32 | px | left edge in the picture as displayed |" in page
    assert "| `clip_id` | string, never null |  | hex; a pure function of source_id and span |" in page


def test_a_written_file_tells_units_and_version(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write("clips", CLIPS.empty_table())
    schema = pq.read_schema(tmp_path / "clips" / "part-00000.parquet")
    assert schema.field("motion").metadata[b"unit"] == b"%/s"
    assert schema.field("crop").type.field("w").metadata == {b"description": b"width", b"unit": b"px"}
    assert describe(schema) == describe(CLIPS)
    assert schema.metadata[b"reelmill.schema_version"] == str(SCHEMA_VERSION).encode()


# Versions -----------------------------------------------------------------------------------------------


def file_of_version(dataset: Dataset, version: int, table: pa.Table) -> None:
    metadata = {"reelmill.table": "captions", "reelmill.schema_version": str(version)}
    path = Path(dataset.path("captions", "part-00000.parquet"))
    path.parent.mkdir(parents=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def first_captions() -> pa.Table:
    """Captions as version 1 wrote them at first: no parent_ids, no finish_reason."""
    rows = [
        {
            "caption_id": "a",
            "clip_id": "x",
            "parent_id": None,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
        {"caption_id": "b", "clip_id": "x", "parent_id": "a", "created_at": datetime(2026, 1, 2, tzinfo=UTC)},
    ]
    return pa.Table.from_pylist(rows, schema=CAPTIONS).drop_columns(["parent_ids", "finish_reason"])


def test_a_file_of_version_1_is_read_as_todays(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    file_of_version(dataset, 1, first_captions())
    table = dataset.read("captions")
    assert table.schema.equals(CAPTIONS, check_metadata=True)
    assert table["parent_ids"].to_pylist() == [None, ["a"]]
    assert table["finish_reason"].to_pylist() == [None, None]
    # A migrated column is made from others, which need not be asked for.
    assert dataset.read("captions", ["parent_ids"]).to_pydict() == {"parent_ids": [None, ["a"]]}


def test_parent_ids_that_are_there_are_kept(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    rows = [{"caption_id": "c", "clip_id": "x", "parent_id": "a", "parent_ids": ["a", "b"]}]
    file_of_version(dataset, 1, pa.Table.from_pylist(rows, schema=CAPTIONS))
    assert dataset.read("captions", ["parent_ids"]).to_pydict() == {"parent_ids": [["a", "b"]]}


def test_a_file_goes_through_every_version_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(tmp_path)
    file_of_version(dataset, 1, first_captions())
    seen = []

    def upper(table: pa.Table) -> pa.Table:
        seen.append(table["parent_ids"].to_pylist())
        return table.set_column(0, "caption_id", pa.array(["A", "B"]))

    monkeypatch.setattr(curate.table_versions, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(curate.table_versions.MIGRATIONS, ("captions", 2), upper)
    assert dataset.read("captions", ["caption_id"]).to_pydict() == {"caption_id": ["A", "B"]}
    assert seen == [[None, ["a"]]]


@pytest.mark.parametrize("columns", [None, ["caption_id"]])
def test_a_newer_file_is_refused_with_the_remedy(tmp_path: Path, columns: list[str] | None) -> None:
    dataset = Dataset(tmp_path)
    file_of_version(dataset, SCHEMA_VERSION + 1, first_captions())
    with pytest.raises(BadInput) as refused:
        dataset.read("captions", columns)
    assert str(refused.value) == (
        f"{tmp_path}/captions/part-00000.parquet was written by a newer Reelmill: its schema has version "
        f"{SCHEMA_VERSION + 1}, and this one reads up to {SCHEMA_VERSION}. Upgrade here (pip install --upgrade "
        "reelmill), or work on the dataset where it was written."
    )


def test_a_part_of_a_newer_run_is_refused_by_recaption(tmp_path: Path) -> None:
    from recaption.table import FOLDER, gather

    dataset = Dataset(tmp_path)
    newer = {"reelmill.table": "captions", "reelmill.schema_version": str(SCHEMA_VERSION + 1)}
    Path(dataset.path(FOLDER)).mkdir(parents=True)
    pq.write_table(first_captions().replace_schema_metadata(newer), dataset.path(FOLDER, "p.parquet"))
    with pytest.raises(BadInput, match="a file of captions was written by a newer Reelmill"):
        gather(dataset)


def test_a_file_of_another_tool_is_read_as_todays(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    (tmp_path / "captions").mkdir()
    pq.write_table(pa.table({"caption_id": ["a"], "clip_id": ["x"]}), tmp_path / "captions" / "mine.parquet")
    assert dataset.read("captions", ["caption_id", "parent_ids"]).to_pylist() == [
        {"caption_id": "a", "parent_ids": None}
    ]
