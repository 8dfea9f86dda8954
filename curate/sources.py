"""The unit of work of `curate`: one input file in, its source row and clip rows out, whatever the file is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pyarrow as pa

from curate.analysis import Analysis, AnalysisConfig
from curate.dataset import config_hash
from curate.errors import BadInput
from curate.isolate import ChildFailed, Isolated
from curate.probe import SidecarCaptions, content_hash
from curate.stage import Resources
from curate.tables import CLIPS, SOURCES

# unit: names the file and, after a dash, its version and configuration (curate.units).
UNIT_INPUT = pa.schema([("unit", pa.string()), ("uri", pa.string()), ("size_bytes", pa.int64())])
UNIT = pa.schema(
    [("unit", pa.string()), ("source", pa.struct(list(SOURCES))), ("clips", pa.list_(pa.struct(list(CLIPS))))]
)
ANALYSED = UNIT.append(pa.field("keyframes", pa.list_(pa.list_(pa.binary()))))


@dataclass(frozen=True)
class SourceConfig:
    """How a source is read and measured.

    Attributes:
        analysis: what is measured.
        deadline_factor: seconds that decoding may take per second of footage.
        deadline_base_s: seconds that any file may take besides.
        memory_gib: address space of the decoding process.
    """

    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    deadline_factor: float = 4.0
    deadline_base_s: float = 60.0
    memory_gib: float = 8.0


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local path of the file at `uri`; remote files are fetched to a temporary one."""
    fs, path = fsspec.core.url_to_fs(uri)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path))
        fs.get_file(path, local)
        yield local


class AnalyseSources:
    """Probe, split and measure each input file in one decode, in a process that can be killed."""

    output = ANALYSED

    def __init__(self, config: SourceConfig, resources: Resources | None = None) -> None:
        self.config = config
        self.hash = config_hash(config)
        self.resources = resources or Resources()

    def setup(self) -> None:
        self._child = Isolated(memory_gib=self.config.memory_gib)
        self._sidecars = SidecarCaptions()

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._analyse(row) for row in rows]

    def _analyse(self, row: dict) -> dict:
        source: dict[str, Any] = dict.fromkeys(SOURCES.names)
        source |= {"uri": row["uri"], "size_bytes": row["size_bytes"], "config_hash": self.hash}
        result: dict[str, Any] = {"unit": row["unit"], "source": source, "clips": [], "keyframes": []}
        try:
            source["caption"] = self._sidecars.caption(row["uri"])
            with local_copy(row["uri"]) as path:
                source["source_id"] = content_hash(path)
                probed = self._child.call("curate.probe:probe", path, deadline_s=self.config.deadline_base_s)
                claimed_s = probed.pop("claimed_duration_s")
                source |= probed
                deadline_s = self.config.deadline_base_s + self.config.deadline_factor * claimed_s
                analysis: Analysis = self._child.call(
                    "curate.analysis:analyse",
                    path,
                    source["source_id"],
                    self.config.analysis,
                    deadline_s=deadline_s,
                )
        except (BadInput, ChildFailed, OSError, RuntimeError, MemoryError, ValueError) as error:
            return result | {"source": source | {"status": "failed", "error": _text(error)}}
        source |= analysis.facts
        if not analysis.clips:
            reason = analysis.error or "no frame could be decoded"
            return result | {"source": source | {"status": "failed", "error": reason}}
        source |= {"status": "partial" if analysis.error else "ok", "error": analysis.error}
        clips = [
            clip | {"score_errors": list(clip["score_errors"].items()), "config_hash": self.hash}
            for clip in analysis.clips
        ]
        return result | {"source": source, "clips": clips, "keyframes": analysis.keyframes}


def _text(error: BaseException) -> str:
    """Full text of an error, with the notes that say where in the child it was raised."""
    kind = "" if isinstance(error, BadInput | ChildFailed) else f"{type(error).__name__}: "
    notes = [] if kind == "" else getattr(error, "__notes__", [])
    return "\n".join([f"{kind}{error}", *notes])
