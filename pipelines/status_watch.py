"""The status again and again: on a terminal in place, in a log or for a script one after another.

    watch(StatusConfig("s3://bucket/films", watch=5))            # until Ctrl-C

A job that has not begun and a store that does not answer are told, and asked again.
"""

from __future__ import annotations

import shutil
import sys
import time
from datetime import datetime

from curate.errors import BadInput
from pipelines.status import NoDataset, Status, StatusConfig, in_json, look, printable, text


def watch(config: StatusConfig) -> None:
    """Look every `config.watch` seconds, until Ctrl-C. Raises BadInput if what is asked for can never be looked at."""
    assert config.watch is not None
    screen, last = Screen(), None
    try:
        while True:
            found, amiss = _looked(config.dataset, is_first=last is None)
            last = found or last
            if config.format == "table":
                head = f"{datetime.now():%H:%M:%S}, every {config.watch:g} s, Ctrl-C ends"
                screen.show("\n".join([head, *_lines(found, amiss, last if screen.is_terminal else None)]))
            elif found is not None:
                print(in_json(found), flush=True)
            else:
                print(amiss, file=sys.stderr, flush=True)
            time.sleep(config.watch)
    except KeyboardInterrupt:
        print()


def _looked(uri: str, *, is_first: bool) -> tuple[Status | None, str]:
    """What was found, or why nothing could be."""
    try:
        return look(uri), ""
    except NoDataset:
        return None, f"nothing is there yet: {uri} holds neither tables nor work under way"
    except Exception as error:  # every driver of a store has errors of its own
        if is_first and isinstance(error, BadInput):
            raise
        told = str(error).strip().split("\n")[0]
        return None, f"could not look: {type(error).__name__}: {told}".removesuffix(": ")


def _lines(found: Status | None, amiss: str, last: Status | None) -> list[str]:
    """What was found; else why not, and what was found last if it still stands on the screen."""
    if found is not None:
        return [text(found)]
    if last is None:
        return [printable(amiss)]
    return [printable(amiss), f"at {last.looked_at.astimezone():%H:%M:%S} it was:", text(last)]


class Screen:
    """Text on stdout. On a terminal, the next one stands where the last one stood, and what is above it stays."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._rows = 0  # of the terminal, that the last text takes

    def show(self, shown: str) -> None:
        if not self.is_terminal:
            print(f"{shown}\n", flush=True)
            return
        from rich.cells import cell_len

        up = f"\033[{self._rows}F" if self._rows else ""
        print(f"{up}\033[J{shown}", flush=True)
        width = shutil.get_terminal_size().columns
        self._rows = sum(max(1, -(-cell_len(line) // width)) for line in shown.split("\n"))
