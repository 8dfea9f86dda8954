"""`reelmill compact`: the same rows in fewer files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_parts import IDS, N_PARTS, PART_ROWS, ROWS, caption, ids, small_parts

import curate.compact
import curate.parts
import curate.table_files
from curate.compact import compact
from curate.dataset import Dataset, conform, write_parquet
from curate.tables import CAPTIONS, CLIPS, SCHEMA_VERSION
from pipelines.compact import main


@pytest.fixture(params=["exchange", "journal"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "journal":
        monkeypatch.setattr(curate.parts, "_exchange", lambda one, other: False)
    return str(request.param)


def test_the_same_rows_in_one_sorted_file(tmp_path: Path, way: str) -> None:
    dataset = small_parts(Dataset(tmp_path))
    before = dataset.read("captions")
    done = compact(dataset, "captions")
    assert done is not None
    assert (done.rows, done.files) == (N_PARTS * PART_ROWS, (N_PARTS, 1))
    after = dataset.read("captions")
    assert after["caption_id"].to_pylist() == IDS
    assert after.equals(
        before.sort_by([("clip_id", "ascending"), ("kind", "ascending"), ("caption_id", "ascending")])
    )
    assert dataset.notes("captions")["made"] == "in parts"
    assert len(dataset.files("captions")) == len(os.listdir(tmp_path / "captions")) == 1
    assert [p.name for p in tmp_path.rglob("*.parquet")] == dataset.files("captions")
    assert done.size_bytes[1] == sum(p.stat().st_size for p in tmp_path.rglob("*.parquet"))


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    dataset = small_parts(Dataset(tmp_path))
    compact(dataset, "captions")
    names = dataset.files("captions")
    assert compact(dataset, "captions") is None
    assert dataset.files("captions") == names


def test_rows_that_are_alike_stay_as_many(tmp_path: Path) -> None:
    """Merging is no deduplication; and a map may hold a key twice."""
    dataset = Dataset(tmp_path)
    row = {
        "clip_id": "a",
        "source_id": "s",
        "score_errors": [("nsfw", "x"), ("nsfw", "y")],
        "embedding": [1.0, None],
    }
    for name in ("one", "two"):
        with dataset.atomic_writer("clips", f"{name}.parquet") as file:
            write_parquet(
                file, CLIPS, [pa.Table.from_pylist([row, row | {"score_errors": None}], schema=CLIPS)]
            )
    compact(dataset, "clips")
    found = dataset.read("clips", ["clip_id", "score_errors", "embedding"]).to_pylist()
    errors = [[("nsfw", "x"), ("nsfw", "y")], None] * 2
    assert sorted(map(str, (r["score_errors"] for r in found))) == sorted(map(str, errors))
    assert {str(r["embedding"]) for r in found} == {"[1.0, None]"}


def test_null_keys_come_last(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for number, source in enumerate([None, "b", "a"]):
        with dataset.atomic_writer("sources", f"{number}.parquet") as file:
            row = {"source_id": source, "uri": f"u{number}"}
            write_parquet(file, curate.compact.TABLES["sources"], [pa.Table.from_pylist([row])])
    compact(dataset, "sources")
    assert dataset.read("sources", ["uri"])["uri"].to_pylist() == ["u2", "u1", "u0"]


def test_large_tables_become_files_of_the_usual_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.compact, "SMALLEST", 128 << 10)  # a thousandth of the real bounds
    monkeypatch.setattr(curate.compact, "USUAL", 256 << 10)
    monkeypatch.setattr(curate.compact, "LARGEST", 512 << 10)
    monkeypatch.setattr(curate.table_files, "ROW_GROUP_ROWS", 500)
    numbers = np.random.default_rng(0)
    dataset = Dataset(tmp_path)
    for part in range(12):
        ids = [f"{i:024x}" for i in range(part, 24_000, 12)]
        noise = [numbers.bytes(40).hex() for _ in ids]
        table = conform(pa.table({"caption_id": ids, "clip_id": ids, "text": noise}), CAPTIONS)
        with dataset.atomic_writer("captions", f"{part}.parquet") as file:
            write_parquet(file, CAPTIONS, [table])
    done = compact(dataset, "captions")
    assert done is not None
    sizes = [(tmp_path / "captions" / name).stat().st_size >> 10 for name in dataset.files("captions")]
    assert len(sizes) == done.files[1] > 2
    assert all(128 <= size <= 512 for size in sizes), sizes
    assert dataset.read("captions", ["clip_id"])["clip_id"].to_pylist() == [
        f"{i:024x}" for i in range(24_000)
    ]
    assert compact(dataset, "captions") is None


def test_a_file_of_an_older_version_is_written_anew(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    old = pa.Table.from_pylist([caption(1) | {"parent_id": "p"}], schema=CAPTIONS).drop_columns(
        ["parent_ids"]
    )
    (tmp_path / "captions").mkdir()
    told = {"reelmill.table": "captions", "reelmill.schema_version": "1"}
    pq.write_table(old.replace_schema_metadata(told), tmp_path / "captions" / "part-00000.parquet")
    assert compact(dataset, "captions") is not None
    (path,) = (tmp_path / "captions").iterdir()
    assert pq.read_table(path, columns=["parent_ids"]).to_pydict() == {"parent_ids": [["p"]]}
    assert pq.read_schema(path).metadata[b"reelmill.schema_version"] == str(SCHEMA_VERSION).encode()


def test_what_else_lies_in_the_folder_stays(tmp_path: Path) -> None:
    dataset = small_parts(Dataset(tmp_path))
    (tmp_path / "captions" / "README").write_text("ours")
    compact(dataset, "captions")
    assert sorted(os.listdir(tmp_path / "captions")) == ["README", *dataset.files("captions", ".parquet")]
    assert ids(dataset) == sorted(IDS)


def test_a_table_of_several_files_is_written_as_one(tmp_path: Path, way: str) -> None:
    dataset = small_parts(Dataset(tmp_path))
    assert dataset.write("captions", pa.Table.from_pylist(ROWS[:7], schema=CAPTIONS), {"new": "note"}) == 7
    assert len(os.listdir(tmp_path / "captions")) == 1
    assert dataset.read("captions", ["caption_id"])["caption_id"].to_pylist() == IDS[:7]
    assert dataset.notes("captions")["new"] == "note"


# The command ----------------------------------------------------------------------------------------------


def test_the_command_merges_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_parts(Dataset(tmp_path))
    dataset.write("clips", CLIPS.empty_table())
    assert main(["--dataset", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "clips     nothing to merge"
    assert lines[1].startswith("captions  3 files -> 1, ")
    assert lines[1].endswith("MB, 120 rows")
    assert not list((tmp_path / "_state" / "locks").iterdir())


def test_the_command_waits_for_who_writes_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.one_writer import alone

    dataset = small_parts(Dataset(tmp_path))
    merging = threading.Thread(target=main, args=(["--dataset", str(tmp_path), "--table=captions"],))
    with alone(dataset, "captions"):
        merging.start()
        merging.join(1.0)
        assert len(dataset.files("captions")) == N_PARTS
    merging.join(30)
    assert len(dataset.files("captions")) == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--table=shards"],
            "there is nothing to merge in a table 'shards'; tables of many files are sources, clips",
        ),
        (["--table=captions"], "has no captions table. Run `reelmill recaption"),
        ([], "has no sources table. Run `reelmill curate"),
    ],
)
def test_what_cannot_be_merged_is_told(
    tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(tmp_path), *flags]) == 2
    assert told in capsys.readouterr().err
