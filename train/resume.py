"""Going on with a run: what its checkpoints tell of it, whether it is still the same one, and where its data stands.

before = read_about(store, "step-00001000")
check_same_run(store.place, before, config, data)        # BadInput if it is another run by now
cursor, note = next_packs(before, progress.cursor, config)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from model.config import DiTConfig
from model.errors import BadInput
from train.config import TrainConfig
from train.data import LatentDataset
from train.packing import Cursor
from train.store import Store


def describe(config: TrainConfig, data: LatentDataset, shape: DiTConfig) -> dict[str, Any]:
    """config.json of the checkpoints: all that sampling needs to know, and how the run was made."""
    size, fps = data.typical()
    return {
        "model": asdict(shape),
        "flow": asdict(config.flow),
        "latents": data.about,
        "clips": _clips(data, config),
        "typical": {"size": size, "fps": fps},
        "train": asdict(config),
    }


def _clips(data: LatentDataset, config: TrainConfig) -> dict[str, Any]:
    return {"count": len(data.clips), "held_back": n_held(config, data), "digest": data.digest()}


def n_held(config: TrainConfig, data: LatentDataset) -> int:
    """How many clips are held back for validation."""
    wanted = config.validation.clips if config.validation.every else 0
    return min(wanted, len(data.clips) // 20)


def read_about(store: Store, name: str) -> dict[str, Any]:
    """config.json of a checkpoint."""
    told: dict[str, Any] = json.loads(store.read(f"{name}/config.json"))
    return told


#: Settings, or groups of them, that may differ between the two halves of a resumed run without making it another one.
_FREE = {
    "dataset", "out", "save_to", "steps", "accumulate", "save_every", "keep", "log_every", "device", "attention",
    "recompute", "compile", "left_out", "parallel", "feed", "guard", "validation",
}  # fmt: skip


def check_same_run(place: str, before: dict[str, Any], config: TrainConfig, data: LatentDataset) -> None:
    """Raise BadInput if the run of a checkpoint was begun with other settings or data, and name them.

    `place` holds the checkpoints, `before` is the config.json of one. The dataset may have moved, as long as it holds
    the same clips.
    """
    settings = json.loads(json.dumps(asdict(config)))
    pairs = {key: (before["train"].get(key), now) for key, now in settings.items() if key not in _FREE}
    for key in ("vae_id", "text_id"):
        pairs[key] = (before["latents"].get(key), data.about.get(key))
    clips = _clips(data, config)
    was, now = (_told(x) for x in (before.get("clips", clips), clips))
    pairs["clips of the dataset"] = (was, now)
    if changed := [f"{key} ({a} before, now {b})" for key, (a, b) in pairs.items() if a != b]:
        run = place.removesuffix("/checkpoints")
        raise BadInput(
            f"{run} holds a run with other settings or data: {'; '.join(changed)}. Give the same ones to go on with "
            f"it, or another --out for a new run, which may begin with this one's weights (--init {run})."
        )


def _told(clips: dict[str, Any]) -> str:
    held = clips.get("held_back", 0)
    return f"{clips['count']} of digest {clips['digest']}" + (f", {held} held back" if held else "")


def next_packs(before: dict[str, Any], cursor: Cursor, config: TrainConfig) -> tuple[Cursor, str | None]:
    """Where the data of a run goes on behind a checkpoint, and a note if it is not where that stood.

    With another `left_out` clips have other sizes and the rest of the epoch can be packed so no more: it ends, and
    the next one begins.
    """
    was = before["train"].get("left_out", 0.0)
    if was == config.left_out or not cursor.pack:
        return cursor, None
    note = (
        f"epoch {cursor.epoch} ended after {cursor.pack} packs: left_out was {was} and is {config.left_out}, so "
        "clips are packed anew"
    )
    return Cursor(cursor.epoch + 1), note
