"""Trainings of several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from train.config import TrainConfig

ROOT = Path(__file__).parent.parent

#: Runs before the training in each process.
IMPORTS = "from model.config import *; from train.config import *; import train.loop as loop\n"


def start_ranks(config: TrainConfig, count: int, before: str = "") -> list[subprocess.Popen[str]]:
    """`count` processes that train together; `before` is code that each runs first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    code = f"{IMPORTS}{before}\nprint(loop.train({config!r}, lambda row: None))"
    return [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def train_on(config: TrainConfig, count: int, before: str = "") -> str:
    """Train on `count` ranks to the end; returns the place of the last checkpoint, as rank 0 tells."""
    ranks = start_ranks(config, count, before)
    try:
        told = [process.communicate(timeout=300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    failed = [errors for process, (_, errors) in zip(ranks, told, strict=True) if process.returncode]
    assert not failed, "\n".join(failed)
    return told[0][0].strip().splitlines()[-1]
