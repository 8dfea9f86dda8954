"""The Parquet files of a dataset as DuckDB may see them: to be read, and nothing else beside them.

    connection.register_filesystem(ReadOnlyFiles(dataset, {"clips/part-00000.parquet"}))
    connection.sql("FROM 'dataset://clips/part-00000.parquet'")

SQL cannot change a file through it, whatever the statement: what is not opened for reading is refused.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from fsspec import AbstractFileSystem

from curate.dataset import Dataset

PROTOCOL = "dataset"


class _Positions(ABC):
    """A file that many threads read at once, each at its own position.

    DuckDB's threads share a file, and seek and read in two steps: with one position they would get each other's bytes.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def seek(self, offset: int) -> int:
        self._of_thread.at = offset
        return offset

    def read(self, count: int) -> bytes:
        start = getattr(self._of_thread, "at", 0)
        data = self.read_at(start, count)
        self._of_thread.at = start + len(data)
        return data

    @abstractmethod
    def read_at(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start` on."""

    def close(self) -> None:  # noqa: B027 - only what is open must be closed
        pass


class _Local(_Positions):
    def __init__(self, path: str) -> None:
        super().__init__()
        # Kept open: a table that is replaced while a query runs is read to its end as it was.
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def read_at(self, start: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, start)

    def close(self) -> None:
        self._file.close()


class _Remote(_Positions):
    def __init__(self, dataset: Dataset, name: str) -> None:
        super().__init__()
        self._dataset, self._name = dataset, name

    def read_at(self, start: int, count: int) -> bytes:
        return self._dataset.read_bytes(self._name, start=start, end=start + count)


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]
    """Members of `dataset`, named as dataset://TABLE/FILE. DuckDB calls these methods, from its threads."""

    protocol = PROTOCOL
    cachable = False  # fsspec would give the files of one dataset to the next

    def __init__(self, dataset: Dataset, names: Collection[str]) -> None:
        super().__init__()
        self._dataset = dataset
        self._names = frozenset(names)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise PermissionError("SQL only reads a dataset; write an answer to a file with --out.")
        name = self._name(path)
        return _Local(self._dataset.path(name)) if self._dataset.is_local else _Remote(self._dataset, name)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return dict(self._dataset.fs.info(self._dataset.path(self._name(path))))

    def modified(self, path: str) -> Any:
        return self._dataset.fs.modified(self._dataset.path(self._name(path)))

    def glob(self, path: str, **options: Any) -> list[str]:
        return [path] if self.exists(path) else []

    def exists(self, path: str, **options: Any) -> bool:
        return self._strip_protocol(path) in self._names

    def isfile(self, path: str) -> bool:
        return self.exists(path)

    def isdir(self, path: str) -> bool:
        return False

    def _name(self, path: str) -> str:
        if not self.exists(path):
            raise FileNotFoundError(f"{path} is no table of the dataset.")
        return str(self._strip_protocol(path))
