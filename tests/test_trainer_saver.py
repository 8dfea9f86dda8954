"""Checkpoints: written beside the training, whole or not there, and what follows where that fails."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from moto_store import MotoStore, moto_store
from ranks import start_ranks
from small_latents import random_clips, write_latents
from small_runs import small_run

from model.config import DiTConfig
from model.dit import DiT, load_dit
from model.errors import BadInput
from model.pieces import Pieces, piece_metadata
from pipelines import sample_model
from train.checkpoint import (
    Progress,
    checkpoints,
    finished,
    load_checkpoint,
    newest_whole,
    remove_all_but,
)
from train.config import OptimConfig, ValidationConfig
from train.ema import Ema
from train.loop import train
from train.optim import build_optimizer
from train.packing import Cursor
from train.ranks import Ranks
from train.saver import Saver
from train.start import load_start
from train.store import Store

SHAPE = DiTConfig(width=16, depth=1, heads=1, ffn=16, text_width=8, channels=2)
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("data"), random_clips(23, ((3, 4, 4), (1, 4, 4))))


config_for = partial(small_run, steps=8, save_every=2, keep=3)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Parts:
    """A model with its optimizer and average, one step into a training."""

    def __init__(self) -> None:
        self.model = DiT(SHAPE)
        self.optimizer = build_optimizer(self.model, OptimConfig())
        self.ema = Ema(self.model, 0.9)
        self.step()

    def step(self) -> None:
        for p in self.model.parameters():
            p.grad = torch.ones_like(p)
        self.optimizer.step()
        self.ema.update(self.model)

    def save(self, saver: Saver, step: int) -> None:
        progress = Progress(step, 10 * step, Cursor(1, step))
        about = {"model": vars(SHAPE), "train": {}}
        saver.begin(progress, self.model, self.optimizer, self.ema, about, {"skipped": 3})


def test_a_save_copies_and_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is held up: steps go on, no checkpoint is there; what is saved is the state of its own step."""
    may_write, store, real = threading.Event(), Store(str(tmp_path)), Store.write_tensors

    def held_up(self: Store, *args: Any) -> Any:
        assert may_write.wait(30)
        return real(self, *args)

    monkeypatch.setattr(Store, "write_tensors", held_up)
    parts = Parts()
    with Saver(store, ALONE, keep=2) as saver:
        before = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
        parts.save(saver, 4)
        for _ in range(3):
            parts.step()
            saver.poll()
            assert finished(store) == []
        assert saver.is_free  # one more may wait
        parts.save(saver, 7)
        assert not saver.is_free
        assert [saver.is_due(step, 4) for step in (7, 8, 9)] == [False, True, True]
        may_write.set()
        saver.wait()
        assert (saver.saved, saver.failed) == ("step-00000007", 0)
        assert finished(store) == ["step-00000004", "step-00000007"]
    found = Parts()
    progress, seen = load_checkpoint(tmp_path / "step-00000004", found.model, found.optimizer, found.ema)
    assert progress == Progress(4, 40, Cursor(1, 4))
    assert seen["skipped"] == 3
    for name, p in found.model.named_parameters():
        assert torch.equal(p, before[name])
        assert not torch.equal(p, dict(parts.model.named_parameters())[name])


def test_pieces_of_an_attempt_on_other_ranks_do_not_spoil_a_checkpoint(tmp_path: Path) -> None:
    store, parts = Store(str(tmp_path)), Parts()
    (tmp_path / "step-00000004").mkdir()
    for name in ("model", "ema", "optimizer"):
        (tmp_path / "step-00000004" / f"{name}-00001-of-00002.safetensors").write_bytes(b"cut off")
    with Saver(store, ALONE, keep=2) as saver:
        parts.save(saver, 4)
    assert newest_whole(store, ALONE) == "step-00000004"
    load_checkpoint(tmp_path / "step-00000004", parts.model, parts.optimizer, parts.ema)


def test_an_old_checkpoint_that_cannot_be_removed_does_not_cost_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, parts, real = Store(str(tmp_path)), Parts(), Store.remove

    def busy(self: Store, path: str) -> None:
        if path == "step-00000002":
            raise OSError("device or resource busy")
        real(self, path)

    with Saver(store, ALONE, keep=1) as saver:
        parts.save(saver, 2)
        saver.wait()
        monkeypatch.setattr(Store, "remove", busy)
        parts.save(saver, 4)
    assert (saver.saved, saver.failed) == ("step-00000004", 0)
    assert finished(store) == ["step-00000004"]
    assert "could not be removed" in caplog.text


