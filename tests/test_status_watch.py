"""`reelmill status --watch`: before a job has begun, where the store does not answer, on a terminal, for a script."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import small_dataset

import pipelines.status_watch
from curate.dataset import Dataset
from pipelines.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("sources", "clips", "decisions")
HEAD = r"\d\d:\d\d:\d\d, every 5 s, Ctrl-C ends"
SAME = "stage   unit   done  failed  waiting  changed"


def watched(
    monkeypatch: pytest.MonkeyPatch, uri: str, between: list[Callable[[], object]], *words: str
) -> int:
    """The exit code of `status --watch 5`; what is `between` its looks happens instead of the seconds."""
    happenings = iter(between)

    def sleep(seconds: float) -> None:
        assert seconds == 5
        happening = next(happenings, None)
        if happening is None:
            raise KeyboardInterrupt
        happening()

    monkeypatch.setattr(pipelines.status_watch.time, "sleep", sleep)
    return main(["status", "--dataset", uri, "--watch=5", *words])


def break_decisions(dataset: Dataset) -> bytes:
    """As a store that answers with half a file; returns the whole one."""
    (name,) = dataset.files("decisions")
    path = Path(dataset.path("decisions", name))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    return whole


def test_it_waits_for_a_job_that_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "dataset")
    steps: list[Callable[[], object]] = [lambda: small_dataset.build(tmp_path, tables=TABLES)]
    assert watched(monkeypatch, uri, steps) == 0
    shown, errors = capsys.readouterr()
    head, nothing, empty, again, *table = shown.splitlines()
    assert re.fullmatch(HEAD, head)
    assert nothing == f"nothing is there yet: {uri} holds neither tables nor work under way"
    assert empty == ""
    assert re.fullmatch(HEAD, again)
    assert table[0] == SAME
    assert "\x1b" not in shown  # this is no terminal
    assert errors == ""


def test_it_goes_on_where_the_store_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = small_dataset.build(tmp_path, tables=TABLES)
    whole: list[bytes] = []
    (name,) = dataset.files("decisions")
    steps: list[Callable[[], object]] = [
        lambda: whole.append(break_decisions(dataset)),
        lambda: Path(dataset.path("decisions", name)).write_bytes(whole[0]),
    ]
    assert watched(monkeypatch, dataset.uri, steps) == 0
    looks = [look.splitlines() for look in re.split(f"(?m)^{HEAD}\n", capsys.readouterr().out)[1:]]
    assert [look[0].split(":")[0] for look in looks] == [SAME, "could not look", SAME]
    (told, *_) = looks[1]
    assert re.match(r"could not look: \w+: .+", told)
    assert looks[1][1:] == [""]


def test_a_script_reads_of_it_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "dataset")
    steps: list[Callable[[], object]] = [lambda: small_dataset.build(tmp_path, tables=TABLES)]
    assert watched(monkeypatch, uri, steps, "--format=json") == 0
    shown, errors = capsys.readouterr()
    (told,) = shown.splitlines()[:-1]  # and the end of the line of ^C
    assert json.loads(told)["dataset"] == uri
    assert errors == f"nothing is there yet: {uri} holds neither tables nor work under way\n"


def test_what_can_never_be_looked_at_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watched(monkeypatch, "nostore://bucket/films", []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot open dataset 'nostore://bucket/films'" in line


def test_on_a_terminal_each_look_stands_where_the_last_one_stood(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path, tables=TABLES)
    ours, theirs = pty.openpty()
    words = ["status", "--dataset", dataset.uri, "--watch=0.2"]
    # The row of decide is 104 long: two rows of this terminal.
    environment = {**os.environ, "COLUMNS": "90"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown, is_broken, is_told = "", False, False
    guard = threading.Timer(60, process.kill)
    guard.start()
    while True:
        try:
            shown += os.read(ours, 65536).decode()
        except OSError:  # the other end is closed
            break
        if not is_broken and shown.endswith("unfinished\r\n"):
            is_broken = bool(break_decisions(dataset))
        if not is_told and "it was:" in shown and shown.endswith("unfinished\r\n"):
            is_told = True
            process.send_signal(signal.SIGINT)
    guard.cancel()
    assert process.wait() == 0
    _, *parts = re.split(r"(\x1b\[\d+F)?\x1b\[J", shown)
    ups, frames = parts[::2], [frame.splitlines() for frame in parts[1::2]]
    assert ups[0] is None
    rows = [sum(1 + (len(line) > 90) for line in frame) for frame in frames]
    assert ups[1:] == [f"\x1b[{count}F" for count in rows[:-1]]
    assert len(frames[0]) == 6
    assert rows[0] == 7
    # What was found last stays on the screen, and why it is not new.
    failed = next(frame for frame in frames if frame[1].startswith("could not look: "))
    assert re.fullmatch(r"at \d\d:\d\d:\d\d it was:", failed[2])
    assert failed[3:8] == frames[0][1:]
