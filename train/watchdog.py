"""Notices that a run stands still, names the rank that holds the others up, and ends the process.

    with Watchdog(ranks, folder=run / "stalls", stall_s=1800) as watchdog:
        watchdog.at(step, "data")                        # before each part of a step
        watchdog.at(step, "compute")

A rank that waits for another one cannot tell so itself: it hangs in a collective operation. So a thread of each rank
leaves in the store of the process group where its rank is, and reads there where the others are. Ended processes are
started again by torchrun --max-restarts or Ray, and the run goes on from its newest checkpoint.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from train.ranks import Ranks

logger = logging.getLogger(__name__)

#: With which a process ends that stood still.
EXIT_CODE = 86
#: How a part of a step is called in which a rank waits for the others.
WAITS = "exchange"


class Watchdog:
    """See the module; `stall_s` 0 switches it off."""

    def __init__(self, ranks: Ranks, folder: Path, stall_s: float) -> None:
        self._ranks, self._folder, self._stall_s = ranks, folder, stall_s
        self._place: tuple[int, str] = (0, "start")
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def at(self, step: int, part: str) -> None:
        """This rank begins with a part of a step."""
        self._place, self._since = (step, part), time.monotonic()

    def __enter__(self) -> Watchdog:
        if self._stall_s:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(5.0, self._stall_s / 10)):
            try:
                self._ranks.post(f"watchdog/{self._ranks.rank}", json.dumps(self._told()))
            except Exception as error:  # whatever a store raises whose host has gone: the watch goes on
                logger.warning("the watchdog cannot tell the other ranks where this one is: %s", error)
            if time.monotonic() - self._since >= self._stall_s:
                self._end()

    def _told(self) -> dict[str, float | str]:
        step, part = self._place
        return {"step": step, "part": part, "standing_s": time.monotonic() - self._since}

    def _end(self) -> None:
        """Say who is to blame, write the stacks of this process, and end it."""
        # Whatever hangs or fails below: a full disk, a store whose host has gone.
        threading.Timer(30.0, os._exit, [EXIT_CODE]).start()
        try:
            self._tell()
        except Exception:
            logger.critical("rank %d stands still, and more cannot be told", self._ranks.rank, exc_info=True)
        finally:
            # The other ranks need a moment to write theirs before torchrun ends them.
            time.sleep(min(10.0, self._stall_s / 4))
            os._exit(EXIT_CODE)

    def _tell(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / f"rank-{self._ranks.rank}.txt"
        with place.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        step, part = self._place
        told = {rank: json.loads(text) for rank, text in self._others().items()}
        logger.critical(
            "rank %d has stood still for %.0f s in step %d (%s). %s Stacks: %s. The process ends; give the same "
            "command to go on from the newest checkpoint.",
            self._ranks.rank,
            time.monotonic() - self._since,
            step,
            part,
            blame(told | {self._ranks.rank: self._told()}, self._ranks.size)
            if self._ranks.size == 1 or self._ranks.store
            else "Where the others are is not known here.",
            place,
        )

    def _others(self) -> dict[int, str]:
        found = {rank: self._ranks.posted(f"watchdog/{rank}") for rank in range(self._ranks.size)}
        return {rank: text for rank, text in found.items() if text}


def blame(told: dict[int, dict[str, float | str]], ranks: int) -> str:
    """Which ranks hold the others up: those in the earliest step that are not waiting themselves.

    `told` is by rank the step, the part of it and how long the rank has been there; those of `ranks` ranks that told
    nothing are the first to suspect.
    """
    if silent := sorted(set(range(ranks)) - set(told)):
        return f"Nothing was heard of rank {', '.join(map(str, silent))}."
    earliest = min(float(place["step"]) for place in told.values())
    behind = {rank: place for rank, place in told.items() if place["step"] == earliest}
    busy = {rank: place for rank, place in behind.items() if place["part"] != WAITS} or behind
    names = ", ".join(
        f"{rank} ({place['part']}, {place['standing_s']:.0f} s)" for rank, place in busy.items()
    )
    return f"The others wait for rank {names}." if len(told) > len(busy) else f"All ranks are there: {names}."
