"""What people said of clips, read from overrides/: each file once, for every word adds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from curate.dataset import conform
from curate.tables import OVERRIDES

if TYPE_CHECKING:
    from curate.dataset import Dataset


class Words:
    """The words in the files of overrides/, by clip."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._of_file: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def read(self, files: tuple[tuple[str, str], ...]) -> dict[str, list[dict[str, Any]]]:
        """clip_id -> its words, the newest last; of `files` (name, version) only those that are new are read."""
        self._of_file = {file: self._of_file.get(file) or self._rows(file[0]) for file in files}
        rows = [row for of_file in self._of_file.values() for row in of_file]
        found: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: (row["created_at"], row["override_id"])):
            found.setdefault(row["clip_id"], []).append(row)
        return found

    def _rows(self, name: str) -> list[dict[str, Any]]:
        with self._dataset.open("overrides", name) as file:
            rows: list[dict[str, Any]] = conform(pq.read_table(file), OVERRIDES).to_pylist()
        return rows
