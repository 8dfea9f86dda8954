"""How a run is asked to end: by SIGTERM, and by a file where no signal comes."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import train.stop
from train.stop import Stop, on_sigterm, sigterm_asks


def in_a_thread(what: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(what).result()


def is_asked(place: Path | None) -> bool:
    with on_sigterm(place) as stop:
        return stop.asked


def test_a_signal_asks_and_is_as_before_behind(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_sigterm() as stop:
        assert not stop.asked
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_file_asks_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.stop, "LOOK_EVERY_S", 0.0)
    place = tmp_path / "stop"
    with on_sigterm(place) as stop, on_sigterm() as unnamed:
        assert not stop.asked
        place.touch()
        assert stop.asked
        assert not unnamed.asked
        place.unlink()
        assert stop.asked  # for good


def test_the_disk_is_asked_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(train.stop.time, "monotonic", lambda: now[0])
    stop = Stop(place=tmp_path / "stop")
    assert not stop.asked
    (tmp_path / "stop").touch()
    now[0] += 0.9
    assert not stop.asked
    now[0] += 0.2
    assert stop.asked


def test_a_file_that_is_there_asks_only_where_no_signal_comes(tmp_path: Path) -> None:
    """A worker that Ray starts again must end as well; a run under torchrun does not end for one of last week."""
    place = tmp_path / "stop"
    place.touch()
    assert in_a_thread(lambda: is_asked(place)) is True
    assert in_a_thread(lambda: is_asked(None)) is False
    assert place.exists()
    assert not is_asked(place)
    assert not place.exists()
    assert not is_asked(tmp_path / "not a folder" / "stop")


def test_a_signal_is_handed_on_by_the_file(tmp_path: Path) -> None:
    before, place = signal.getsignal(signal.SIGTERM), tmp_path / "run" / "stop"
    place.parent.mkdir()
    place.touch()  # of an earlier command
    with sigterm_asks(place):
        assert not place.exists()
        assert in_a_thread(lambda: is_asked(place)) is False
        os.kill(os.getpid(), signal.SIGTERM)
        assert in_a_thread(lambda: is_asked(place)) is True
    assert not place.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_cannot_be_handed_on_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sigterm_asks(tmp_path / "run" / "stop"):
        (tmp_path / "run").rmdir()
        os.kill(os.getpid(), signal.SIGTERM)
    assert "cannot be asked to end" in caplog.text