def test_old_checkpoints_and_unfinished_ones_go(tmp_path: Path) -> None:
    store, parts = Store(str(tmp_path)), Parts()
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000009").mkdir()  # another run may be writing it
    (tmp_path / "notes").mkdir()
    with Saver(store, ALONE, keep=2) as saver:
        for step in (2, 4, 6):
            parts.save(saver, step)
            saver.wait()
    assert store.names() == ["notes", "step-00000004", "step-00000006", "step-00000009"]


def test_later_checkpoints_than_the_newest_are_nothing_to_a_run_that_went_back(tmp_path: Path) -> None:
    """One that was passed over but could not be marked neither goes nor pushes out what is whole."""
    store = Store(str(tmp_path))
    for step in (2, 4, 9):
        store.write(f"step-{step:08d}/COMPLETE", b"{}")
    remove_all_but(store, 1, "step-00000004")
    assert finished(store) == ["step-00000004", "step-00000009"]


def test_a_write_that_fails_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, parts, real = Store(str(tmp_path)), Parts(), Store.write_tensors

    def failing(self: Store, path: str, *args: Any) -> Any:
        if path.endswith("optimizer.safetensors"):
            raise OSError(28, "No space left on device")
        return real(self, path, *args)

    with Saver(store, ALONE, keep=2) as saver:
        monkeypatch.setattr(Store, "write_tensors", failing)
        parts.save(saver, 2)
        saver.wait()
        assert (saver.saved, saver.failed, saver.is_free) == (None, 1, True)
        monkeypatch.undo()
        parts.save(saver, 4)
    assert store.names() == ["step-00000004"]  # what there was of the first has gone
    assert (
        "step-00000002 could not be written (rank 0: OSError: [Errno 28] No space left on device)"
        in caplog.text
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def saved_before_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written, or given up, before the training goes on."""
    begin = Saver.begin

    def begin_and_wait(self: Saver, *state: Any) -> None:
        begin(self, *state)
        self.wait()

    monkeypatch.setattr(Saver, "begin", begin_and_wait)


@pytest.mark.usefixtures("saved_before_the_next_step")
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    dataset: Path, tmp_path: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = small_disk / "ballast"

    def log(row: dict) -> None:
        if row["step"] == 4:
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
        if row["step"] == 7:
            ballast.unlink()

    place = train(config_for(dataset, tmp_path, save_to=str(small_disk), keep=1), log)
    assert place.endswith("step-00000008")
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, 9))
    assert "step-00000004 could not be written" in caplog.text
    assert "make room" in caplog.text
    lost = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[0])
    assert (lost["step"], lost["event"]) == (4, "checkpoint lost")
    assert any("make room" in row.get("note", "") for row in rows_of(tmp_path))
    assert finished(Store(str(small_disk))) == ["step-00000008"]


# TensorBoard's own thread ends so; the run hears of it by the next row.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("saved_before_the_next_step")
def test_a_full_disk_that_holds_the_run_itself(dataset: Path, small_disk: Path) -> None:
    """Rows of the metrics wait until there is room; curves end."""
    ballast, run = small_disk / "ballast", small_disk / "run"

    def log(row: dict) -> None:
        if row["step"] == 3:
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        if row["step"] == 7:
            ballast.unlink()

    place = train(config_for(dataset, run, keep=1), log)
    assert place.endswith("step-00000008")
    assert [row["step"] for row in rows_of(run)] == list(range(1, 9))


def test_a_damaged_checkpoint_is_nobodys_newest(dataset: Path, tmp_path: Path) -> None:
    """It takes no place among those that are kept, and no sampler takes it either."""
    train(config_for(dataset, tmp_path, steps=4), lambda row: None)
    damaged = tmp_path / "checkpoints" / "step-00000004"
    damage(damaged, "changed")
    place = train(config_for(dataset, tmp_path, steps=3, keep=1), lambda row: None)
    assert place.endswith("step-00000003")
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step-00000003"]
    assert "another content than was written" in (damaged / "DAMAGED").read_text()
    assert sample_model.newest(str(tmp_path)) == Path(place)
    rows: list[dict] = []
    train(config_for(dataset, tmp_path, steps=6, keep=1), rows.append)
    assert rows[0]["resumed_at"] == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]


def damage(folder: Path, how: str) -> None:
    file = folder / "optimizer.safetensors"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    elif how == "changed":
        data = bytearray(file.read_bytes())
        data[-100] ^= 1
        file.write_bytes(bytes(data))
    elif how == "missing":
        file.unlink()
    else:
        (folder / "state.json").write_text("{")


@pytest.mark.parametrize("how", ["truncated", "changed", "missing", "state"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    dataset: Path, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(config_for(dataset, tmp_path, steps=4), lambda row: None)
    damage(tmp_path / "checkpoints" / "step-00000004", how)
    place = train(config_for(dataset, tmp_path, steps=4), lambda row: None)
    assert rows_of(tmp_path)[-1]["resumed_at"] == 2
    assert "step-00000004 is damaged" in caplog.text
    load_dit(place)


def test_where_no_checkpoint_is_whole_the_run_does_not_begin_anew(dataset: Path, tmp_path: Path) -> None:
    train(config_for(dataset, tmp_path, steps=4), lambda row: None)
    for folder in checkpoints(tmp_path):
        damage(folder, "truncated")
    with pytest.raises(BadInput, match=r"none of the 2 checkpoints in .* is whole"):
        train(config_for(dataset, tmp_path, steps=4), lambda row: None)


@pytest.fixture
def s3() -> Iterator[MotoStore]:
    with moto_store() as store:
        yield store


def test_checkpoints_in_an_object_store(
    dataset: Path, tmp_path: Path, s3: MotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{s3.uri}/runs/S"
    config = config_for(dataset, tmp_path, steps=4, save_to=place)
    assert train(config, lambda row: None) == f"{place}/step-00000004"
    assert not (tmp_path / "checkpoints").exists()
    rows: list[dict] = []
    newest = train(replace(config, steps=6), rows.append)
    assert [row["step"] for row in rows] == [5, 6]
    dit, _ = load_dit(newest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (place, newest):
        fetched = sample_model.newest(name)
        assert fetched.is_relative_to(tmp_path / "cache")
        assert load_dit(fetched)[1] == load_dit(newest)[1]
    begun, _ = load_start(place)  # what --init takes
    assert torch.equal(begun.null_text, dit.null_text)
    local = tmp_path / "local"
    train(config_for(dataset, local, steps=6), lambda row: None)
    theirs, _ = load_dit(checkpoints(local)[-1])
    for name, x in dit.state_dict().items():
        assert torch.equal(x, theirs.state_dict()[name])


def test_a_dataset_in_an_object_store_is_trained_on(dataset: Path, tmp_path: Path, s3: MotoStore) -> None:
    """Bit for bit as on a disk."""
    files, place = fsspec.core.url_to_fs(f"{s3.uri}/films")
    files.put(f"{dataset}/", f"{place}/", recursive=True)
    for name, where in (("far", f"{s3.uri}/films"), ("near", str(dataset))):
        train(replace(config_for(dataset, tmp_path / name), dataset=where), lambda row: None)
    far, near = (
        [(row["loss"], row["grad_norm"]) for row in rows_of(tmp_path / name)] for name in ("far", "near")
    )
    assert far == near


@pytest.mark.usefixtures("saved_before_the_next_step")
def test_an_unreachable_object_store_costs_checkpoints_and_not_the_run(
    dataset: Path, tmp_path: Path, s3: MotoStore, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"{s3.uri}/runs/gone"

    def log(row: dict) -> None:
        if row["step"] == 5:
            s3.stop()

    config = config_for(dataset, tmp_path, save_to=place)
    message = r"the last checkpoint could not be written to .*; the run stands at step-00000004"
    with pytest.raises(BadInput, match=message):
        train(config, log)
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, 9))
    assert "step-00000008 could not be written (rank 0: " in caplog.text
    assert "see that the store can be reached" in caplog.text


def test_sigterm_saves_and_ends_cleanly(dataset: Path, tmp_path: Path) -> None:
    """Both ranks stop at the same step though only one is asked, and the run goes on from there."""
    slow = ValidationConfig(every=1_000_000, clips=1)  # no time for it when asked to end
    config = config_for(dataset, tmp_path, steps=100_000, save_every=100_000, log_every=1, validation=slow)
    ranks = start_ranks(config, 2)
    metrics = tmp_path / "metrics.jsonl"
    try:
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 3):
            assert all(process.poll() is None for process in ranks), ranks[0].communicate()
            time.sleep(0.05)
        ranks[1].send_signal(signal.SIGTERM)
        for process in ranks:
            process.communicate(timeout=60)
            assert process.returncode == 0
    finally:
        for process in ranks:
            process.kill()
    (newest,) = checkpoints(tmp_path)
    last = rows_of(tmp_path)[-1]["step"]
    assert newest.name == f"step-{last:08d}"
    assert "validation" not in rows_of(tmp_path)[-1]
    rows: list[dict] = []
    train(replace(config, steps=last + 2), rows.append)
    assert [row["step"] for row in rows] == [last + 1, last + 2]


def test_the_command_tells_that_it_was_asked_to_stop(dataset: Path, tmp_path: Path) -> None:
    options = [
        "--steps=100000",
        "--save_every=100000",
        "--log_every=1",
        "--device=cpu",
        "--packing.budget=60",
    ]
    options += ["--model.width=16", "--model.depth=1", "--model.heads=1", "--validation.every=0"]
    command = [sys.executable, "-m", "pipelines.train", f"--dataset={dataset}", f"--out={tmp_path}", *options]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "of 100000, as asked: the same command goes on from there" in told


def test_pieces_are_read_by_rows_from_whichever_file_holds_them(tmp_path: Path) -> None:
    store, x = Store(str(tmp_path)), torch.arange(35.0).reshape(7, 5)
    for number, (start, stop) in enumerate(((0, 3), (3, 6), (6, 7), (7, 7))):
        metadata = piece_metadata({"x": (start, 7)})
        tensors = {"x": x[start:stop].clone()} | ({"n": torch.tensor(4)} if number == 0 else {})
        store.write_tensors(f"model-{number + 1:05d}-of-00004.safetensors", tensors, metadata)
    pieces = Pieces(str(tmp_path), "model")
    assert pieces.shapes == {"x": (7, 5), "n": ()}
    for start, stop in ((0, 7), (2, 5), (5, 7), (6, 6), (3, 6)):
        assert torch.equal(pieces.rows("x", start, stop), x[start:stop])
    assert torch.equal(pieces.whole()["n"], torch.tensor(4))
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(BadInput, match="all its pieces"):
        Pieces(str(tmp_path), "model")


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\x08" + bytes(7) + b"nonsense", b"\x02" + bytes(7) + b"{}"]
)
def test_files_that_are_no_tensors_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    if data.endswith(b"{}"):
        assert Pieces(str(tmp_path), "model").shapes == {}
        return
    with pytest.raises(BadInput, match="is damaged"):
        Pieces(str(tmp_path), "model")


def test_a_piece_that_claims_bytes_it_does_not_have_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(BadInput, match="x does not lie within the file"):
        Pieces(str(tmp_path), "model")


def test_a_run_that_is_copied_while_it_is_saved_has_no_half_checkpoint(tmp_path: Path) -> None:
    """COMPLETE is the last file to come, and the first to go."""
    store, parts, order = Store(str(tmp_path / "a")), Parts(), list[str]()
    real_write, real_remove = Store.write, Store.remove

    class Watched(Store):
        def write(self, path: str, data: bytes) -> None:
            order.append(path)
            real_write(self, path, data)

        def write_tensors(self, path: str, *args: Any) -> Any:
            order.append(path)
            return super().write_tensors(path, *args)

        def remove(self, path: str) -> None:
            order.append(f"- {path}")
            real_remove(self, path)

    with Saver(Watched(store.place), ALONE, keep=1) as saver:
        for step in (2, 4):
            parts.save(saver, step)
            saver.wait()
    steps = ["step-00000004/COMPLETE", "- step-00000002/COMPLETE", "- step-00000002"]
    later = order[order.index("step-00000002/COMPLETE") :]
    assert [step for step in later if step in steps] == steps
    written = [path for path in order if path.startswith("step-00000004")]
    assert written[-1] == "step-00000004/COMPLETE"
    assert len(written) == 6
    shutil.rmtree(tmp_path / "a")
