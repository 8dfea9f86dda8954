"""Decode in one thread while another looks at the pictures.

    for frame in decoded_ahead(video.frames()):
        ...

Decoders and OpenCV let go of Python's lock while they work, so two cores are really used. The frames and their
order are the same as without.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from curate.frames import Frame

MOST_BYTES = 32 << 20  # of frames that wait, about
MOST_FRAMES, LEAST_FRAMES = 96, 2
_END = object()


def decoded_ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames, decoded in a thread that runs ahead by at most 96 frames or 32 MiB, and at least 2 frames.

    What decoding raises is raised here. The thread ends when this iterator does.
    """
    first = next(frames, None)
    if first is None:
        return
    size = 2 * first.raw.width * first.raw.height
    room = max(LEAST_FRAMES, min(MOST_FRAMES, MOST_BYTES // max(1, size)))
    waiting: queue.Queue = queue.Queue(room)
    stop = threading.Event()

    def hand_over(item: object) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def decode() -> None:
        try:
            for frame in frames:
                if not hand_over(frame):
                    return
            hand_over(_END)
        except BaseException as error:  # raised again where the frames are used
            hand_over(error)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        yield first
        while (item := waiting.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
