"""A folder of a run, on a disk or in an object store, through fsspec.

    store = Store("runs/S/checkpoints")                  # or s3://bucket/runs/S
    store.write("step-00000100/COMPLETE", b"...")        # whole or absent
    store.names()                                        # ["step-00000100"]

What is written on a disk gets its name only when its content is there; an object store does so by itself.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from safetensors.torch import save_file
from torch import Tensor

from model.errors import BadInput

_CHUNK = 1 << 24


@contextmanager
def as_os_error() -> Iterator[None]:
    """Drivers of object stores raise errors of many libraries where they cannot read or write: all become OSError."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class Store:
    """See the module. What cannot be read or written raises OSError."""

    def __init__(self, place: str) -> None:
        """Raises BadInput where the driver of its scheme is missing."""
        try:
            self._fs, self.root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"cannot open {place!r}: {error}. Give a folder, or install the driver."
            ) from error
        self.place = place.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def uri(self, path: str) -> str:
        """How others open `path`."""
        return f"{self.place}/{path}"

    def names(self, folder: str = "") -> list[str]:
        """What is in a folder, by name; nothing if it is not there."""
        self._fs.invalidate_cache()
        try:
            with as_os_error():
                return sorted(
                    posixpath.basename(path.rstrip("/"))
                    for path in self._fs.ls(self._path(folder), detail=False)
                )
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        with as_os_error():
            return bytes(self._fs.cat_file(self._path(path)))

    def fetch(self, path: str, place: Path) -> None:
        """Copy a file to this machine, whole or not at all."""
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        with as_os_error():
            self._fs.get_file(self._path(path), str(temporary))
        os.replace(temporary, place)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        with as_os_error():
            return int(self._fs.size(self._path(path)))

    def checksum(self, path: str) -> int:
        """CRC-32 of a file."""
        found = 0
        with as_os_error(), self._fs.open(self._path(path), "rb") as file:
            while chunk := file.read(_CHUNK):
                found = zlib.crc32(chunk, found)
        return found

    def write(self, path: str, data: bytes) -> None:
        """Write a small file."""
        if not self.is_local:
            with as_os_error():
                self._fs.pipe_file(self._path(path), data)
            return
        place = Path(self._path(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.tmp")
        temporary.write_bytes(data)
        _into_place(temporary, place)

    def write_tensors(
        self, path: str, tensors: dict[str, Tensor], metadata: dict[str, str]
    ) -> tuple[int, int]:
        """Write a safetensors file; returns its bytes and their CRC-32."""
        if self.is_local:
            place = Path(self._path(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.tmp")
            found = _save(temporary, tensors, metadata)
            _into_place(temporary, place)
            return found
        with tempfile.TemporaryDirectory() as folder:  # an upload in parts needs a file
            local = Path(folder, "tensors")
            found = _save(local, tensors, metadata)
            with as_os_error():
                self._fs.put_file(str(local), self._path(path))
        return found

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        self._fs.invalidate_cache()
        with as_os_error():
            if self._fs.exists(self._path(path)):
                self._fs.rm(self._path(path), recursive=True)

    def _path(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}".rstrip("/")


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[int, int]:
    try:
        save_file(tensors, path, metadata)
    except Exception as error:  # safetensors has an error of its own for a full disk
        path.unlink(missing_ok=True)
        raise OSError(f"cannot write {path.name}: {error}") from error
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return path.stat().st_size, found


def _into_place(temporary: Path, place: Path) -> None:
    """Force the content to the disk, then the name: a name must never appear before its content."""
    sync(temporary)
    os.replace(temporary, place)
    sync(place.parent)


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
