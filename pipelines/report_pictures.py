"""Pictures for the report: a clip as one small WebP strip of frames side by side, as a data: URI.

A strip is made in a process that can be killed: a file that hangs costs its clips their pictures, and the
card says so.
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Callable, Iterable
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

    child, stores = Isolated(), Stores()
    try:
        for uri, of_source in groupby(sorted(clips, key=lambda c: c["uri"] or ""), key=lambda c: c["uri"]):
            for clip, (picture, why) in _of_one_source(dataset, child, stores, uri, list(of_source)):
                clip["no_picture"] = why
                clip["picture"] = picture and as_uri(picture[0], "image/webp")
                clip["frames"], clip["picture_w"], clip["picture_h"] = picture[1:] if picture else (0, 16, 9)
                tell()
    finally:
        child.close()


class Stores:
    """Object stores by what they answered: one that does not answer at first is not waited for again."""

    def __init__(self) -> None:
        self._silent: dict[
            str, str | None
        ] = {}  # by store: why it cannot be reached; None if it has answered

    def fetch(self, uri: str | None, stack: ExitStack) -> str:
        """A local path of a source until `stack` ends. Raises OSError, ImportError or ValueError."""
        from curate.sources import local_copy

        if uri is None:
            raise FileNotFoundError("its row is missing in the sources table")
        store = store_of(uri)
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
) -> Iterable[tuple[dict[str, Any], tuple[Any, str | None]]]:
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
