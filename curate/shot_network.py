"""The shot network, asked about a few pictures of a film at a time: in this process, or in one of its own.

    reply = ask(pictures, first, stop, device="auto", alongside=True)      # at once
    middle, inside = reply()                                               # waits for the answer

Alongside, importing torch and computing take nothing from the process that decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Literal

import numpy as np

from curate.isolate import Isolated

Device = Literal["auto", "cpu", "cuda"]
# Probabilities that a transition's middle lies at a picture, and that it lies inside one.
Answer = tuple[np.ndarray, np.ndarray]
Network = Callable[[np.ndarray], Answer]
CONTEXT = 7  # pictures to either side that the network sees of what it is asked about
FULL_CONTEXT = 25  # as in the paper
_UNSURE = 0.1
_ENOUGH = 16  # pictures to either side, of an answer that more would hardly change
_AROUND = 4  # pictures to either side of an unsure one that are asked about again
_WHOLE = 8  # lengths of windows are multiples of this
_DEADLINE_S = 600.0  # for one answer; of a source that hangs, its own comes first


def ask(
    pictures: list[np.ndarray], first: int, stop: int, *, device: Device, alongside: bool
) -> Callable[[], Answer]:
    """The network on pictures [first, stop); what is returned waits for the answer, or computes it.

    `pictures` (27, 48, 3) uint8 RGB each; those around [first, stop) are its context.
    """
    begin = max(0, first - FULL_CONTEXT - _WHOLE)
    near = pictures[begin : stop + FULL_CONTEXT + _WHOLE]
    reply = partial(answer, network(device, alongside=alongside), near, first - begin, stop - begin)
    return _worker().submit(reply).result if alongside else reply


@cache
def _worker() -> ThreadPoolExecutor:
    """The thread of this process that loads the network, and waits for it where it runs alongside."""
    return ThreadPoolExecutor(1, "network")


@cache
def network(device: Device, *, alongside: bool) -> Future[Network]:
    """The network that this process asks, once it is loaded; that takes seconds.

    `alongside`: in a process of its own, which ends with this one.
    """
    return _worker().submit(_load, device, alongside)


def _load(device: Device, alongside: bool) -> Network:
    if alongside:  # in a process of its own: importing it would hold up everything else in this one
        # Standing back: on footage that is all plain cuts it is loaded for nothing.
        child = Isolated(recycle=1 << 30, nice=5)
        child.call("curate.transnet:load", device, deadline_s=_DEADLINE_S)
        return partial(child.call, "curate.transnet:probabilities", device, deadline_s=_DEADLINE_S)
    from curate.transnet import probabilities

    return partial(probabilities, device)


def answer(loading: Future[Network], pictures: list[np.ndarray], first: int, stop: int) -> Answer:
    """The network on pictures [first, stop), with some context, and with all it can use where it is unsure."""
    middle, inside = _answer_in(loading, pictures, first, stop, CONTEXT)
    near, length = _ENOUGH - CONTEXT, stop - first
    ends = [range(near), range(length - near, length)] if length > 2 * near else [range(length)]
    for end in ends:
        peak = max(end, key=lambda picture: middle[picture])
        if _UNSURE < middle[peak] < 1 - _UNSURE:
            low, high = max(0, peak - _AROUND), min(length, peak + _AROUND + 1)
            better = _answer_in(loading, pictures, first + low, first + high, FULL_CONTEXT)
            middle[low:high], inside[low:high] = better
    return middle, inside


def _answer_in(
    loading: Future[Network], pictures: list[np.ndarray], first: int, stop: int, context: int
) -> Answer:
    # Few different lengths: for each new one the convolutions are compiled, and kept, anew.
    length = -(-(stop - first + 2 * context) // _WHOLE) * _WHOLE
    left = first - (length - (stop - first)) // 2
    # Beyond the ends of what is known the last picture stands still, as in the paper.
    wanted = np.clip(np.arange(left, left + length), 0, len(pictures) - 1)
    middle, inside = loading.result()(np.stack([pictures[i] for i in wanted]))
    return middle[first - left : stop - left], inside[first - left : stop - left]
