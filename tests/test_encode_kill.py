"""SIGKILL in the middle of `reelmill encode`: the next run goes on, and the bytes are those of one without a break."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from conftest import moving_square
from small_shards import film, write_shards
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from pipelines.__main__ import main

SHARDS = 24
WORDS = [f"--text={tiny_folder()}", "--frames.pixels=4096", "--frames.max_frames=17", "--engine=local"]


def latents(dataset: Dataset) -> dict[str, bytes]:
    return {name: dataset.read_bytes("latents", name) for name in dataset.files("latents")}


def parts(dataset: Dataset) -> list[str]:
    return [name for name in dataset.files("_state/latents", ".parquet") if "/parts/" in name]


def test_killed_and_started_again(tmp_path: Path) -> None:
    films = [
        film(tmp_path, f"{i:012x}", moving_square(17, width=64, height=64, seed=i), 8, {"kind": "short", "text": "a"})
        for i in range(2 * SHARDS)
    ]  # fmt: skip
    pairs = [films[2 * i : 2 * i + 2] for i in range(SHARDS)]
    whole, broken = (write_shards(tmp_path / name, pairs) for name in ("whole", "broken"))
    assert main(["encode", f"--dataset={whole.uri}", *WORDS]) == 0
    expected = latents(whole)
    assert len(expected) == SHARDS + 2

    log = (tmp_path / "log").open("w+")
    job = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "encode", f"--dataset={broken.uri}", *WORDS],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        cwd=Path(__file__).parents[1],
        stdout=log,
        stderr=log,
    )
    until = time.monotonic() + 120
    try:
        while job.poll() is None and time.monotonic() < until and len(parts(broken)) < 3:
            time.sleep(0.005)
    finally:
        job.kill()
        job.wait()
        log.close()
    assert job.returncode == -9, (tmp_path / "log").read_text()
    there = {name: os.stat(broken.path("_state/latents", name)).st_mtime_ns for name in parts(broken)}
    assert 3 <= len(there) < SHARDS  # in the middle
    assert not latents(broken)

    assert main(["encode", f"--dataset={broken.uri}", *WORDS]) == 0
    assert latents(broken) == expected
