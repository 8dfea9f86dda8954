"""Committed units of work of `curate`, and the tables made from them.

A unit is one input file. Its result is one small Parquet file in `_state/curate/`, written whole or not at
all by the worker that made it, so a killed job loses at most the files being worked on. Its name says all
that a rerun must know:

    SOURCE-UNIT-STAMP-STATUS.parquet      source_id, hash of the uri, hash of version and config, ok|partial|failed

The tables are a pure function of the units: read in the order of their names, which is the order of the
tables' keys, they stream into Parquet without sorting and in bounded memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
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

    @classmethod
    def parse(cls, name: str) -> UnitName:
        return cls(*name.removesuffix(".parquet").split("-"))

    def __str__(self) -> str:
        return f"{self.source}-{self.unit}-{self.stamp}-{self.status}.parquet"


def stamp_of(file: InputFile, config_hash: str) -> str:
    """16 hex digits of a file's version and the configuration that it is analysed with."""
    text = f"{file.size_bytes}\0{file.version}\0{config_hash}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def pending(
    dataset: Dataset, files: list[InputFile], config_hash: str, *, retry_failed: bool = False
) -> list[InputFile]:
    """The files without a committed result for this version and configuration."""
    names = [UnitName.parse(name) for name in dataset.files(FOLDER, ".parquet")]
    done = {(n.unit, n.stamp) for n in names if not (retry_failed and n.status == "failed")}
    return [file for file in files if (file.unit, stamp_of(file, config_hash)) not in done]


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

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._commit(row) for row in rows]

    def _commit(self, row: dict) -> dict:
        source = row["source"]
        unit, stamp = row["unit"].split("-")
        name = UnitName(source["source_id"] or UNREADABLE, unit, stamp, source["status"])
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

    After a retry a file may have a failed and a good unit of the same stamp: the better one stays.
    """
    rank = {"ok": 0, "partial": 1, "failed": 2}
    names = [UnitName.parse(name) for name in dataset.files(FOLDER, ".parquet")]
    best: dict[tuple[str, str], UnitName] = {}
    for name in sorted(names, key=lambda n: (rank[n.status], str(n))):
        best.setdefault((name.unit, name.stamp), name)
    for name in names:
        stale = name.unit in current and name.stamp != current[name.unit]
        if stale or best[name.unit, name.stamp] != name:
            dataset.remove(FOLDER, str(name))


def write_tables(dataset: Dataset) -> tuple[int, int]:
    """Make sources/ and clips/ from the committed units. Returns the numbers of rows."""
    names = [UnitName.parse(name) for name in dataset.files(FOLDER, ".parquet")]
    n_sources = dataset.write("sources", _sources(dataset, names))
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
    for group in _by_source(names):
        first, *copies = [row["source"] for row in _read(dataset, group, "source")]
        rows = [first] + [copy | {"duplicate_of": first["uri"]} for copy in copies]
        yield pa.Table.from_pylist(sorted(rows, key=lambda row: row["uri"]), schema=SOURCES)


def _clips(dataset: Dataset, names: list[UnitName]) -> Iterator[pa.Table]:
    for group in _by_source(names):
        first = _read(dataset, group, "clips")[0]
        yield pa.Table.from_pylist(sorted(first["clips"], key=lambda c: c["clip_id"]), schema=CLIPS)
