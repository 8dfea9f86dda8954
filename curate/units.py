"""Committed units of work of `curate`, and the tables made from them.

A unit is one input file. Its result is one small Parquet file in `_state/curate/`, written whole or not at
all by the worker that made it, so a killed job loses at most the files being worked on. Its name says all
that a rerun must know:

    SOURCE-UNIT-STAMP-STATUS-ATTEMPT.parquet

SOURCE is the source_id, UNIT the hash of the uri, STAMP that of the file's version and the configuration, STATUS
ok, partial, failed, or retry (failed in a way that may pass), and ATTEMPT counts the tries.

The tables are a pure function of the units: read in the order of their names, which is the order of the
tables' keys, they stream into Parquet without sorting and in bounded memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.one_writer import alone
from curate.probe import InputFile
from curate.sources import UNIT
from curate.stage import Resources
from curate.tables import CLIPS, SOURCES

FOLDER = "_state/curate"
UNREADABLE = "unreadable"  # sorts after every hex source_id, as nulls do


@dataclass(frozen=True)
class UnitName:
    """The parts of a unit's file name."""

    source: str
    unit: str
    stamp: str
    status: str
    attempt: int = 1

    @classmethod
    def parse(cls, name: str) -> UnitName:
        source, unit, stamp, status, *attempt = name.removesuffix(".parquet").split("-")
        return cls(source, unit, stamp, status, *map(int, attempt))

    def __str__(self) -> str:
        return f"{self.source}-{self.unit}-{self.stamp}-{self.status}-{self.attempt}.parquet"


def stamp_of(file: InputFile, config_hash: str) -> str:
    """16 hex digits of a file's version and the configuration that it is analysed with."""
    text = f"{file.size_bytes}\0{file.version}\0{config_hash}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def pending(
    dataset: Dataset, files: list[InputFile], config_hash: str, *, tries: int = 3, retry_failed: bool = False
) -> list[InputFile]:
    """The files without a final result for this version and configuration, with the number of this attempt.

    A failure that may pass (a deadline, a killed process, memory, the network) is tried `tries` times in all,
    one that will not only with `retry_failed`.
    """
    found: dict[tuple[str, str], list[UnitName]] = {}
    for name in map(UnitName.parse, dataset.files(FOLDER, ".parquet")):
        found.setdefault((name.unit, name.stamp), []).append(name)
    todo = []
    for file in files:
        names = found.get((file.unit, stamp_of(file, config_hash)), [])
        attempts = max((name.attempt for name in names), default=0)
        status = {name.status for name in names}
        if status & {"ok", "partial"}:
            continue
        if not retry_failed and ("failed" in status or attempts >= tries):
            continue
        todo.append(replace(file, attempt=attempts + 1))
    return todo


class CommitUnits:
    """The sink: write each analysed file as one unit; returns counts for the progress line."""

    output = pa.schema(
        [("status", pa.string()), ("clips", pa.int64()), ("uri", pa.string()), ("error", pa.string())]
    )

    def __init__(self, dataset_uri: str) -> None:
        self.dataset_uri = dataset_uri
        self.resources = Resources(cpus=0.1)

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)
        # The first conversion imports pandas; better now than when a file waits for it.
        pa.array([None])

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._commit(row) for row in rows]

    def _commit(self, row: dict) -> dict:
        source = row["source"]
        unit, stamp, *more = row["unit"].split("-")
        attempt = int(more[0]) if more else 1
        status = source["status"]
        if status == "failed" and source["failure"] == "transient":
            # Of a final result it would be history: the tables must not show that an earlier run was killed.
            source["attempts"] = attempt
            status = "retry"
        name = UnitName(source["source_id"] or UNREADABLE, unit, stamp, status, attempt)
        with self._dataset.atomic_writer(FOLDER, str(name)) as file:
            pq.write_table(pa.Table.from_pylist([row], schema=UNIT), file, compression="zstd")
        return {
            "status": source["status"],
            "clips": len(row["clips"]),
            "uri": source["uri"],
            "error": source["error"],
        }


def drop_superseded(dataset: Dataset, current: dict[str, str]) -> None:
    """Remove units whose file was analysed again: all but the stamp in `current` (unit -> stamp).

    After a retry a file may have several units of the same stamp: the good one stays, else the last try.
    """
    rank = {"ok": 0, "partial": 1, "failed": 2, "retry": 2}
    names = [UnitName.parse(name) for name in dataset.files(FOLDER, ".parquet")]
    best: dict[tuple[str, str], UnitName] = {}
    for name in sorted(names, key=lambda n: (rank[n.status], -n.attempt, str(n))):
        best.setdefault((name.unit, name.stamp), name)
    for name in names:
        stale = name.unit in current and name.stamp != current[name.unit]
        if stale or best[name.unit, name.stamp] != name:
            dataset.remove(FOLDER, str(name))


def write_tables(dataset: Dataset) -> tuple[int, int]:
    """Make sources/ and clips/ from the committed units. Returns the numbers of rows."""
    names = [UnitName.parse(name) for name in dataset.files(FOLDER, ".parquet")]
    with alone(dataset, "sources"):
        n_sources = dataset.write("sources", _sources(dataset, names))
    with alone(dataset, "clips"):
        n_clips = dataset.write("clips", _clips(dataset, names))
    return n_sources, n_clips


def _by_source(names: Iterable[UnitName]) -> Iterator[list[UnitName]]:
    """Units of the same content together: exact copies under several names."""
    group: list[UnitName] = []
    for name in sorted(names, key=str):
        if group and (name.source != group[0].source or name.source == UNREADABLE):
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _read(dataset: Dataset, group: list[UnitName], column: str) -> list[dict]:
    """Units of one content, ordered by uri; the first one's clips stand for all."""
    rows: list[dict] = []
    for name in group:
        with dataset.open(FOLDER, str(name)) as file:
            rows += pq.read_table(file, columns=sorted({"source", column})).to_pylist()
    return sorted(rows, key=lambda row: (row["source"]["status"] == "failed", row["source"]["uri"]))


def _sources(dataset: Dataset, names: list[UnitName]) -> Iterator[pa.Table]:
    unreadable = [name for name in names if name.source == UNREADABLE]
    for group in _by_source(name for name in names if name.source != UNREADABLE):
        first, *copies = [row["source"] for row in _read(dataset, group, "source")]
        rows = [first] + [copy | {"duplicate_of": first["uri"]} for copy in copies]
        yield pa.Table.from_pylist(sorted(rows, key=lambda row: row["uri"]), schema=SOURCES)
    # They have no source_id to be sorted by. Read twice, for a name is small and an error may be long.
    for name in sorted(unreadable, key=lambda name: str(_source(dataset, name)["uri"])):
        yield pa.Table.from_pylist([_source(dataset, name)], schema=SOURCES)


def _source(dataset: Dataset, name: UnitName) -> dict:
    source: dict = _read(dataset, [name], "source")[0]["source"]
    return source


def _clips(dataset: Dataset, names: list[UnitName]) -> Iterator[pa.Table]:
    for group in _by_source(names):
        first = _read(dataset, group, "clips")[0]
        yield pa.Table.from_pylist(sorted(first["clips"], key=lambda c: c["clip_id"]), schema=CLIPS)
