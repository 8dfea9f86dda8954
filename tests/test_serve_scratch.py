"""Temporary files of the live view: gone with it, and swept by the next one where it was killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serve_small import until
from small_dataset import build
from test_serve_command import running

from curate.dataset import Dataset
from pipelines.serve_live import Live
from pipelines.serve_scratch import Scratch, sweep


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "in-use").touch()
    (folder / name / "captions.sqlite").write_bytes(b"x" * 100)
    return folder / name


def test_a_server_that_was_killed_is_cleaned_up_after(tmp_path: Path) -> None:
    uri = build(tmp_path / "films").uri
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def folders() -> list[Path]:
        return list(temporary.glob("reelmill-serve-*"))

    with running("--dataset", uri, "--port=0", temporary=temporary) as (process, _):
        until(lambda: list(temporary.glob("*/*/captions.sqlite")))
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = folders()
    assert left.name.startswith(f"reelmill-serve-{process.pid}-")
    with running("--dataset", uri, "--port=0", temporary=temporary) as (process, _):
        until(lambda: not left.exists())
        until(lambda: list(temporary.glob("*/*/captions.sqlite")))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert folders() == []


def test_two_servers_leave_each_others_files(temporary: Path, tmp_path: Path) -> None:
    dataset: Dataset = build(tmp_path / "films")
    with Live(dataset, author="ann") as one:
        until(lambda: one.now.captions.value is not None)
        with Live(dataset, author="ann") as other:
            until(lambda: other.now.captions.value is not None)
            assert sweep() == []
        assert one.now.captions.value.search("dense").total == 4
    assert list(temporary.iterdir()) == []


def test_only_what_dead_servers_left_is_swept(temporary: Path) -> None:
    gone = left_by(temporary, f"reelmill-serve-{dead()}-a1b2")
    kept = [
        left_by(temporary, f"reelmill-serve-{os.getpid()}-a1b2"),  # lives
        left_by(temporary, "reelmill-serve-1-a1b2"),  # lives, and is another user's process
        left_by(temporary, f"reelmill-query-{dead()}-a1b2"),
        left_by(temporary, "reelmill-serve-notes"),
        temporary / f"reelmill-serve-{dead()}-file",
        temporary / f"reelmill-serve-{dead()}-link",
        temporary / f"reelmill-serve-{dead()}-begun",
    ]
    kept[4].write_bytes(b"x")
    elsewhere = left_by(temporary, "elsewhere")
    kept[5].symlink_to(elsewhere)
    kept[6].mkdir()  # its lock is not there yet
    held = left_by(temporary, f"reelmill-serve-{dead()}-c3d4")  # by a process whose number says nothing here
    with (held / "in-use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep() == [gone]
        assert not gone.exists()
        assert all(path.exists() for path in (*kept, held, elsewhere / "captions.sqlite"))
    assert sweep() == [held]


def test_what_others_left_is_theirs(temporary: Path, monkeypatch) -> None:
    left = left_by(temporary, f"reelmill-serve-{dead()}-a1b2")
    monkeypatch.setattr("os.getuid", lambda: left.stat().st_uid + 1)
    assert sweep() == []
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert sweep() == [left]


def test_a_folder_goes_with_its_owner(temporary: Path, monkeypatch) -> None:
    scratch = Scratch()
    assert list(temporary.iterdir()) == []  # nothing before it is asked for
    with scratch.folder("one-") as first, scratch.folder("two-") as second:
        assert Path(first).parent == Path(second).parent
        assert Path(first).parent.name.startswith(f"reelmill-serve-{os.getpid()}-")
    kept = scratch.folder("three-")
    monkeypatch.setattr(
        "pipelines.serve_scratch._lives", lambda pid: False
    )  # as seen out of another container
    assert sweep() == []
    scratch.close()
    scratch.close()
    assert not Path(kept.name).exists()
    assert list(temporary.iterdir()) == []
