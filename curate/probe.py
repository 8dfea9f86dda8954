"""What one input file is: its content hash, its container's facts, and the caption lying beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass

import fsspec

from curate.errors import BadInput
from curate.frames import Video

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv"}
    | {".wmv", ".3gp", ".ogv", ".mxf", ".vob", ".gif"}
)
_BLOCK = 1 << 22


@dataclass(frozen=True)
class InputFile:
    """A file found under the input URI.

    Attributes:
        uri: where it lies, in a form that fsspec opens.
        size_bytes: its size.
        version: modification time or ETag; with uri and size it tells whether the file changed.
    """

    uri: str
    size_bytes: int
    version: str

    @property
    def unit(self) -> str:
        """16 hex digits that name this file: the unit of work of `curate`."""
        return hashlib.blake2b(self.uri.encode(), digest_size=8).hexdigest()


def find_inputs(uri: str) -> list[InputFile]:
    """Every video below `uri` (or the one file it names), sorted. Raises BadInput if there is none."""
    try:
        fs, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise BadInput(
            f"cannot open input {uri!r}: {error}. Give a folder or a URI such as s3://BUCKET/DIR."
        ) from error
    if not fs.exists(root):
        raise BadInput(f"input {uri!r} does not exist. Give a folder with videos, or one video file.")
    single = fs.isfile(root)
    entries = {root: fs.info(root)} if single else fs.find(root, detail=True)
    files = [
        InputFile(
            uri=str(fs.unstrip_protocol(path)) if not _is_local(fs) else str(path),
            size_bytes=int(info["size"] or 0),
            version=str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""),
        )
        for path, info in entries.items()
        if single or os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES
    ]
    if not files:
        raise BadInput(
            f"input {uri!r} holds no video (looked for {', '.join(sorted(VIDEO_SUFFIXES))}). "
            "Name the folder that holds the footage."
        )
    return sorted(files, key=lambda file: file.uri)


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def content_hash(path: str) -> str:
    """32 hex digits: BLAKE2b-128 of the bytes of a local file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def probe(path: str) -> dict:
    """Container facts of a local file, as columns of the sources table. Raises BadInput if it is no video.

    Besides: `claimed_duration_s`, for setting a deadline.

    `n_frames`, `fps`, `duration_s`, `is_vfr`, width, height and rotation are measured while decoding instead
    (curate.analysis): what a container claims about them is often wrong.
    """
    if os.path.getsize(path) == 0:
        raise BadInput("the file is empty (0 bytes)")
    with Video(path) as video:
        return {
            "container": video.container.format.name,
            "codec": video.stream.codec_context.name,
            "has_audio": bool(video.container.streams.audio),
            "claimed_duration_s": (video.container.duration or 0) / 1e6,
        }


class SidecarCaptions:
    """Captions beside the footage: NAME.txt, NAME.json (key `caption`), or captions.csv (file,caption)."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, str]] = {}

    def caption(self, uri: str) -> str | None:
        """The caption of the file at `uri`, or None. Raises BadInput when a sidecar cannot be read."""
        fs, path = fsspec.core.url_to_fs(uri)
        folder, name = path.rsplit("/", 1) if "/" in path else (".", path)
        stem = path.rsplit(".", 1)[0] if "." in name else path
        for sidecar in (f"{stem}.txt", f"{stem}.json"):
            if fs.exists(sidecar):
                return _read_sidecar(sidecar, fs.cat_file(sidecar))
        if folder not in self._tables:
            table = f"{folder}/captions.csv"
            self._tables[folder] = _read_table(table, fs.cat_file(table)) if fs.exists(table) else {}
        return self._tables[folder].get(name)


def _read_sidecar(name: str, data: bytes) -> str | None:
    text = data.decode("utf-8", errors="replace").strip()
    if name.endswith(".json"):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise BadInput(f"sidecar {name} is not JSON: {error}. Mend or remove it.") from error
        text = str(value.get("caption") or "").strip() if isinstance(value, dict) else ""
    return text or None


def _read_table(name: str, data: bytes) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace")))
    if not {"file", "caption"} <= set(rows.fieldnames or ()):
        raise BadInput(
            f"{name} needs the columns file and caption, has {rows.fieldnames}. Mend or remove it."
        )
    return {
        row["file"]: row["caption"].strip() for row in rows if row["file"] and (row["caption"] or "").strip()
    }
