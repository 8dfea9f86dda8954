"""What one input file is: its content hash, its container's facts, and the caption lying beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
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
        attempt: which try this is, from 1, over all runs of this version and configuration.
    """

    uri: str
    size_bytes: int
    version: str
    attempt: int = 1

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
    single, local = fs.isfile(root), _is_local(fs)
    if single or local:
        entries = {path: _about(fs, path) for path in ([root] if single else _walk(root))}
    else:
        entries = fs.find(root, detail=True)
    files = [
        InputFile(
            uri=_printable(str(path)) if local else str(fs.unstrip_protocol(path)),
            size_bytes=int(info["size"] or 0),
            version=_version(info),
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


def _walk(root: str) -> Iterator[str]:
    """Every file below a local folder, links to folders followed, each folder once. Raises BadInput."""

    def cannot(error: OSError) -> None:
        raise BadInput(
            f"cannot list {error.filename!r}: {error.strerror}. What lies in it would be missing without a word: "
            "make it readable, or name the folders beside it one by one."
        ) from error

    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=cannot, followlinks=True):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # a link back to where we came from, or to a neighbour
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders.sort()
        yield from (os.path.join(folder, name) for name in names)


def _about(fs: fsspec.AbstractFileSystem, path: str) -> dict:
    """What is known of a local file; of a link to nothing only its name, so that it fails like any other file."""
    try:
        return dict(fs.info(path))
    except OSError:
        return {"name": path, "size": 0}


def _printable(path: str) -> str:
    """The path itself, or if its bytes are no UTF-8, which no table can hold, one that says so and opens nothing."""
    return path.encode("utf-8", "backslashreplace").decode()


def _version(info: dict) -> str:
    if info.get("islink"):
        try:
            return str(os.stat(info["name"]).st_mtime)  # of the file that the link points to
        except OSError:
            pass
    return str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")


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

    Besides: `plausible_duration_s`, for setting a deadline.

    `n_frames`, `fps`, `duration_s`, `is_vfr`, width, height and rotation are measured while decoding instead
    (curate.analysis): what a container claims about them is often wrong.
    """
    size_bytes = os.path.getsize(path)
    if size_bytes == 0:
        raise BadInput("the file is empty (0 bytes)")
    with Video(path) as video:
        return {
            "container": video.container.format.name,
            "codec": video.stream.codec_context.name,
            "has_audio": bool(video.container.streams.audio),
            "plausible_duration_s": plausible_duration_s(
                (video.container.duration or 0) / 1e6,
                video.stream.frames,
                float(video.stream.guessed_rate or 0),
                size_bytes,
            ),
        }


# Bounds that no real footage reaches: a frame takes bytes even where nothing moves, and a second takes no
# more than so many at the highest rates of cameras.
_LEAST_FRAME_BYTES = 32
_MOST_BYTES_PER_S = 50e6


def plausible_duration_s(claimed_s: float, n_frames: int, fps: float, size_bytes: int) -> float:
    """Seconds of footage that a file can hold, for setting a deadline; never zero, negative or endless.

    Args:
        claimed_s: what the container says; may be 0, negative or nonsense.
        n_frames: frames that the container says the stream has; 0 if it does not.
        fps: frames per second that the container says; 0 if it does not.
        size_bytes: size of the file, the one fact that cannot lie.
    """
    rate = fps if 1 <= fps <= 240 else 25.0
    most_s = max(1.0, size_bytes / _LEAST_FRAME_BYTES / rate)
    least_s = size_bytes / _MOST_BYTES_PER_S
    counted_s = n_frames / rate if n_frames > 0 else 0.0
    said_s = max(claimed_s, counted_s)
    if not said_s > 0:  # nothing is known (NaN included): a low bitrate, to be on the safe side
        said_s = size_bytes / 25e3
    return max(least_s, min(said_s, most_s))


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
            if fs.isfile(sidecar):
                return _read_sidecar(sidecar, fs.cat_file(sidecar))
        if folder not in self._tables:
            table = f"{folder}/captions.csv"
            self._tables[folder] = _read_table(table, fs.cat_file(table)) if fs.isfile(table) else {}
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
