"""Killed at any moment and run again, `curate` gives the tables of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import moving_square, write_video
from sorted_tables import assert_sorted

from curate.dataset import Dataset

N_FILMS = 6


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for i in range(N_FILMS):
        write_video(folder / f"{i:02d}.mp4", moving_square(60, seed=i, width=320, height=192))
    (folder / "bad.mp4").write_text("no video")
    return folder


def command(films: Path, dataset: Path) -> list[str]:
    return [
        sys.executable, "-m", "pipelines.curate", "--input", str(films), "--dataset", str(dataset),
        "--engine=local", "--clip.model=off",
    ]  # fmt: skip


def tables(dataset: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for name in ("sources", "clips", "decisions")
        for path in (dataset / name).glob("*.parquet")
    }


@pytest.fixture(scope="module")
def uninterrupted(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    dataset = tmp_path_factory.mktemp("whole") / "dataset"
    subprocess.run(command(films, dataset), check=True, capture_output=True)
    return tables(dataset)


@pytest.mark.parametrize("committed", [0, 2, 5, N_FILMS + 1])
def test_sigkill_and_run_again(
    films: Path, uninterrupted: dict[str, bytes], tmp_path: Path, committed: int
) -> None:
    """Kill the whole job once `committed` units lie in the dataset; the last case hits the writing of tables."""
    dataset = tmp_path / "dataset"
    units = dataset / "_state" / "curate"
    job = subprocess.Popen(
        command(films, dataset), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and len(list(units.glob("*.parquet"))) < committed and job.poll() is None:
        time.sleep(0.002)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    done = len(list(units.glob("*.parquet")))
    assert done >= committed

    again = subprocess.run(command(films, dataset), check=True, capture_output=True, text=True)
    if done:
        assert f"{done} of {N_FILMS + 1} files are done already" in again.stdout  # nothing finished is redone
    assert tables(dataset) == uninterrupted
    assert len(uninterrupted) == 3


@pytest.mark.slow
def test_sigkill_of_the_driver_on_ray(films: Path, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    """The default engine: the driver alone is killed; its workers end with it and lose nothing committed."""
    dataset = tmp_path / "dataset"
    units = dataset / "_state" / "curate"
    words = [word.replace("--engine=local", "--engine=ray") for word in command(films, dataset)] + [
        "--ray.num_cpus=2"
    ]
    job = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and len(list(units.glob("*.parquet"))) < 2 and job.poll() is None:
        time.sleep(0.01)
    job.kill()
    job.wait()
    assert len(list(units.glob("*.parquet"))) >= 2
    subprocess.run(command(films, dataset), check=True, capture_output=True)
    assert tables(dataset) == uninterrupted


def test_tables_do_not_depend_on_the_order_of_work(
    films: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Curated file by file, last one first."""
    from pipelines.curate import main as curate

    for film in sorted(films.iterdir(), reverse=True):
        assert (
            curate(
                ["--input", str(film), "--dataset", str(tmp_path / "d"), "--engine=local", "--clip.model=off"]
            )
            == 0
        )
    assert tables(tmp_path / "d") == uninterrupted
    assert_sorted(Dataset(tmp_path / "d"), "sources", "clips", "decisions")
