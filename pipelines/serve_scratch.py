"""The temporary files of a live view, in one folder that is gone with it, however it ended.

    sweep()                            # what servers that were killed left behind
    scratch = Scratch()
    scratch.folder("search-")          # a new folder in it
    scratch.close()

A killed server (kill -9, no memory left) cannot take its files with it: hundreds of megabytes for 100,000 clips. So
the next one does. A folder is named by the process, and the process holds a lock in it for as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path

_NAME = re.compile(r"reelmill-serve-(\d+)-\w+")
_LOCK = "in-use"


class Scratch:
    """A folder for temporary files, in TMPDIR, made when it is first asked for. Any thread may ask."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock = -1  # of the file that is locked
        self._making = threading.Lock()

    def folder(self, prefix: str) -> tempfile.TemporaryDirectory[str]:
        """A new folder, which may go before the rest does."""
        with self._making:
            if self._path is None:
                self._path = Path(tempfile.mkdtemp(prefix=f"reelmill-serve-{os.getpid()}-"))
                self._lock = os.open(self._path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        return tempfile.TemporaryDirectory(prefix=prefix, dir=self._path, ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove everything. Nobody may ask any more."""
        with self._making:
            if self._path is not None:
                shutil.rmtree(self._path, ignore_errors=True)
                os.close(self._lock)
                self._path = None


def sweep() -> list[Path]:
    """Remove the folders of this user's servers that are dead, and return them."""
    gone = []
    for path in Path(tempfile.gettempdir()).glob("reelmill-serve-*"):
        name = _NAME.fullmatch(path.name)
        if name is not None and _is_ours(path) and not _lives(int(name[1])) and _is_left(path):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path)
    return gone


def _is_ours(path: Path) -> bool:
    """A folder of this user, and no link to one."""
    try:
        return path.is_dir() and not path.is_symlink() and path.lstat().st_uid == os.getuid()
    except OSError:  # gone meanwhile
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # it is somebody else's by now, or none that there can be
        return True
    return True


def _is_left(path: Path) -> bool:
    """Nobody holds the lock: a process of another container, whose number says nothing here, would."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # it has none yet: being made
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
