"""A clip that kills the process which works on it costs itself, not the job: what died is on record.

    tries = Tries(dataset, "9f3c-00002-encode")
    rows = tries.run(clips, encode)        # a row for each clip; those that killed a worker have an `error`
    ...                                    # commit the rows
    tries.clear()

Ray starts a worker that died anew and gives it the same rows, for ever. So each try is noted in `_state/tries/` before
it begins. Rows in which workers died twice are worked on clip by clip; a clip in which one dies then is given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from curate.dataset import Dataset

#: How the error of a clip begins that killed its worker. It is not tried again with the same settings.
DIED = "the worker died"
#: Deaths in rows as a whole, before they are worked on clip by clip; the job may have been killed for other reasons.
MOST_DEATHS = 2

Rows = list[dict[str, Any]]


class Tries:
    """What was begun and never ended with some rows of that name; rows are told apart by their `clip_id`."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self._dataset, self._path = dataset, ("_state", "tries", f"{name}.json")
        self.begun, self.now, self.dead = 0, "", list[str]()
        if dataset.exists(*self._path):
            told = json.loads(dataset.read_bytes(*self._path))
            self.begun, self.now, self.dead = told["begun"], told["now"], told["dead"]
        if self.now:
            self.dead.append(self.now)

    def run(self, clips: Rows, work: Callable[[Rows], Rows]) -> Rows:
        """`work` of all clips at once, or of one after another if workers died in it; in their order."""
        self.begun += 1
        try:
            if self.begun <= MOST_DEATHS:
                self._note()
                return work(clips)
            # Deaths that no clip was to blame for, as when the rows were stored: none of them can be.
            hopeless = self.begun > 2 * MOST_DEATHS + len(self.dead)
            return [row for clip in clips for row in self._alone(clip, work, hopeless)]
        except BaseException:  # it is no death: the error goes its way
            self.clear()
            raise

    def clear(self) -> None:
        """The rows are committed, or their error is told: the record is of no use."""
        self._dataset.remove(*self._path)

    def _alone(self, clip: dict[str, Any], work: Callable[[Rows], Rows], hopeless: bool) -> Rows:
        if hopeless or clip["clip_id"] in self.dead:
            return [{**clip, "error": f"{DIED} in this clip: out of memory, or a crash of a library"}]
        self._note(clip["clip_id"])
        rows = work([clip])
        self._note()
        return rows

    def _note(self, now: str = "") -> None:
        self.now = now
        told = {"begun": self.begun, "now": now, "dead": self.dead}
        self._dataset.write_bytes(json.dumps(told).encode(), *self._path)
