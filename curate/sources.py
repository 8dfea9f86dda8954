"""The unit of work of `curate`: one input file in, its source row and clip rows out, whatever the file is."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec
import pyarrow as pa

from curate.analysis import Analysis, AnalysisConfig, joined
from curate.dataset import config_hash
from curate.errors import BadInput
from curate.isolate import ChildDied, ChildFailed, Isolated
from curate.probe import SidecarCaptions, content_hash
from curate.stage import Resources
from curate.tables import CLIPS, SOURCES

# unit: names the file and, after a dash, its version and configuration (curate.units).
UNIT_INPUT = pa.schema([("unit", pa.string()), ("uri", pa.string()), ("size_bytes", pa.int64())])
UNIT = pa.schema(
    [("unit", pa.string()), ("source", pa.struct(list(SOURCES))), ("clips", pa.list_(pa.struct(list(CLIPS))))]
)
T = TypeVar("T")
ANALYSED = UNIT.append(pa.field("keyframes", pa.list_(pa.list_(pa.binary()))))


@dataclass(frozen=True)
class SourceConfig:
    """How a source is read and measured.

    Attributes:
        analysis: what is measured.
        deadline_factor: seconds that decoding may take per second of footage.
        deadline_base_s: seconds that any file may take besides.
        memory_gib: memory that the decoding process may hold; above it is killed.
        recycle: calls after which a fresh decoding process takes over, for decoders leak; a file takes two.
        tries: runs that try a file whose failure may pass (deadline, memory, killed, network), in all.
    """

    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    deadline_factor: float = 4.0
    deadline_base_s: float = 60.0
    memory_gib: float = 8.0
    recycle: int = 200
    tries: int = 3


# Seconds to wait before a remote store is asked again.
BACK_OFF_S = (0.5, 3.0)
_WILL_NOT_PASS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def patiently(read: Callable[[], T]) -> T:
    """The result of `read`, a call to a store, which is repeated after a failure that may pass."""
    for wait_s in BACK_OFF_S:
        try:
            return read()
        except (BadInput, *_WILL_NOT_PASS):
            raise
        except Exception:  # every driver of a store has errors of its own
            time.sleep(wait_s)
    try:
        return read()
    except (BadInput, OSError):
        raise
    except Exception as error:
        raise OSError(f"the store failed {len(BACK_OFF_S) + 1} times: {error}") from error


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local path of the file at `uri`; remote files are fetched to a temporary one.

    Raises BadInput for what is no regular file: reading a pipe or a device would never end.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        if not os.path.lexists(path) and "\\udc" in path:
            raise BadInput("the file's name is not UTF-8, so that no table can hold it; rename the file")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput("not a regular file: a folder, pipe, socket or device has the name of a video")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        # Its own name may be longer than this file system allows.
        local = os.path.join(folder, "source" + os.path.splitext(path)[1][:8])
        patiently(lambda: fs.get_file(path, local))
        yield local


def is_transient(error: BaseException) -> bool:
    """Whether trying the same file again may end otherwise: a deadline, a killed process, memory, I/O."""
    if isinstance(error, BadInput) or (isinstance(error, OSError) and error.errno == errno.ELOOP):
        return False
    passing = ChildFailed | MemoryError | OSError
    return isinstance(error, passing) and not isinstance(error, (FileNotFoundError, NotADirectoryError))


class AnalyseSources:
    """Probe, split and measure each input file in one decode, in a process that can be killed."""

    output = ANALYSED

    def __init__(self, config: SourceConfig, resources: Resources | None = None) -> None:
        self.config = config
        self.hash = config_hash(config.analysis.recipe())
        self.resources = resources or Resources(cpus=config.analysis.threads or 1)

    def setup(self) -> None:
        self._child = Isolated(
            memory_gib=self.config.memory_gib,
            recycle=self.config.recycle,
            threads=self.config.analysis.threads or 1,
        )
        self._child.tell("curate.analysis:prepare", self.config.analysis)
        self._sidecars = SidecarCaptions()

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._analyse(row) for row in rows]

    def _analyse(self, row: dict) -> dict:
        source: dict[str, Any] = dict.fromkeys(SOURCES.names)
        source |= {"uri": row["uri"], "size_bytes": row["size_bytes"], "config_hash": self.hash}
        result: dict[str, Any] = {"unit": row["unit"], "source": source, "clips": [], "keyframes": []}
        try:
            source["caption"] = patiently(lambda: self._sidecars.caption(row["uri"]))
            with local_copy(row["uri"]) as path:
                analysis = self._read(path, source)
        except Exception as error:  # whatever it is, it costs this file only and stands in its row
            source |= {"status": "failed", "error": _text(error)}
            source["failure"] = "transient" if is_transient(error) else "permanent"
            return result
        source |= analysis.facts
        if not analysis.clips:
            reason = analysis.error or "no frame could be decoded"
            source |= {"status": "failed", "error": reason, "failure": "permanent"}
            return result
        source |= {"status": "partial" if analysis.error else "ok", "error": analysis.error}
        clips = [
            clip | {"score_errors": list(clip["score_errors"].items()), "config_hash": self.hash}
            for clip in analysis.clips
        ]
        return result | {"clips": clips, "keyframes": analysis.keyframes}

    def _read(self, path: str, source: dict[str, Any]) -> Analysis:
        """Hash, probe and analyse a local file; what is known of it goes into `source` as it is found."""
        before = os.stat(path)
        source["size_bytes"] = before.st_size
        source["source_id"] = content_hash(path)
        (probed,) = self._in_child("curate.probe:probe", path, deadline_s=self.config.deadline_base_s)
        plausible_s = probed.pop("plausible_duration_s")
        source |= probed
        parts = self._in_child(
            "curate.analysis:analyse_in_parts",
            path,
            source["source_id"],
            self.config.analysis,
            deadline_s=self.config.deadline_base_s + self.config.deadline_factor * plausible_s,
        )
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError("the file changed while it was read; the next run reads it again")
        return joined(parts)

    def _in_child(self, function: str, *args: Any, deadline_s: float) -> list[Any]:
        try:
            return list(self._child.stream(function, *args, deadline_s=deadline_s))
        except ChildDied:
            # Somebody killed it, or the system did for memory that earlier files left behind: once more, afresh.
            return list(self._child.stream(function, *args, deadline_s=deadline_s))


def _text(error: BaseException) -> str:
    """Full text of an error, with the notes that say where in the child it was raised."""
    plain = isinstance(error, BadInput | ChildFailed)
    notes = [] if plain else getattr(error, "__notes__", [])
    return "\n".join([f"{error}" if plain else f"{type(error).__name__}: {error}", *notes])
