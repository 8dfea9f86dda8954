"""Strips of pictures of clips for the live view, made when they are looked at, and kept while there is room.

A strip is made in a process that can be killed (curate/isolate.py): a film that hangs, or a store that does, costs a
picture, and its card says so. Out of the shard where the clip is in one, which is a small read also on an object
store; else out of the source (both in serve_source.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput
from pipelines.serve_children import Children
from pipelines.serve_scratch import Scratch

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from curate.isolate import Isolated

WORKERS = 2
DEADLINE_S = 30.0
MOST_BYTES = 64 << 20
MOST_FETCHED = 256 << 20  # bytes of a film on an object store that is fetched for one strip
FORGET_FAILURE_S = 60.0


@dataclass(frozen=True)
class Strip:
    """Pictures side by side, as WebP, or why there are none."""

    data: bytes
    frames: int = 0
    width: int = 0
    height: int = 0
    why: str | None = None
    made_at: float = 0.0


class Strips:
    """The strips of a dataset's clips."""

    def __init__(self, dataset: Dataset, most_bytes: int = MOST_BYTES) -> None:
        self._dataset, self._most_bytes = dataset, most_bytes
        self._kept: OrderedDict[tuple[Any, ...], Strip] = OrderedDict()
        self._bytes = 0
        self._ended = False
        self._scratch = Scratch()
        self._lock = threading.Lock()
        self.children = Children(WORKERS, memory_gib=4, threads=1)
        # Threads of their own: fifty strips being waited for must not hold up the rest.
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="serve-strip")

    async def get(self, card: dict[str, Any]) -> Strip:
        """The strip of a clip (a card of `Rows.cards`), made if it is not at hand."""
        key = tuple(card[name] for name in ("clip_id", "uri", "shard", "mp4_offset"))
        with self._lock:
            strip = self._kept.get(key)
            if strip is not None and (
                strip.why is None or time.monotonic() - strip.made_at < FORGET_FAILURE_S
            ):
                self._kept.move_to_end(key)
                return strip
        strip = await asyncio.get_running_loop().run_in_executor(self._threads, self._made, card)
        self._keep(key, strip)
        return strip

    def close(self) -> None:
        """End the processes, those at work too; nothing can be asked afterwards."""
        self._ended = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.children.kill()
        self._threads.shutdown(wait=True)
        self.children.close()
        self._scratch.close()

    def _keep(self, key: tuple[Any, ...], strip: Strip) -> None:
        with self._lock:
            if old := self._kept.pop(key, None):
                self._bytes -= _size(old)
            self._kept[key] = strip
            self._bytes += _size(strip)
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def _made(self, card: dict[str, Any]) -> Strip:
        try:
            with self.children.one() as child:
                data, frames, width, height = self._decoded(child, card)
            return Strip(data, frames, width, height)
        except (OSError, ImportError, ValueError, RuntimeError) as error:
            return Strip(b"", why=" ".join(str(error).split())[:500], made_at=time.monotonic())

    def _decoded(self, child: Isolated, card: dict[str, Any]) -> tuple[bytes, int, int, int]:
        from pipelines.serve_video import member_of

        reasons = []
        if card["shard"] is not None:
            try:
                member = member_of(self._dataset, card)
                with self._scratch.folder("strip-") as folder:
                    end = member.offset + min(member.size, MOST_FETCHED)
                    what = (self._dataset.uri, member.parts, member.offset, end, folder)
                    length_s = card["end_s"] - card["start_s"]
                    return self._called(child, "pipelines.serve_source:strip_of_shard", *what, length_s)
            except (OSError, ValueError, RuntimeError) as error:
                reasons.append(f"its shard cannot be read: {error}")
        try:
            return self._of_source(child, card)
        except (OSError, ImportError, ValueError, RuntimeError) as error:
            reasons.append(f"its source cannot be read: {error}")
        raise BadInput("; ".join(reasons))

    def _of_source(self, child: Isolated, card: dict[str, Any]) -> tuple[bytes, int, int, int]:
        from pipelines.serve_source import check_place

        uri = card["uri"]
        if uri is None:
            raise BadInput("it has no row in the sources table")
        if check_place(uri) and (card["size_bytes"] or 0) > MOST_FETCHED:  # told without asking for it
            raise BadInput(f"{card['size_bytes'] / 1e6:,.0f} MB at {uri} are too much to fetch for a picture")
        with self._scratch.folder("strip-") as folder:
            what = (uri, folder, MOST_FETCHED, card["start_s"], card["end_s"])
            return self._called(child, "pipelines.serve_source:strip_of_source", *what)

    def _called(self, child: Isolated, function: str, *args: Any) -> tuple[bytes, int, int, int]:
        # The child does the reading too, so that its deadline and the server's end hold for a store that hangs.
        if self._ended:  # or a process would begin after those at work were ended
            raise BadInput("the server ends")
        made: tuple[bytes, int, int, int] = child.call(function, *args, deadline_s=DEADLINE_S)
        return made


def _size(strip: Strip) -> int:
    return len(strip.data) + len(strip.why or "") + 500
