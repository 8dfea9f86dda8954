"""What goes wrong in a run: said in the log, kept in OUT/events.jsonl and the metrics, and where it must be, its end.

    {"step": 812, "event": "skipped", "loss": "nan", "clips": ["0f3a..."]}

All ranks call the same methods at the same steps: what one of them knows is gathered.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model.errors import BadInput
from train.batch import Batch
from train.checkpoint import Progress
from train.config import TrainConfig
from train.guard import Guard, Verdict
from train.metrics import rewrite, whole_lines
from train.ranks import Ranks
from train.tally import StepCounts

logger = logging.getLogger(__name__)

#: Clips named in a message; events.jsonl has all.
NAMED = 20


class Trouble:
    """See the module."""

    def __init__(
        self, run: Path, ranks: Ranks, warnings: Sequence[str | None], step: int = 0, rollbacks: int = 0
    ) -> None:
        """`warnings` are said at once, and in the next row of the metrics.

        The run goes on from `step`, before which it went back so many times: later events will come again.
        """
        self._path, self._ranks = run / "events.jsonl", ranks
        self._notes: list[str] = []
        if ranks.rank == 0 and self._path.is_file():
            rewrite(self._path, [*_until(whole_lines(self._path), step, rollbacks)])
        for warning in filter(None, warnings):
            self._say(warning)

    def look(
        self,
        progress: Progress,
        batches: Sequence[Batch],
        counts: StepCounts,
        verdict: Verdict,
        loss: float,
        norm: float,
        guard: Guard,
        config: TrainConfig,
    ) -> None:
        """Tell what was wrong with the step that `progress` comes from; raises BadInput where the run must end."""
        step = progress.step
        if counts.damaged:
            told = self._ranks.gather([x for b in batches for x in b.damaged])
            found = dict(one for part in told for one in part)
            for clip_id, error in found.items():
                self._keep({"step": step, "event": "damaged clip", "clip_id": clip_id, "error": error})
            first, more = next(iter(found.values())), len(found) - 1
            self._say(
                f"step {step}: {counts.damaged} clips could not be read and are left out: {first}"
                + (f" And {more} more, see events.jsonl." if more else "")
            )
        if guard.count_clips(counts.drawn[0], counts.damaged):
            raise BadInput(
                f"step {step}: {guard.damaged} of the {guard.damaged + guard.clips} clips shown could not be read, "
                f"more than --feed.corrupt_share={config.feed.corrupt_share:g} allows. {self._path} names them: "
                "mend or encode the dataset again, or allow more."
            )
        if verdict == "fine":
            return
        clips = sorted(
            {clip for part in self._ranks.gather([i for b in batches for i in b.clip_ids]) for clip in part}
        )
        event = {"step": step, "loss": str(loss), "grad_norm": str(norm), "clips": clips}
        if verdict == "skip":
            self._keep({**event, "event": "skipped"})
            why = (
                f"loss {loss}, gradient norm {norm}"
                if counts.generated
                else "none of its clips could be read"
            )
            self._say(f"step {step}: {why}: skipped, {guard.in_a_row} in a row.")
            if guard.in_a_row >= config.guard.skips and not counts.generated:
                raise BadInput(
                    f"step {step}: none of its clips could be read, as of others before it; {guard.in_a_row} steps "
                    f"in a row had to be skipped. {self._path} tells why. Give the same command again when the store "
                    "answers."
                )
            if guard.in_a_row >= config.guard.skips:
                raise BadInput(
                    f"step {step}: loss {loss}, gradient norm {norm}, not finite in {guard.in_a_row} steps in a row: "
                    f"the run diverged. Lower --optim.lr from {config.optim.lr:g} or lengthen --optim.warmup, with "
                    f"another --out; or look at the clips of the last step: {', '.join(clips[:NAMED])}"
                    + (f" and {len(clips) - NAMED} more in {self._path}." if len(clips) > NAMED else ".")
                )
        else:
            self._keep({**event, "event": "spike"})
            self._say(f"step {step}: loss {loss:.4g} is far above those before.")

    def rolled_back(self, step: int, kept: int, guard: Guard, config: TrainConfig) -> None:
        """Tell that the run went back; raises BadInput if it did so too often."""
        guard.rollbacks += 1
        self._keep({"step": step, "event": "rolled back", "to": kept})
        self._say(f"step {step}: back to the checkpoint of step {kept}; the clips since then are left out.")
        if guard.rollbacks > config.guard.rollbacks:
            raise BadInput(
                f"step {step}: the loss jumped again after going back {config.guard.rollbacks} times. Lower "
                f"--optim.lr from {config.optim.lr:g}, with another --out; {self._path} tells what happened."
            )

    def cannot_go_back(self, step: int) -> None:
        """Tell that there is no checkpoint yet to go back to."""
        self._say(f"step {step}: there is no checkpoint yet to go back to: the run goes on.")

    def lost_checkpoint(self, step: int, place: str, why: str) -> None:
        """Tell that a checkpoint could not be written; the training goes on to the next one."""
        self._keep({"step": step, "event": "checkpoint lost", "error": why})
        self._say(
            f"checkpoint {place} could not be written ({why}). The training goes on to the next one: make room, or "
            "see that the store can be reached."
        )

    def row(self) -> dict[str, str]:
        """What was said since the last row, for the next one."""
        note, self._notes = " ".join(self._notes), []
        return {"note": note} if note else {}

    def _say(self, text: str) -> None:
        self._notes.append(text)
        if self._ranks.rank == 0:
            logger.warning(text)

    def _keep(self, event: dict[str, Any]) -> None:
        if self._ranks.rank == 0:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(json.dumps(event) + "\n")
            except OSError as error:
                logger.error("%s cannot be written: %s; it was to tell %s", self._path, error, event)


def _until(lines: Sequence[str], step: int, rollbacks: int) -> Iterator[str]:
    """The lines of events up to a step that comes behind so many roll-backs."""
    for line in lines:
        event = json.loads(line)
        if rollbacks or event["step"] <= step:
            yield line
        rollbacks -= event["event"] == "rolled back" and rollbacks > 0
