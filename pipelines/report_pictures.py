"""Pictures for the report: a clip as one small WebP strip of frames side by side, as a data: URI.

A strip is made in a process that can be killed: a file that hangs costs its clips their pictures, and the
card says so.
"""

from __future__ import annotations

import base64
import io
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from curate.isolate import Isolated

HEIGHT = 112
FRAMES = 8
DEADLINE_S = 60.0
#: The uri of a source and the clips of it.
OfSource = tuple[str | None, list[dict[str, Any]]]
#: A clip, and its strip or None and why not.
Drawn = tuple[dict[str, Any], tuple[Any, str | None]]
AT_ONCE = 4  # sources, where some are remote: most of the time is spent waiting for them


def strip(path: str, start_s: float, end_s: float) -> tuple[bytes, int, int, int]:
    """WebP bytes of FRAMES pictures side by side, their number, and the width and height of one."""
    import numpy as np
    from PIL import Image

    from curate.errors import BadInput
    from curate.frames import even_times, read_frames

    pictures, _ = read_frames(path, even_times(start_s, end_s, FRAMES), height=HEIGHT)
    if not pictures:
        raise BadInput("no frame could be read at the times of the clip")
    file = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(file, "WEBP", quality=62, method=4)
    height, width = pictures[0].shape[:2]
    return file.getvalue(), len(pictures), width, height


def add_strips(
    dataset: Dataset, clips: list[dict[str, Any]], tell: Callable[[], None] = lambda: None
) -> None:
    """Give every clip `picture` (data URI or None), `frames`, `width`, `height` and `no_picture` (why not)."""
    from curate.isolate import Isolated

    ordered = sorted(clips, key=lambda c: c["uri"] or "")
    sources = [(uri, list(of_source)) for uri, of_source in groupby(ordered, key=lambda c: c["uri"])]
    at_once = AT_ONCE if any(uri and store_of(uri) for uri, _ in sources) else 1
    children, stores = [Isolated() for _ in range(at_once)], Stores()
    try:
        for clip, (picture, why) in _drawn(dataset, children, stores, sources):
            clip["no_picture"] = why
            clip["picture"] = picture and as_uri(picture[0], "image/webp")
            clip["frames"], clip["picture_w"], clip["picture_h"] = picture[1:] if picture else (0, 16, 9)
            tell()
    finally:
        for child in children:
            child.close()


def _drawn(
    dataset: Dataset, children: list[Isolated], stores: Stores, sources: list[OfSource]
) -> Iterator[Drawn]:
    """The clips of all sources with their strips, as they come: a thread for each child.

    The threads are daemons, for Ctrl-C does not wait until a large source has been fetched.
    """
    done: queue.SimpleQueue[list[Drawn] | BaseException] = queue.SimpleQueue()
    todo, lock, ended = iter(sources), threading.Lock(), threading.Event()

    def work(child: Isolated) -> None:
        while not ended.is_set():
            with lock:
                source = next(todo, None)
            if source is None:
                return
            try:
                done.put(list(_of_one_source(dataset, child, stores, *source)))
            except BaseException as error:  # for the thread that waits
                done.put(error)

    for child in children:
        threading.Thread(target=work, args=(child,), daemon=True).start()
    try:
        for _ in sources:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield from found
    finally:
        ended.set()


class Stores:
    """Object stores by what they answered: one that does not answer at first is not waited for again."""

    def __init__(self) -> None:
        # By store: why it cannot be reached; None if it has answered
        self._silent: dict[str, str | None] = {}
        self._first: dict[str, threading.Lock] = {}

    def fetch(self, uri: str | None, stack: ExitStack) -> str:
        """A local path of a source until `stack` ends. Raises OSError, ImportError or ValueError."""
        if uri is None:
            raise FileNotFoundError("its row is missing in the sources table")
        store = store_of(uri)
        if store is not None:
            with self._first.setdefault(store, threading.Lock()):
                if (
                    store not in self._silent
                ):  # one source asks whether it answers at all, others wait for that
                    return self._fetched(uri, store, stack)
        return self._fetched(uri, store, stack)

    def _fetched(self, uri: str, store: str | None, stack: ExitStack) -> str:
        from curate.sources import local_copy

        if why := self._silent.get(store or ""):
            raise OSError(why)
        try:
            path = stack.enter_context(local_copy(uri))
            os.stat(path)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise  # of this file alone
        except (OSError, ImportError, ValueError) as error:
            if store is not None:
                self._silent.setdefault(store, f"{store} cannot be reached: {error}")
            raise
        if store is not None:
            self._silent[store] = None
        return path


def store_of(uri: str) -> str | None:
    """`s3://bucket` of s3://bucket/films/a.mp4; None for a file of this machine."""
    protocol, mark, rest = uri.partition("://")
    return None if not mark or protocol in ("file", "local") else f"{protocol}://{rest.partition('/')[0]}"


def _of_one_source(
    dataset: Dataset, child: Isolated, stores: Stores, uri: str | None, clips: list[dict[str, Any]]
) -> Iterable[Drawn]:
    """Strips of the clips of one source, which is fetched once, if it must be.

    Out of the shards first where the source is remote: a clip is a few 100 kB, its source may be gigabytes. A file
    of this machine comes first: its pictures have their borders still, like those of clips in no shard.
    """
    with ExitStack() as stack:

        @cache
        def fetched() -> tuple[str | None, str | None]:
            try:
                return stores.fetch(uri, stack), None
            except (OSError, ImportError, ValueError) as error:  # the source has gone, or its driver
                return None, f"the source cannot be read any more: {error}"

        def of_source(clip: dict[str, Any]) -> tuple[Any, str | None]:
            path, why = fetched()
            return (None, why) if path is None else _strip(child, path, clip["start_s"], clip["end_s"])

        def of_shard(clip: dict[str, Any]) -> tuple[Any, str | None]:
            return _of_shard(dataset, child, clip)

        is_remote = uri is not None and store_of(uri) is not None
        for clip in clips:
            reasons = []
            for way in (of_shard, of_source) if is_remote else (of_source, of_shard):
                picture, why = way(clip)
                if picture is not None:
                    break
                reasons.append(why)
            yield clip, (picture, None if picture else "; ".join(why for why in reasons if why))


def _of_shard(dataset: Dataset, child: Isolated, clip: dict[str, Any]) -> tuple[Any, str | None]:
    """The strip of a clip out of its shard, or None and why not; no reason for a clip in no shard."""
    start = clip.get("mp4_offset")
    if start is None:
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        try:
            file.write(dataset.read_bytes("shards", clip["shard"], start=start, end=start + clip["mp4_size"]))
            file.flush()
        except (OSError, ValueError) as error:
            return None, f"its shard cannot be read: {error}"
        return _strip(child, file.name, 0.0, clip["end_s"] - clip["start_s"])


def _strip(child: Isolated, path: str, start_s: float, end_s: float) -> tuple[Any, str | None]:
    """What `strip` made, or None and why not."""
    from curate.isolate import ChildFailed

    call = "pipelines.report_pictures:strip"
    try:
        return child.call(call, path, start_s, end_s, deadline_s=DEADLINE_S), None
    except (ChildFailed, OSError, ValueError, RuntimeError) as error:
        return None, str(error)


def as_uri(data: bytes, kind: str) -> str:
    """Bytes as a data: URI that a page can show with no network."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
