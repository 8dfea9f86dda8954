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

    child = Isolated()
    try:
        for uri, of_source in groupby(sorted(clips, key=lambda c: c["uri"] or ""), key=lambda c: c["uri"]):
            for clip, (picture, why) in _of_one_source(dataset, child, uri, list(of_source)):
                clip["no_picture"] = why
                clip["picture"] = picture and as_uri(picture[0], "image/webp")
                clip["frames"], clip["picture_w"], clip["picture_h"] = picture[1:] if picture else (0, 16, 9)
                tell()
    finally:
        child.close()


def _of_one_source(
    dataset: Dataset, child: Isolated, uri: str | None, clips: list[dict[str, Any]]
) -> Iterable[tuple[dict[str, Any], tuple[Any, str | None]]]:
    """Strips of the clips of one source, fetched once if it is remote; from the shards if it has gone."""
    from curate.sources import local_copy

    try:
        if uri is None:
            raise FileNotFoundError("its row is missing in the sources table")
        with local_copy(uri) as path:
            os.stat(path)
            for clip in clips:
                yield clip, _strip(child, path, clip["start_s"], clip["end_s"])
        return
    except (OSError, ImportError, ValueError) as error:  # the source has gone, or its driver
        why = f"the source cannot be read any more: {error}"
    for clip in clips:
        if clip.get("mp4_offset") is None:
            yield clip, (None, why)
            continue
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            start = clip["mp4_offset"]
            try:
                file.write(
                    dataset.read_bytes("shards", clip["shard"], start=start, end=start + clip["mp4_size"])
                )
                file.flush()
            except OSError as error:
                yield clip, (None, f"{why}; nor can its shard: {error}")
                continue
            yield clip, _strip(child, file.name, 0.0, clip["end_s"] - clip["start_s"])


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
