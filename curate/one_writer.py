"""One writer at a time: a lock that is a small file of the dataset, on disk or on an object store.

    with alone(dataset, "captions"):
        ...                              # no other process that asks for this name is in here

The file appears by a write that fails if it is there already (O_EXCL; If-None-Match on S3) and changes every few
seconds while its owner lives. One that stays the same for a minute belongs to a process that was killed: whoever waits
removes it, and on the same machine at once. Nobody's clock is compared with another's. Hold it for a write, not for
work that takes long.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from curate.dataset import Dataset

log = logging.getLogger(__name__)

FOLDER = ("_state", "locks")
LOOK_S = 0.1
BEAT_S = 5.0
DEAD_S = 60.0


@contextmanager
def alone(dataset: Dataset, name: str) -> Iterator[None]:
    """Wait until no other process holds `name`, then hold it until the block ends."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
    _wait(dataset, name, owner)
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(dataset, name, owner, done), daemon=True)
    beats.start()
    try:
        yield
    finally:
        done.set()
        beats.join()
        if _owner(_read(dataset, name)) == owner:
            _remove(dataset, name)


def _wait(dataset: Dataset, name: str, owner: str) -> None:
    seen, since = None, time.monotonic()
    told = False
    while not _create(dataset, name, owner):
        there = _read(dataset, name)
        if there != seen:
            seen, since = there, time.monotonic()
        if there is not None and (_has_ended(there) or time.monotonic() - since > DEAD_S):
            log.warning(
                "the lock %s of %s is left over from a run that ended: it is removed", name, _owner(there)
            )
            _remove(dataset, name)
            if not _create(dataset, name, owner):
                continue
            time.sleep(2 * LOOK_S)  # another may have waited as long and remove ours in place of the old one
            if _owner(_read(dataset, name)) == owner:
                return
        if not told and there is not None:
            log.info("waiting for %r, which writes the %s table", _owner(there), name)
            told = True
        time.sleep(LOOK_S)


def _beat(dataset: Dataset, name: str, owner: str, done: threading.Event) -> None:
    number = 0
    while not done.wait(BEAT_S):
        number += 1
        with suppress(OSError):  # a beat may fail; a minute of them is what counts
            if _owner(_read(dataset, name)) == owner:
                dataset.write_bytes(_content(owner, number), *FOLDER, name)


def _create(dataset: Dataset, name: str, owner: str) -> bool:
    path = dataset.path(*FOLDER, name)
    try:
        if dataset.is_local:  # fsspec's own way looks first and writes then
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(_content(owner))
        else:
            dataset.fs.pipe_file(path, _content(owner), mode="create")
    except FileExistsError:
        return False
    return True


def _read(dataset: Dataset, name: str) -> bytes | None:
    try:
        return dataset.read_bytes(*FOLDER, name)
    except FileNotFoundError:
        return None


def _remove(dataset: Dataset, name: str) -> None:
    with suppress(FileNotFoundError):
        dataset.fs.rm_file(dataset.path(*FOLDER, name))


def _content(owner: str, beat: int = 0) -> bytes:
    return json.dumps({"owner": owner, "beat": beat, "pid": os.getpid(), "machine": _machine()}).encode()


def _owner(content: bytes | None) -> str | None:
    try:
        return str(json.loads(content or b"")["owner"])
    except (ValueError, KeyError, TypeError):  # just made, not yet written
        return None


def _has_ended(content: bytes) -> bool:
    """Whether the owner is known to live no more, which only its own machine can tell."""
    try:
        told = json.loads(content)
        pid, machine = told["pid"], told["machine"]
        if machine is None or machine != _machine() or not isinstance(pid, int) or pid <= 0:
            return False
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError, OverflowError):
        return False
    return False


@cache
def _machine() -> str | None:
    """One start of one kernel, and those of its processes that are seen from here: numbers of processes are theirs."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
