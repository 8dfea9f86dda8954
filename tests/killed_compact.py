"""`compact` in a process that kills itself (SIGKILL) before the N-th change that it makes to the dataset's files.

    python killed_compact.py URI TABLE N [journal]

With "journal" the file system has no exchange of folders. Exits 0 if `compact` made fewer changes than N.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import curate.parts
from curate.compact import compact
from curate.dataset import Dataset

changes = 0


def counted(function: Callable[..., Any], last: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global changes
        changes += 1
        if changes == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


def main(uri: str, table: str, last: int, *, journal: bool) -> None:
    dataset = Dataset(uri)
    # Every call through which compact changes anything; a folder's removal goes file by file.
    dataset.atomic_writer = counted(dataset.atomic_writer, last)  # type: ignore[method-assign]
    dataset.fs.cp_file = counted(dataset.fs.cp_file, last)
    if dataset.is_local:
        os.replace = counted(os.replace, last)
        os.unlink = counted(os.unlink, last)
        os.rmdir = counted(os.rmdir, last)
        os.remove = counted(os.remove, last)
    else:
        dataset.fs._rm_file = counted(dataset.fs._rm_file, last)
        dataset.fs._bulk_delete = counted(dataset.fs._bulk_delete, last)
    curate.parts._exchange = (lambda one, other: False) if journal else counted(curate.parts._exchange, last)
    compact(dataset, table)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), journal="journal" in sys.argv[4:])
