"""Going on with a run: what its checkpoints tell of it, whether it is still the same one, and where its data stands.

check_same_run(checkpoint, config, data)                 # BadInput if it is another run by now
cursor, note = next_packs(checkpoint, progress.cursor, config)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.config import DiTConfig
from model.errors import BadInput
from train.config import TrainConfig
from train.data import LatentDataset
from train.packing import Cursor


def describe(config: TrainConfig, data: LatentDataset, shape: DiTConfig) -> dict[str, Any]:
    """config.json of the checkpoints: all that sampling needs to know, and how the run was made."""
    size, fps = data.typical()
    return {
        "model": asdict(shape),
        "flow": asdict(config.flow),
        "latents": data.about,
        "clips": _clips(data),
        "typical": {"size": size, "fps": fps},
        "train": asdict(config),
    }


def _clips(data: LatentDataset) -> dict[str, Any]:
    return {"count": len(data.clips), "digest": data.digest()}


#: What may differ between the two halves of a resumed run without making it another run.
_FREE = {"dataset", "out", "steps", "save_every", "keep", "log_every", "device", "attention", "left_out"}


def check_same_run(folder: Path, config: TrainConfig, data: LatentDataset) -> None:
    """Raise BadInput if the run of the checkpoint `folder` was begun with other settings or data, and name them.

    The dataset may have moved, as long as it holds the same clips.
    """
    before = json.loads((folder / "config.json").read_text())
    settings = json.loads(json.dumps(asdict(config)))
    pairs = {key: (before["train"].get(key), now) for key, now in settings.items() if key not in _FREE}
    for key in ("vae_id", "text_id"):
        pairs[key] = (before["latents"].get(key), data.about.get(key))
    clips = _clips(data)
    was, now = (f"{x['count']} of digest {x['digest']}" for x in (before.get("clips", clips), clips))
    pairs["clips of the dataset"] = (was, now)
    if changed := [f"{key} ({a} before, now {b})" for key, (a, b) in pairs.items() if a != b]:
        run = folder.parent.parent
        raise BadInput(
            f"{run} holds a run with other settings or data: {'; '.join(changed)}. Give the same ones to go on with "
            f"it, or another --out for a new run, which may begin with this one's weights (--init {run})."
        )


def next_packs(folder: Path, cursor: Cursor, config: TrainConfig) -> tuple[Cursor, str | None]:
    """Where the data of a run goes on behind the checkpoint `folder`, and a note if it is not where that stood.

    With another `left_out` clips have other sizes and the rest of the epoch can be packed so no more: it ends, and
    the next one begins.
    """
    before = json.loads((folder / "config.json").read_text())["train"].get("left_out", 0.0)
    if before == config.left_out or not cursor.pack:
        return cursor, None
    note = (
        f"epoch {cursor.epoch} ended after {cursor.pack} packs: left_out was {before} and is {config.left_out}, so "
        "clips are packed anew"
    )
    return Cursor(cursor.epoch + 1), note
