"""A line for each stage that is at work: on a terminal, in a log, and in the log of a job that Ray runs."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import moving_square, write_video

import pipelines.progress
from pipelines.progress import Board, Line

ROOT = Path(__file__).resolve().parents[1]


def test_a_line_tells_all_that_is_known() -> None:
    line = Line("curate/analyse", "files", 400, 120, {"ok": 118, "failed": 2})
    assert line.text(30.0) == "curate/analyse: 120/400 files, ok 118, failed 2, 4.0 files/s, 1:10 left"
    assert line.text(30.0, "done") == "curate/analyse: 120/400 files, ok 118, failed 2, done in 0:30"
    assert Line("pack", "shards", 400, 2).text(60.0) == "pack: 2/400 shards, 2.0 shards/min, 3:19:00 left"
    assert Line("pack", "shards", 400).text(60.0) == "pack: 0/400 shards"
    assert Line("pack", "shards", 8, 8).text(4.0) == "pack: 8/8 shards, 2.0 shards/s"
    assert Line("pack", "shards", None, 8).text(4.0) == "pack: 8 shards, 2.0 shards/s"


def test_each_stage_has_its_line_every_few_seconds_if_something_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(pipelines.progress.time, "monotonic", lambda: now)
    stream = io.StringIO()

    def told() -> list[str]:
        lines = stream.getvalue().splitlines()
        stream.truncate(0)
        stream.seek(0)
        return lines

    with Board(stream) as board:
        for second in range(13):
            now = 100.0 + second
            board.tell(0, Line("job/cut", "files", 20, second))
            board.tell(1, Line("job/pack", "shards", 4, int(second > 6)))
            if second == 4:
                assert told() == []
            elif second == 5:
                assert told() == ["job/cut: 5/20 files, 1.0 files/s, 0:15 left"]  # nothing is packed yet
            elif second == 10:
                assert told() == [
                    "job/pack: 1/4 shards, 8.6 shards/min, 0:21 left",
                    "job/cut: 10/20 files, 1.0 files/s, 0:10 left",
                ]
        assert told() == []
    assert told() == ["job/cut: 12/20 files, done in 0:12", "job/pack: 1/4 shards, done in 0:12"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_all_stages_in_a_line_each(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Board(stream) as board:
        board.tell(0, Line("curate/analyse", "files", 12, 3, {"ok": 2, "failed": 1}))
        board.tell(1, Line("curate/text", "files", 12, 0))
    *_, one, two = [line for line in plain(stream.getvalue()) if line.strip()]
    assert re.fullmatch(
        r"curate/analyse ━.* 3/12 files, ok 2, failed 1 .* files/s, \d:\d\d left.*", one.strip()
    )
    assert re.fullmatch(r"curate/text    ━+ 0/12 files.*", two.strip())
    assert ("0:00:00" in one) is (width == 120)  # a narrow one has room for less
    assert "…" not in one + two
    assert max(len(one), len(two)) <= width


def plain(shown: str) -> list[str]:
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for i in range(2):
        write_video(folder / f"{i}.mp4", moving_square(30, seed=i))
    (folder / "bad.mp4").write_text("no video")
    return folder


def command(films: Path, dataset: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "pipelines.curate", "--input", str(films), "--dataset", str(dataset),
        "--clip.model=off", *words,
    ]  # fmt: skip


LAST = [
    "curate/analyse: 3/3 files, ok 2, failed 1, clips 2",
    "curate/clip: 3/3 files, clips 2",
    "curate/text: 3/3 files, clips read 2",
    "curate/commit: 3/3 files, ok 2, failed 1, clips 2",
    "curate/decide: 2 clips, kept 2, rejected 0",
]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_last_lines_of_a_job_are_exact(films: Path, tmp_path: Path, engine: str) -> None:
    words = command(films, tmp_path, f"--engine={engine}", "--ray.num_cpus=2", "--ray.object_store_gib=0.1")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    ended = [line.split(", done in")[0] for line in done.stderr.splitlines() if ", done in" in line]
    assert ended == LAST


def test_a_job_on_a_terminal_ends_with_a_line_per_stage(films: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "110"}
    job = subprocess.Popen(
        command(films, tmp_path, "--engine=local"), cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    assert job.wait() == 0
    lines = [line.strip() for line in plain(shown.decode()) if line.strip()]
    for told in LAST:
        title, _, rest = told.partition(": ")
        ended = [line for line in lines if line.startswith(f"{title} ")][-1]
        assert rest in ended
        assert "━" in ended


def test_an_error_leaves_the_lines_where_they_stood(films: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "_state").mkdir()
    (tmp_path / "dataset" / "_state" / "curate").write_text("a file where the units should lie")
    done = subprocess.run(
        command(films, tmp_path / "dataset", "--engine=local"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    stopped = [line for line in done.stderr.splitlines() if ", stopped in" in line]
    assert [line.split(":")[0] for line in stopped] == [
        f"curate/{s}" for s in ("analyse", "clip", "text", "commit")
    ]
    assert "commit: 0/3 files, stopped" in stopped[-1]
