"""metrics.jsonl: one JSON object per line, appended while a run goes on.

{"step": 120, "loss": 0.83, "grad_norm": 0.4, "lr": 0.001, "tokens_per_s": 21000.0, ...}
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Metrics:
    """Appends rows to a file; a resumed run first drops the rows behind the step it resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._unwritten: list[str] = []
        self._open(step)

    def _open(self, step: int) -> None:
        rewrite(self._path, [line for line in whole_lines(self._path) if json.loads(line)["step"] <= step])
        self._file = self._path.open("ab", buffering=0)

    def forget(self, step: int) -> None:
        """Drop the rows behind a step: the run went back to it."""
        self._file.close()
        self._open(step)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, at once visible to readers. Null stands for what is not finite, which JSON lacks."""
        self._unwritten.append(json.dumps(row, allow_nan=False) + "\n")
        data, end = "".join(self._unwritten).encode(), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) < len(data):
                raise OSError("no space left on the disk")
            self._unwritten.clear()
        except OSError as error:  # the rows wait for the next one; no half of one stays
            self._file.truncate(end)
            logger.error("%s cannot be written: %s", self._path, error)

    def close(self) -> None:
        self._file.close()


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that are whole: a killed run, or a full disk, may have left half a one."""
    if not path.is_file():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if _is_whole(line)]


def _is_whole(line: str) -> bool:
    try:
        return "step" in json.loads(line)
    except (ValueError, TypeError):
        return False


def rewrite(path: Path, lines: list[str]) -> None:
    """Replace a file by these lines, in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in lines))
    os.replace(temporary, path)
