"""A captioning worker of Ray that is killed in the middle of a run: the run ends well, with every caption once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from conftest import write_video
from test_curate_kill import descendants, kill
from tiny_coca import COLOURS, dense, short, tiny_folder

from curate.dataset import Dataset
from curate.tables import TABLES

FPS, FRAMES, FILMS, SHOTS = 8, 4, 3, 4
WIDTH, HEIGHT = 64, 36


def build(folder: Path) -> tuple[Dataset, dict[str, str]]:
    """Films of half-second shots of one colour each, and the tables that recaptioning reads; clip_id -> colour."""
    folder.mkdir()
    dataset = Dataset(folder / "dataset")
    rows: dict[str, list[dict]] = {"sources": [], "clips": [], "decisions": []}
    colours = {}
    for film in range(FILMS):
        path, source_id = folder / f"{film}.mp4", f"{film:032}"
        rows["sources"].append({"source_id": source_id, "uri": str(path), "status": "ok", "height": HEIGHT})
        shown = []
        for shot in range(SHOTS):
            clip_id = f"{film:02}{shot:02}" + "0" * 12
            colours[clip_id] = list(COLOURS)[(film + shot) % 3]
            shown.append(np.full((FRAMES, HEIGHT, WIDTH, 3), COLOURS[colours[clip_id]], np.uint8))
            start_s = shot * FRAMES / FPS
            rows["clips"].append(
                {"clip_id": clip_id, "source_id": source_id, "index": shot, "start_s": start_s,
                 "end_s": start_s + FRAMES / FPS, "n_frames": FRAMES, "fps": float(FPS), "width": WIDTH,
                 "height": HEIGHT}
            )  # fmt: skip
            rows["decisions"].append({"clip_id": clip_id, "keep": True, "reasons": [], "weight": 1.0})
        write_video(path, np.concatenate(shown), fps=FPS)
    for name, found in rows.items():
        dataset.write(name, pa.Table.from_pylist(found, schema=TABLES[name]))
    return dataset, colours


def captioners(driver: int) -> list[int]:
    """Processes of the pool of workers that hold the captioner, below `driver`."""
    return [pid for pid, command in descendants(driver) if command.startswith("ray::MapWorker")]


def test_a_captioning_worker_is_killed(tmp_path: Path) -> None:
    dataset, colours = build(tmp_path / "films")
    command = [
        sys.executable, "-m", "pipelines.recaption", "--dataset", dataset.uri, "--engine=ray", "--ray.num_cpus=2",
        "--ray.object_store_gib=0.1", "--captioner.coca.model", str(tiny_folder()), "--captioner.batch_clips=1",
    ]  # fmt: skip
    log = (tmp_path / "log").open("w+")
    job = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    killed: list[int] = []
    made = 0
    until = time.monotonic() + 120
    try:
        while job.poll() is None and time.monotonic() < until:
            made = len(dataset.files("_state/captions"))
            if made >= 2 and (killed := [pid for pid in captioners(job.pid) if kill(pid)]):
                break
            time.sleep(0.02)
        assert job.wait(until - time.monotonic()) == 0, (tmp_path / "log").read_text()
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        log.close()
    assert killed
    assert 2 <= made < len(colours)  # in the middle
    told = (tmp_path / "log").read_text()
    assert f"captions {2 * len(colours)} made + 0 failed + 0 there already" in told
    rows = dataset.read("captions").to_pylist()
    assert set(Counter((row["clip_id"], row["kind"]) for row in rows).values()) == {1}
    expected = {(clip, "short"): short(colour) for clip, colour in colours.items()}
    expected |= {(clip, "dense"): dense(colour) for clip, colour in colours.items()}
    assert {(row["clip_id"], row["kind"]): row["text"] for row in rows} == expected
    assert dataset.files("_state/captions") == []
