"""Several runs that finish the captions of one dataset at the same time: no row is lost, on disk or in S3."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_dataset

from curate import one_writer
from curate.dataset import Dataset
from curate.one_writer import alone
from curate.tables import CAPTIONS
from pipelines import finish_captions as finishing
from pipelines.engine import RayConfig
from recaption.table import TableChanged, commit, gather, known, replace, rows_of, update

ROOT = Path(__file__).parent.parent
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def row(caption_id: str, *, clip: str = "c", minute: int = 0, run: str = "run", text: str = "words") -> dict:
    return dict.fromkeys(CAPTIONS.names) | {
        "caption_id": caption_id, "clip_id": clip, "kind": "dense", "status": "ok", "text": text,
        "captioner": "openai", "model": "m", "run_id": run, "created_at": NOON + timedelta(minutes=minute),
    }  # fmt: skip


def ids(dataset: Dataset) -> list[str]:
    return dataset.read("captions")["caption_id"].to_pylist()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket over real HTTP (moto's S3 server)."""
    import s3fs

    script = str(Path(sys.executable).with_name("moto_server"))
    server = subprocess.Popen(
        [script, "-H", "127.0.0.1", "-p", "25556"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    settings = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:25556",
        "AWS_ACCESS_KEY_ID": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            store = s3fs.S3FileSystem()
            for _ in range(100):
                try:
                    store.mkdir("runs")
                    break
                except OSError:
                    time.sleep(0.2)
            yield "s3://runs"
        finally:
            server.terminate()
            server.wait(20)
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["disk", "s3"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    if request.param == "disk":
        return Dataset(tmp_path / "dataset")
    return Dataset(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_a_run_that_finishes_meanwhile_loses_nothing(dataset: Dataset) -> None:
    commit(dataset, [row("a")])
    rounds = []

    def slowly(captions: pa.Table) -> pa.Table:
        rounds.append(captions["caption_id"].to_pylist())
        if len(rounds) == 1:  # B does all of its work while A embeds its captions
            commit(dataset, [row("b")])
            update(dataset, lambda table: table)
        return captions

    update(dataset, slowly)
    assert rounds == [["a"], ["a", "b"]]
    assert ids(dataset) == ["a", "b"]
    assert dataset.files("_state/captions") == []


def test_a_part_that_came_after_gathering_stays(dataset: Dataset) -> None:
    commit(dataset, [row("a", text="first")])
    table, basis = gather(dataset)
    commit(dataset, [row("a", text="again", minute=1)])  # a retry of the same captions
    replace(dataset, table, basis)
    assert len(dataset.files("_state/captions")) == 1
    update(dataset, lambda captions: captions)
    assert dataset.read("captions")["text"].to_pylist() == ["again"]


def test_the_table_is_looked_at_by_one_writer_at_a_time(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B comes while A is between looking whether the table has changed and writing it."""
    monkeypatch.setattr(one_writer, "LOOK_S", 0.01)
    commit(dataset, [row("a")])
    mine = gather(dataset)
    commit(dataset, [row("b")])
    theirs = gather(dataset)
    writing, go_on = threading.Event(), threading.Event()

    class Slow(Dataset):
        def write(self, *args: object, **kwargs: object) -> int:
            writing.set()
            assert go_on.wait(20)
            return super().write(*args, **kwargs)  # type: ignore[arg-type]

    with ThreadPoolExecutor() as pool:
        first = pool.submit(replace, Slow(dataset.uri), *mine)
        assert writing.wait(20)
        second = pool.submit(replace, dataset, *theirs)
        time.sleep(0.3)
        assert not second.done()
        go_on.set()
        first.result(20)
        with pytest.raises(TableChanged):
            second.result(20)
    assert known(dataset) == {"a": "ok", "b": "ok"}


def test_many_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_writer, "LOOK_S", 0.005)
    dataset = Dataset(tmp_path / "dataset")

    def work(run: int) -> None:
        for number in range(8):
            commit(dataset, [row(f"{run}-{number}")])
            assert f"{run}-{number}" in known(dataset)
            update(dataset, lambda captions: captions)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert ids(dataset) == sorted(f"{run}-{number}" for run in range(5) for number in range(8))
    assert dataset.files("_state/captions") == []


def test_rows_of_a_run_are_found_after_another_run_gathered_them(dataset: Dataset) -> None:
    commit(dataset, [row("a", run="mine"), row("b", run="theirs")])
    update(dataset, lambda captions: captions)
    commit(dataset, [row("a", run="mine", minute=1, text="newer")])
    assert [found["text"] for found in rows_of(dataset, ["a", "b"], "mine")] == ["newer"]
    update(dataset, lambda captions: captions)
    assert [found["text"] for found in rows_of(dataset, ["a", "b"], "mine")] == ["newer"]


def test_reading_while_another_run_gathers(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that vanish between their listing and their reading, and a table that is replaced in between."""
    commit(dataset, [row("a")])
    update(dataset, lambda captions: captions)
    commit(dataset, [row("b")])
    if not dataset.is_local:  # as with files that do not fit into one block
        monkeypatch.setattr(dataset.fs, "default_cache_type", "none")
    calls = {"open": 0, "read": 0}
    opened, read = dataset.open, pq.ParquetFile.read

    def open_late(*parts: str) -> object:
        calls["open"] += 1
        if calls["open"] == 1:
            update(Dataset(dataset.uri), lambda captions: captions)
        return opened(*parts)

    def read_late(file: pq.ParquetFile, *args: object, **kwargs: object) -> pa.Table:
        calls["read"] += 1
        if calls["read"] == 5:  # the others are those of the updates
            commit(dataset, [row("c")])
            update(Dataset(dataset.uri), lambda captions: captions)
        return read(file, *args, **kwargs)

    monkeypatch.setattr(dataset, "open", open_late)
    assert known(dataset) == {"a": "ok", "b": "ok"}
    monkeypatch.setattr(dataset, "open", opened)
    calls["read"] = 4
    monkeypatch.setattr(pq.ParquetFile, "read", read_late)
    assert set(known(dataset)) >= {"a", "b"}
    assert calls["read"] > 5
    monkeypatch.setattr(pq.ParquetFile, "read", read)
    assert set(known(dataset)) == {"a", "b", "c"}


def test_the_lock_of_a_killed_run_is_removed_and_that_of_a_live_one_is_not(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LOOK_S": 0.02, "BEAT_S": 0.1, "DEAD_S": 0.6}.items():
        monkeypatch.setattr(one_writer, name, value)
    dataset.write_bytes(b'{"owner": "a killed one", "beat": 7}', *one_writer.FOLDER, "captions")
    began = time.monotonic()
    told: list[str] = []

    def work(held_s: float) -> None:
        with alone(dataset, "captions"):
            told.append("in")
            assert time.monotonic() - began >= 0.6
            time.sleep(held_s)
            told.append("out")

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, [1.5, 1.5]))  # longer than a dead one is waited for
    assert told == ["in", "out", "in", "out"]
    assert dataset.files("/".join(one_writer.FOLDER)) == []


def lock_of_a_killed_process(dataset: Dataset) -> str:
    """Killed while it held the lock `captions`; returns its lock's content."""
    holds = (
        "import sys, time; from curate.dataset import Dataset; from curate.one_writer import alone\n"
        "with alone(Dataset(sys.argv[1]), 'captions'): print('in', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", holds, dataset.uri], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    process.kill()
    process.communicate()
    return dataset.read_bytes(*one_writer.FOLDER, "captions").decode()


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no /proc tells processes apart here")
def test_a_lock_of_a_process_that_was_killed_here_is_removed_at_once(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    left = lock_of_a_killed_process(dataset)
    began = time.monotonic()
    with alone(dataset, "captions"):
        assert time.monotonic() - began < one_writer.DEAD_S
        ours = dataset.read_bytes(*one_writer.FOLDER, "captions").decode()
    assert json.loads(left)["owner"] in caplog.text
    assert json.loads(ours)["owner"] not in caplog.text
    assert dataset.files("/".join(one_writer.FOLDER)) == []


@pytest.mark.parametrize(
    "told",
    [
        {},  # a process that lives
        {"machine": "of another machine", "pid": 2**22 + 1},
        {"machine": None, "pid": 2**22 + 1},
        {"pid": 0},  # with these whole groups of processes would be meant
        {"pid": -(2**22) - 1},
        {"pid": "1"},
        {"pid": 2**70},
    ],
)
def test_any_other_lock_is_waited_for(told: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOOK_S": 0.02, "DEAD_S": 0.5}.items():
        monkeypatch.setattr(one_writer, name, value)
    dataset = Dataset(tmp_path)
    content = json.loads(one_writer._content("another")) | told
    dataset.write_bytes(json.dumps(content).encode(), *one_writer.FOLDER, "captions")
    began = time.monotonic()
    with alone(dataset, "captions"):
        assert time.monotonic() - began > 0.5


def test_recaption_runs_that_end_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    commit(dataset, [row("a", clip=small_dataset.clip_id("a0"))])
    asked: list[list[str | None]] = []

    def embed(dataset: Dataset, texts: list[str | None], *others: object) -> np.ndarray:
        asked.append(texts)
        if len(asked) == 1:
            commit(dataset, [row("b", clip=small_dataset.clip_id("b0"), text="other words")])
            finish()
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    def finish() -> str:
        trust = finishing.Trust(clip="any", abstain=False)
        return finishing.finish_captions(dataset, set(), trust, engine="local", ray=RayConfig())

    monkeypatch.setattr(finishing, "caption_vectors", embed)
    assert finish().startswith("trust: 2 of 2 captions scored")
    assert [len(texts) for texts in asked] == [1, 2, 2]
    assert ids(dataset) == ["a", "b"]
    assert dataset.files("_state/captions") == []


def test_copies_are_those_of_the_decisions(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    a0, c2 = small_dataset.clip_id("a0"), small_dataset.clip_id("c2")
    assert finishing.copies_of(dataset) == {c2: a0, a0: a0}
