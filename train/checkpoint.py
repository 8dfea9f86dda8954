"""Checkpoints: RUN/checkpoints/step-00001000/, whole or absent, with all that an exact resume needs.

    model.safetensors      weights                      ema.safetensors       averaged weights
    optimizer.safetensors  the optimizer's means         config.json           model, data and training config
    state.json             step and cursor               COMPLETE              written last

Noise, captions and order are pure functions of seed, clip and epoch (train/draws.py), so there is no generator
state to keep.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from train.ema import Ema
from train.packing import Cursor

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimizer steps done, tokens seen by all ranks, and where the data stands."""

    step: int = 0
    tokens: int = 0
    cursor: Cursor = field(default_factory=Cursor)


def save_checkpoint(
    run: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema,
    about: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of a step and delete all but the `keep` newest. Returns its folder."""
    folder = run / "checkpoints" / f"step-{progress.step:08d}"
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_on_cpu(model.state_dict()), temporary / "model.safetensors")
    save_file(_on_cpu(ema.average), temporary / "ema.safetensors")
    save_file(_on_cpu(_moments(model, optimizer)), temporary / "optimizer.safetensors")
    state = {"step": progress.step, "tokens": progress.tokens, **asdict(progress.cursor), "ema": ema.updates}
    (temporary / "state.json").write_text(json.dumps(state) + "\n")
    (temporary / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    (temporary / "COMPLETE").write_text("")
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    sync(folder.parent)
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    found = (run / "checkpoints").glob("step-*")
    return sorted(path for path in found if _NAME.fullmatch(path.name) and (path / "COMPLETE").is_file())


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema) -> Progress:
    """Put weights, moments and averages back in place; returns how far the run was."""
    state = json.loads((folder / "state.json").read_text())
    model.load_state_dict(load_file(folder / "model.safetensors"))
    averages = load_file(folder / "ema.safetensors")
    for name, average in ema.average.items():
        average.copy_(averages[name])
    ema.updates = state["ema"]
    weights = dict(model.named_parameters())
    for place, value in load_file(folder / "optimizer.safetensors").items():
        name, key = place.rsplit(":", 1)
        optimizer.state[weights[name]][key] = value.to(weights[name].device)  # of a fused AdamW the count too
    return Progress(state["step"], state["tokens"], Cursor(state["epoch"], state["pack"], state.get("group")))


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value
        for name, weight in model.named_parameters()
        for key, value in optimizer.state[weight].items()
    }


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def sync(path: Path) -> None:
    """Force a file or folder to the disk: a name must never appear before its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
