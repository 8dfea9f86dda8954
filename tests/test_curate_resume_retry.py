"""A failure that may pass is tried again by the next runs, three times in all; one that is for good is not."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path

import pytest
from conftest import moving_square, write_video

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.isolate import ChildDied, TooMuchMemory, TooSlow
from curate.probe import find_inputs, plausible_duration_s, probe
from curate.sources import AnalyseSources, SourceConfig, is_transient, local_copy, patiently
from curate.units import FOLDER, UnitName
from pipelines.curate import main as curate


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_video(folder / "good.mp4", moving_square(40))
    return folder


def run(films: Path, dataset: Path, *more: str) -> dict:
    """The row of the one film after one more run."""
    words = ["--input", str(films), "--dataset", str(dataset), "--engine=local", "--clip.model=off", *more]
    assert curate(words) == 0
    (row,) = Dataset(str(dataset)).read("sources").to_pylist()
    return row


NO_TIME = ("--sources.deadline_base_s=0.01", "--sources.deadline_factor=0.001")


def test_deadline_is_tried_three_times_and_counted(films: Path, tmp_path: Path, capsys) -> None:
    for attempt in (1, 2, 3, 3):  # the fourth run leaves it alone
        row = run(films, tmp_path / "out", *NO_TIME)
        assert (row["status"], row["failure"], row["attempts"]) == ("failed", "transient", attempt)
        assert "no result within the deadline" in row["error"]
    assert "1 of 1 files are done already" in capsys.readouterr().out
    (name,) = Dataset(str(tmp_path / "out")).files(FOLDER, ".parquet")
    assert UnitName.parse(name).status == "retry"
    row = run(films, tmp_path / "out", "--retry_failed=true")
    assert (row["status"], row["failure"], row["attempts"]) == ("ok", None, None)


def test_a_passing_failure_leaves_no_trace_in_the_tables(films: Path, tmp_path: Path) -> None:
    """Raising the deadline is no new configuration: nothing else is analysed again."""
    run(films, tmp_path / "once")
    run(films, tmp_path / "twice", *NO_TIME)
    run(films, tmp_path / "twice")
    for table in ("sources", "clips", "decisions"):
        whole, mended = (Dataset(str(tmp_path / name)).read(table) for name in ("once", "twice"))
        assert mended.equals(whole)
    (name,) = Dataset(str(tmp_path / "twice")).files(FOLDER, ".parquet")
    assert UnitName.parse(name).attempt == 2


def test_number_of_tries_is_configured(films: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert run(films, tmp_path / "out", *NO_TIME, "--sources.tries=1")["attempts"] == 1


def test_failure_for_good_is_tried_on_request_only(films: Path, tmp_path: Path) -> None:
    (films / "good.mp4").write_text("no video")
    for more, attempts in ((), 1), ((), 1), (("--retry_failed=true",), 2), ((), 2):
        row = run(films, tmp_path / "out", *more)
        assert (row["failure"], row["attempts"]) == ("permanent", None)
        (name,) = Dataset(str(tmp_path / "out")).files(FOLDER, ".parquet")
        assert UnitName.parse(name).attempt == attempts


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TooSlow("no result"), True),
        (TooMuchMemory("9 GiB held"), True),
        (ChildDied("signal 9"), True),
        (MemoryError(), True),
        (OSError(errno.EIO, "input/output error"), True),
        (ConnectionResetError("the store hung up"), True),
        (BadInput("not a readable video"), False),
        (FileNotFoundError("gone"), False),
        (OSError(errno.ELOOP, "too many links"), False),
        (IndexError("a mistake of ours"), False),
    ],
)
def test_which_failures_may_pass(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_store_is_asked_again_in_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.sources.BACK_OFF_S", (0.001, 0.001))
    asked = []

    def third_time() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise ConnectionResetError("the store hung up")
        return "bytes"

    assert patiently(third_time) == "bytes"

    def never() -> str:
        asked.append(1)
        raise RuntimeError("throttled")

    asked.clear()
    with pytest.raises(OSError, match="the store failed 3 times: throttled"):
        patiently(never)
    assert len(asked) == 3

    def missing() -> str:
        asked.append(1)
        raise FileNotFoundError("gone")

    asked.clear()
    with pytest.raises(FileNotFoundError):
        patiently(missing)
    assert len(asked) == 1


def analyse(stage: AnalyseSources, film: Path) -> dict:
    (row,) = stage([{"unit": "u-s-1", "uri": str(film), "size_bytes": film.stat().st_size}])
    return row["source"]


def test_killed_child_is_replaced_and_costs_nothing(films: Path) -> None:
    stage = AnalyseSources(SourceConfig())
    stage.setup()
    assert analyse(stage, films / "good.mp4")["status"] == "ok"
    first = stage._child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert analyse(stage, films / "good.mp4")["status"] == "ok"
    assert stage._child.pid != first
    stage._child.close()


def test_decoding_process_is_recycled(films: Path) -> None:
    stage = AnalyseSources(SourceConfig(recycle=4))  # two calls a file
    stage.setup()
    pids = []
    for _ in range(4):
        assert analyse(stage, films / "good.mp4")["status"] == "ok"
        pids.append(stage._child.pid)
    stage._child.close()
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_file_that_grows_while_it_is_read_is_left_for_the_next_run(films: Path) -> None:
    film = films / "good.mp4"

    class Growing(AnalyseSources):
        def _in_child(self, function: str, *args, deadline_s: float):
            with film.open("ab") as file:
                file.write(b"more")
            return super()._in_child(function, *args, deadline_s=deadline_s)

    stage = Growing(SourceConfig())
    stage.setup()
    row = analyse(stage, film)
    stage._child.close()
    assert (row["status"], row["failure"]) == ("failed", "transient")
    assert "changed while it was read" in row["error"]


def test_file_that_vanishes_after_it_was_listed(films: Path) -> None:
    (file,) = find_inputs(str(films))
    (films / "good.mp4").unlink()
    stage = AnalyseSources(SourceConfig())
    stage.setup()
    (row,) = stage([{"unit": "u-s-1", "uri": file.uri, "size_bytes": file.size_bytes}])
    assert row["source"]["status"] == "failed"
    assert "No such file or directory" in row["source"]["error"]


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):
        with pytest.raises(BadInput, match="not a regular file"), local_copy(str(tmp_path / name)):
            pass


@pytest.mark.parametrize(
    ("claimed_s", "n_frames", "fps", "size_bytes", "expected_s"),
    [
        (60.0, 1500, 25.0, 10_000_000, 60.0),  # what it says is plausible
        (0.0, 1500, 25.0, 10_000_000, 60.0),  # the frames tell
        (0.0, 0, 25.0, 10_000_000, 400.0),  # nothing does: as if at 25 kB/s
        (-5.0, 0, 25.0, 10_000_000, 400.0),
        (math.nan, 0, 25.0, 10_000_000, 400.0),
        (3_600_000.0, 0, 25.0, 100_000, 125.0),  # 1000 hours in 100 kB: 32 bytes a frame at the least
        (math.inf, 10**12, 25.0, 100_000, 125.0),
        (60.0, 1500, 90_000.0, 10_000_000, 60.0),  # a time base that passes for a rate
        (0.001, 1, 25.0, 10_000_000_000, 200.0),  # 10 GB in a millisecond: 50 MB/s at the most
        (0.0, 0, 0.0, 12, 1 / 2083.3333),
    ],
)
def test_deadline_goes_by_what_a_file_can_hold(
    claimed_s: float, n_frames: int, fps: float, size_bytes: int, expected_s: float
) -> None:
    assert plausible_duration_s(claimed_s, n_frames, fps, size_bytes) == pytest.approx(expected_s, rel=1e-3)


def test_claimed_hours_do_not_reach_the_deadline(films: Path) -> None:
    """The movie header of an mp4 overwritten with 1000 hours: the frames' own table and the size bound it."""
    data = bytearray((films / "good.mp4").read_bytes())
    header = data.index(b"mvhd")
    data[header + 16 : header + 24] = (1000).to_bytes(4, "big") + (3_600_000_000).to_bytes(4, "big")
    (films / "good.mp4").write_bytes(data)
    probed = probe(str(films / "good.mp4"))
    assert probed["plausible_duration_s"] <= len(data) / 32 / 25
