"""SIGKILL at random points, of the driver and of its processes: the tables are those of an uninterrupted run.

What is redone is counted by an audit hook that notes each opening of a film by Python, which happens once per
analysis (its content hash): never more than one file per worker and kill.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import moving_square, write_video

N_FILMS = 8
COUNTER = """
import os, sys
def note(event, args):
    if event == "open" and str(args[0]).startswith(os.environ["FILMS"]) and str(args[0]).endswith(".mp4"):
        log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, (os.path.basename(args[0]) + chr(10)).encode())
        os.close(log)
sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for i in range(N_FILMS - 2):
        write_video(folder / f"{i:02d}.mp4", moving_square(50, seed=i, width=320, height=192))
    (folder / "copy.mp4").write_bytes((folder / "03.mp4").read_bytes())
    (folder / "bad.mp4").write_text("no video")
    return folder


class Job:
    """Runs of `curate` over the films into one dataset, which may be killed, and the count of what they opened."""

    def __init__(self, films: Path, folder: Path, *more: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(COUNTER)
        self.dataset = folder / "dataset"
        self.opened = folder / "opened"
        self.opened.touch()
        self._words = [
            sys.executable, "-m", "pipelines.curate", "--input", str(films), "--dataset", str(self.dataset),
            "--clip.model=off", *(more or ["--engine=local"]),
        ]  # fmt: skip
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{Path(__file__).parents[1]}",
            "FILMS": str(films),
            "OPENED": str(self.opened),
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",  # where a crash in native code happened
        }

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def finish(self) -> None:
        done = subprocess.run(self._words, capture_output=True, text=True, env=self._environment)
        assert done.returncode == 0, done.stderr[-8_000:]

    def analyses(self) -> int:
        return len(self.opened.read_text().splitlines())

    def tables(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.dataset)): path.read_bytes()
            for name in ("sources", "clips", "decisions")
            for path in (self.dataset / name).glob("*.parquet")
        }


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of the processes below `pid`, from /proc."""
    parents, commands = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
                commands[int(entry)] = Path(f"/proc/{entry}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    yield from ((child, commands[child]) for child in sorted(below - {pid}))


def kill(pid: int) -> bool:
    """Whether it was killed; one that was found a moment ago may have ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def whole(films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """Tables of an uninterrupted run, and its seconds."""
    job = Job(films, tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    job.finish()
    took_s = time.monotonic() - began
    assert job.analyses() == N_FILMS
    tables = job.tables()
    assert len(tables) == 3
    return tables, took_s


def test_driver_killed_at_ten_random_points(films: Path, whole: tuple, tmp_path: Path) -> None:
    tables, took_s = whole
    dice = random.Random(7)
    kills = rounds = 0
    while kills < 10:
        rounds += 1
        job = Job(films, tmp_path / str(rounds))
        killed_here = 0
        while killed_here < 5 and kills < 10:  # again and again into the same dataset
            process = job.start()
            time.sleep(took_s * dice.uniform(0.3, 1.0))
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            killed_here += 1
        job.finish()
        assert job.tables() == tables
        assert N_FILMS <= job.analyses() <= N_FILMS + killed_here  # one file at a time: one is redone
    assert kills == 10


def test_decoding_processes_killed_at_random(films: Path, whole: tuple, tmp_path: Path) -> None:
    tables, took_s = whole
    dice = random.Random(8)
    job = Job(films, tmp_path / "job")
    process = job.start()
    kills = 0
    while process.poll() is None:
        time.sleep(took_s * dice.uniform(0.05, 0.2))
        for pid, command in descendants(process.pid):
            if "curate.isolate" in command:
                kills += kill(pid)
    assert process.returncode == 0
    assert kills >= 2
    job.finish()  # a file whose process was killed twice is left to the next run
    assert job.tables() == tables
    assert N_FILMS <= job.analyses() <= N_FILMS + kills // 2


RAY = ("--engine=ray", "--ray.num_cpus=2", "--ray.object_store_gib=0.1")


@pytest.mark.slow
def test_ray_workers_killed_at_random(films: Path, whole: tuple, tmp_path: Path) -> None:
    """The job goes on by itself: Ray runs the tasks of dead workers again, in new ones."""
    dice = random.Random(9)
    job = Job(films, tmp_path / "job", *RAY)
    process = job.start()
    kills = 0
    while process.poll() is None and kills < 3:
        time.sleep(dice.uniform(0.1, 0.4))
        workers = [pid for pid, command in descendants(process.pid) if command.startswith("ray::_Task")]
        workers += [pid for pid, command in descendants(process.pid) if command.startswith("ray::MapBatches")]
        if workers and job.analyses() > kills:
            kills += kill(dice.choice(workers))
    assert process.wait(timeout=120) == 0
    assert kills == 3
    assert job.tables() == whole[0]
    assert N_FILMS <= job.analyses() <= N_FILMS + kills


@pytest.mark.slow
def test_ray_driver_killed(films: Path, whole: tuple, tmp_path: Path) -> None:
    """Its workers and their decoding processes end with it."""
    job = Job(films, tmp_path / "job", *RAY)
    process = job.start()
    until = time.monotonic() + 120
    while job.analyses() < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    below = [pid for pid, command in descendants(process.pid) if "curate.isolate" in command]
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)
    Job(films, tmp_path / "job").finish()
    assert job.tables() == whole[0]
    assert (
        N_FILMS <= job.analyses() <= N_FILMS + 2 * 2
    )  # two workers, each with a batch and the next one read
