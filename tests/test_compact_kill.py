"""`reelmill compact` killed before any of its changes, and readers at work meanwhile: every row is there once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from caption_parts import IDS, N_PARTS, PART_ROWS, ROWS, ids, listed, small_parts
from moto_store import moto_store

import curate.compact
import curate.parts
import curate.table_files
from curate.compact import compact
from curate.dataset import Dataset, write_parquet
from curate.errors import BadInput
from curate.tables import CAPTIONS

CHILD = Path(__file__).with_name("killed_compact.py")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with moto_store() as store:
        yield store.uri


def killed(uri: str, number: int, *more: str) -> bool:
    """Run compact until the change `number`; True if it was killed there."""
    done = subprocess.run(
        [sys.executable, str(CHILD), uri, "captions", str(number), *more],
        capture_output=True, text=True, cwd=CHILD.parents[1], check=False,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize(("way", "at_least"), [("exchange", 6), ("journal", 12)])
def test_killed_before_any_change_every_row_is_there_once(tmp_path: Path, way: str, at_least: int) -> None:
    number, files = 1, set()
    while True:
        dataset = small_parts(Dataset(tmp_path / str(number)))
        was_killed = killed(dataset.uri, number, way)
        files.add(len(dataset.files("captions")))
        assert ids(dataset) == sorted(IDS), number
        if way == "exchange":
            assert listed(dataset) == sorted(IDS), number
        if not was_killed:
            break
        if number % 2:  # a second run ends it; on the others the table is written anew after the kill
            compact(dataset, "captions")
            assert dataset.read("captions", ["caption_id"])["caption_id"].to_pylist() == IDS
        else:
            dataset.write("captions", pa.Table.from_pylist(ROWS[:5], schema=CAPTIONS))
            assert (
                dataset.read("captions").to_pylist()
                == pa.Table.from_pylist(ROWS[:5], schema=CAPTIONS).to_pylist()
            )
        assert listed(dataset) == ids(dataset)
        assert not [p for p in (tmp_path / str(number) / "_state" / "parts").rglob("*") if p.is_file()]
        number += 1
    assert number > at_least
    assert files == {N_PARTS, 1}


@pytest.mark.slow
def test_killed_on_an_object_store_every_row_is_there_once(bucket: str) -> None:
    number, files = 1, set()
    while True:
        dataset = small_parts(Dataset(f"{bucket}/killed-{number}"))
        was_killed = killed(dataset.uri, number)
        files.add(len(dataset.files("captions")))
        assert ids(dataset) == sorted(IDS), number
        if not was_killed:
            break
        compact(dataset, "captions")
        assert ids(dataset) == sorted(IDS), number
        dataset.fs.invalidate_cache()
        there = [path for path in dataset.fs.find(dataset.path()) if path.endswith((".parquet", ".json"))]
        assert len(there) == 1, there
        number += 1
    assert number > 6
    assert files == {N_PARTS, 1}


@pytest.mark.parametrize("way", ["exchange", "journal"])
def test_readers_see_every_row_once_while_files_are_merged(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "journal":
        monkeypatch.setattr(curate.parts, "_exchange", lambda one, other: False)
    dataset = small_parts(Dataset(tmp_path))
    seen: list[list[str]] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.append(ids(dataset))

    pool = ThreadPoolExecutor(1)
    reading = pool.submit(read)
    for _ in range(40):
        table = dataset.read("captions")
        compact(dataset, "captions")
        for part in range(N_PARTS):  # many files again, none of them seen before all are there
            half = table.slice(part * PART_ROWS, PART_ROWS)
            with dataset.atomic_writer(
                curate.parts.staging("captions"), f"{len(seen)}-{part}-{_}.parquet"
            ) as file:
                write_parquet(file, CAPTIONS, [half])
        curate.parts.swap(dataset, "captions", curate.parts.versions(dataset, "captions"))
    ended.set()
    reading.result()  # raises what reading raised
    assert len(seen) > 5
    assert all(found == sorted(IDS) for found in seen)


def test_files_that_appear_while_the_folder_is_listed_are_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_parts(Dataset(tmp_path))
    listed, names = Dataset._listed, dataset.files("captions")

    def list_late(self: Dataset, folder: str, suffix: str) -> list[str]:
        if folder == "captions" and not (tmp_path / "captions" / "new.parquet").exists():
            curate.parts._journal(dataset, "captions", hidden=["new.parquet"])
            shutil.copy(tmp_path / "captions" / names[0], tmp_path / "captions" / "new.parquet")
        return listed(self, folder, suffix)

    monkeypatch.setattr(Dataset, "_listed", list_late)
    assert dataset.files("captions") == names


def test_a_folder_that_is_exchanged_while_it_is_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_parts(Dataset(tmp_path))
    names, listed, times = dataset.files("captions"), Dataset._listed, []

    def list_in_between(self: Dataset, folder: str, suffix: str) -> list[str]:
        times.append(folder)
        return listed(self, folder, suffix) if len(times) > 1 else []

    monkeypatch.setattr(Dataset, "_listed", list_in_between)
    assert dataset.files("captions") == names


def test_a_table_that_is_replaced_meanwhile_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_parts(Dataset(tmp_path))
    write = curate.compact._write

    def write_late(*args: Any) -> list[str]:
        names = write(*args)
        with dataset.atomic_writer("captions", "part-00000.parquet") as file:
            write_parquet(file, CAPTIONS, [pa.Table.from_pylist(ROWS[:2], schema=CAPTIONS)])
        return names

    monkeypatch.setattr(curate.compact, "_write", write_late)
    with pytest.raises(BadInput, match="the captions table was replaced while its files were merged"):
        compact(dataset, "captions")
    assert len(dataset.files("captions")) == N_PARTS
    assert not list((tmp_path / "_state").rglob("*.parquet"))


def test_a_table_that_is_written_anew_meanwhile_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one of us that did not wait: `Dataset.write` clears what `compact` had staged."""
    dataset = small_parts(Dataset(tmp_path))
    write = curate.compact._write

    def write_late(*args: Any) -> list[str]:
        names = write(*args)
        dataset.write("captions", pa.Table.from_pylist(ROWS[:2], schema=CAPTIONS))
        return names

    monkeypatch.setattr(curate.compact, "_write", write_late)
    with pytest.raises(BadInput, match="the captions table was replaced while its files were merged"):
        compact(dataset, "captions")
    assert ids(dataset) == sorted(row["caption_id"] for row in ROWS[:2])


def test_what_is_no_longer_staged_replaces_nothing(tmp_path: Path) -> None:
    dataset = small_parts(Dataset(tmp_path))
    with pytest.raises(curate.parts.TableReplaced):
        curate.parts.swap(dataset, "captions", curate.parts.versions(dataset, "captions"))
    assert len(dataset.files("captions")) == N_PARTS
