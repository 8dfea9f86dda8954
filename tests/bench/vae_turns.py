"""Networks in processes of their own that take turns, so that what else the machine does meets all of them alike.

rows = take_turns({"ours": Setup(...), "theirs": Setup(...)}, Clip(17, 144, 256), repeats=3)
rows["ours"]["encode"]["frames_per_s"]
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from typing import Any

from curate.isolate import ChildFailed, Isolated
from tests.bench.vae_networks import DIRECTIONS, Setup
from tests.bench.vae_worker import Clip

DEADLINE_S = 3600.0


def take_turns(setups: Mapping[str, Setup], clip: Clip, repeats: int, threads: int | None) -> dict[str, Any]:
    """By name and direction: median frames/s, peak memory in MB, the seconds of each round, or a reason for none.

    Each network has a process of its own; they take turns, and the first round is only for warming up.
    """
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    children = {name: Isolated(memory_gib=memory_gib, recycle=10**6, threads=threads) for name in setups}
    rounds: dict[str, dict[str, list[dict]]] = {name: {d: [] for d in DIRECTIONS} for name in setups}
    failed: dict[tuple[str, str], str] = {}

    def ask(name: str, part: str, *words: Any) -> Any:
        """The child's answer; null if it died, and then it is asked no more."""
        try:
            return children[name].call(f"tests.bench.vae_worker:{part}", *words, deadline_s=DEADLINE_S)
        except (ChildFailed, RuntimeError) as error:
            failed.update({(name, d): f"{type(error).__name__}: {error}" for d in DIRECTIONS})
            return None

    for name, setup in setups.items():
        children[name].tell("tests.bench.vae_worker:prepare", setup, clip)  # all of them load at once ...
    for name, setup in setups.items():
        ask(name, "prepare", setup, clip)  # ... and here they say whether they could
    for _ in range(repeats + 1):
        for name in setups:
            for direction in DIRECTIONS:
                if (name, direction) in failed:
                    continue
                told = ask(name, "measure", direction)
                if told is None:
                    continue
                if told["reason"] is not None:
                    failed[name, direction] = told["reason"]
                else:
                    rounds[name][direction].append(told)
    found: dict[str, Any] = {}
    for name, setup in setups.items():
        found[name] = {d: summary(rounds[name][d], clip.frames, failed.get((name, d))) for d in DIRECTIONS}
        if setup.chunk or setup.tile:
            told = None if any((name, d) in failed for d in DIRECTIONS) else ask(name, "differences")
            for direction in DIRECTIONS:
                reason = failed.get((name, direction), "its child ended")
                found[name][direction]["difference"] = (
                    told[direction] if told else {"largest": None, "scale": None, "reason": reason}
                )
        children[name].close()
    return found


def summary(rounds: list[dict], frames: int, reason: str | None) -> dict[str, Any]:
    """Of the rounds of one direction. The first round warms up, but its peak of memory counts."""
    seconds = [row["seconds"] for row in rounds[1:]]
    peaks = [row["peak_mb"] for row in rounds if row["peak_mb"] is not None]
    return {
        "frames_per_s": frames / statistics.median(seconds) if seconds else None,
        "peak_mb": max(peaks) if peaks else None,
        "seconds": seconds,
        "reason": reason or (None if peaks else "this system does not tell the peak of memory"),
    }
