"""The files of a table replaced as one: whoever reads sees every row once, at any moment and after any kill.

    old = versions(dataset, "captions")
    ...                                        # write the new files into staging("captions")
    swap(dataset, "captions", old)             # they take the place of the old ones
    recover(dataset, "captions")               # ends or undoes what a killed swap left

On Linux's own file systems the folder of new files is exchanged with the table's in one step (renameat2), for our
readers and everybody else's. Where that does not exist (object stores, some network disks) a journal makes it one
step for ours: `Dataset.files` leaves out the new files until the journal says that they stand, and the old ones from
then on. A reader that only lists the folder sees rows twice there from the first copy inside the store to the last
removal: seconds, as the new files are written elsewhere before.

Who calls must keep other writers of the table away (`curate.one_writer.alone`), as all our commands do.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.dataset import Dataset

FOLDER = "_state/parts"
TABLES_OF_FILES = ("sources", "clips", "decisions", "overrides", "captions")  # the others are one index each
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


class TableReplaced(Exception):
    """Somebody replaced the table since it was read; nothing was changed."""


def staging(table: str) -> str:
    """Where the new files are written; nobody reads them there."""
    return f"{FOLDER}/{table}"


def versions(dataset: Dataset, table: str) -> dict[str, str]:
    """File name -> what changes whenever the file is replaced (inode and time, or ETag)."""
    names = dataset.files(table, ".parquet")
    return {name: str(dataset.fs.ukey(dataset.path(table, name))) for name in names}


def swap(dataset: Dataset, table: str, old: dict[str, str]) -> None:
    """Put the staged files in the place of `old`. Raises TableReplaced if the table is no longer those files.

    The names of staged files must be new ones: a reader that listed the folder before must not find others' rows.
    """
    new = dataset.files(staging(table), ".parquet")
    if versions(dataset, table) != old or not new:  # or another writer cleared what was staged
        raise TableReplaced
    if _can_exchange(dataset, table, old) and _exchange(dataset.path(staging(table)), dataset.path(table)):
        dataset.remove(staging(table))  # the old files, by now
        return
    _journal(dataset, table, hidden=new)
    for name in new:
        _copy(dataset, dataset.path(staging(table), name), dataset.path(table, name))
    _journal(dataset, table, hidden=sorted(old))
    recover(dataset, table)


def recover(dataset: Dataset, table: str) -> None:
    """Remove the files that the journal hides, then the journal and what is staged: one state is left."""
    for name in sorted(hidden(dataset, table)):
        dataset.remove(table, name)
    dataset.remove(_journal_name(table))
    dataset.remove(staging(table))


def hidden(dataset: Dataset, table: str) -> frozenset[str]:
    """Names of files in the table's folder that are not, or no longer, part of the table."""
    try:
        return frozenset(json.loads(dataset.read_bytes(_journal_name(table)))["hidden"])
    except FileNotFoundError:
        return frozenset()


def _journal_name(table: str) -> str:
    return f"{FOLDER}/{table}.json"


def _journal(dataset: Dataset, table: str, *, hidden: list[str]) -> None:
    dataset.write_bytes(json.dumps({"hidden": hidden}).encode(), *_journal_name(table).split("/"))


def _copy(dataset: Dataset, source: str, target: str) -> None:
    if dataset.is_local:
        os.replace(source, target)
    else:
        dataset.fs.cp_file(source, target)  # inside the store


def _can_exchange(dataset: Dataset, table: str, old: dict[str, str]) -> bool:
    """True for a real folder that holds the table's files and nothing that would go with them."""
    folder = dataset.path(table)
    return dataset.is_local and not os.path.islink(folder) and set(os.listdir(folder)) == set(old)


def _exchange(one: str, other: str) -> bool:
    """Swap two folders in one step; False, and nothing is changed, where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in _NO_EXCHANGE:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one)
