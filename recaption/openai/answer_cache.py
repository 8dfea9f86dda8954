"""Good answers under the hash of their request, in a folder or on an object store: nothing is paid for twice.

    cache = AnswerCache("s3://bucket/answers")
    cache.put(digest, answer)
    cache.get(digest)                       # the answer, or None

One small JSON file per answer, `ab/ab12...json`, which appears whole or not at all. What cannot be read (damaged,
cut off, put under another name) is a miss. Several workers and runs may share a cache. What is worth keeping is what
a caption comes of: a refusal in prose or JSON that does not fit would be said again at every retry.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import uuid
from dataclasses import asdict
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.errors import BadInput
from recaption.captioner import CaptionRequest
from recaption.openai.answer import Answer
from recaption.reading import USABLE, read

log = logging.getLogger(__name__)


class AnswerCache:
    """May be used by many threads at once."""

    def __init__(self, uri: str) -> None:
        """Open `uri`, creating it. Raises BadInput if it cannot be written."""
        try:
            self._fs, root = fsspec.core.url_to_fs(uri)
            self._root = root.rstrip("/")
            self._write("probe", b"")  # a mistake should be told now, not after the first paid answer
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise BadInput(
                f"the cache {uri!r} cannot be written: {error}. Give a folder or URI that can as "
                "--captioner.openai.cache, or leave it out."
            ) from error
        self._told = False
        self._telling = threading.Lock()

    def get(self, digest: str) -> Answer | None:
        """The answer kept under `digest`; null if there is none that is whole."""
        try:
            found = json.loads(self._fs.cat_file(self._path(digest)))
            seal = found.pop("seal")
            return Answer(**found) if seal == _seal(digest, found) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
            return None

    def put(self, digest: str, answer: Answer) -> None:
        """Keep `answer`. A cache that cannot be written costs a warning, not the answer."""
        found = asdict(answer)
        data = json.dumps({**found, "seal": _seal(digest, found)}).encode()
        try:
            self._write(self._path(digest)[len(self._root) + 1 :], data)
        except (OSError, ValueError, RuntimeError) as error:
            with self._telling:
                told, self._told = self._told, True
            if not told:
                log.warning("the answer cache cannot be written: %s: %s", type(error).__name__, error)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}.json"

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(path, data)  # an object store commits a PUT as a whole
            return
        # Not synced to disk: a file that a power cut empties is a miss.
        final = Path(path)
        temporary = final.with_name(f".{uuid.uuid4().hex}")
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def worth_keeping(request: CaptionRequest, answer: Answer) -> bool:
    """Whether the answer is whole and a caption comes of it by today's rules."""
    if answer.status != "ok":
        return False
    text = answer.text or ""
    found = read(request.kind, text, [], truncated=False, camera=None, suffix="", lang=request.lang)
    return found["status"] in USABLE


def _seal(digest: str, answer: dict) -> str:
    """A hash of the answer and the name it belongs under."""
    text = json.dumps([digest, answer], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
