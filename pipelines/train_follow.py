"""Follows metrics.jsonl, which another process writes.

with Followed(run / "metrics.jsonl", log):
    ...                                        # log(row) for each row that comes, in a thread
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

EVERY_S = 1.0
#: Some rows: with their timings, no other rows are the same.
TAIL_BYTES = 1 << 14


class Followed:
    """Calls `log` with each row that comes to a file of rows; those that are there already are left out.

    A run that goes back to a checkpoint writes the file again without the rows behind it. Those that stayed are not
    told again, those of steps that are made again are.
    """

    def __init__(self, path: Path, log: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._log = path, log
        # By these the rows that were told are known again, and `tail` is what stood before `end`, where to read on.
        self._told: list[int] = []
        self._end, self._tail = 0, b""
        self._new()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="metrics", daemon=True)

    def __enter__(self) -> Followed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.tell()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.tell()

    def tell(self) -> None:
        """Log what has come since the last time."""
        for line in self._new():
            self._log(json.loads(line))

    def _new(self) -> list[bytes]:
        """The whole lines that were not there the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._end - len(self._tail))
                is_same = file.read(len(self._tail)) == self._tail
                if not is_same:  # shorter now, or another file
                    file.seek(0)
                data = file.read()
        except OSError as error:  # not there yet; or the file system does not answer, and will in a while
            logger.debug("%s cannot be read: %s", self._path, error)
            return []
        before: list[int] = []
        if not is_same:
            before, self._told, self._end, self._tail = self._told, [], 0, b""
        whole = data[: data.rfind(b"\n") + 1]
        lines = [line for line in whole.split(b"\n") if line]
        marks = [hash(line) for line in lines]
        self._told += marks
        self._end += len(whole)
        self._tail = (self._tail + whole)[-TAIL_BYTES:]
        return lines[_n_alike(marks, before) :]


def _n_alike(a: list[int], b: list[int]) -> int:
    """How many values the two begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
