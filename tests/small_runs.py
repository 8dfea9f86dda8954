"""Trainings that take a moment on a CPU: the settings that the tests of the trainer have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.config import SizeConfig
from train.config import OptimConfig, PackingConfig, TrainConfig, ValidationConfig


def small_run(dataset: Path, out: Path, *, steps: int, save_every: int, **changes: object) -> TrainConfig:
    """One block of one head on packs of 60 tokens, a row of metrics each step, no warm-up and no validation.

    `changes` replace any setting. A test file gives its own to all of its runs by functools.partial.
    """
    config = TrainConfig(
        dataset=str(dataset), out=str(out), steps=steps, save_every=save_every, log_every=1, device="cpu",
        model=SizeConfig(width=16, depth=1, heads=1), packing=PackingConfig(budget=60),
        optim=OptimConfig(lr=1e-3, warmup=0), validation=ValidationConfig(every=0),
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]
