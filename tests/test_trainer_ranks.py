"""Several ranks where one has trouble of its own, or draws, saves, dies: they stay together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import ROOT, start_ranks, train_on
from small_latents import random_clips, random_given, with_sentences, write_with_vae
from small_runs import small_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.config import SizeConfig
from model.pieces import Pieces
from train.checkpoint import checkpoints
from train.config import GuardConfig, OptimConfig, ParallelConfig, ValidationConfig
from train.guard import ENOUGH
from train.loop import train

SHARD, SHARE = ParallelConfig(shard=True), ParallelConfig(ulysses=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = with_sentences(random_clips(42, ((3, 4, 4), (3, 6, 2), (1, 4, 4))))
    folders = (tmp_path_factory.mktemp(name) for name in ("data", "vae"))
    return write_with_vae(*folders, clips, random_given(clips))


config_for = partial(
    small_run,
    steps=8,
    save_every=4,
    log_every=1,
    model=SizeConfig(width=20, depth=2, heads=2, ffn=36),
    optim=OptimConfig(lr=1e-2, warmup=3, ema=0.9),
    validation=ValidationConfig(every=0),
)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events_of(run: Path) -> list[dict]:
    place = run / "events.jsonl"
    return [json.loads(line) for line in place.read_text().splitlines()] if place.is_file() else []


def assert_same_losses(ours: Path, theirs: Path, near: float = 1e-6) -> None:
    a, b = rows_of(ours), rows_of(theirs)
    assert [row["step"] for row in a] == [row["step"] for row in b]
    for ours_row, theirs_row in zip(a, b, strict=True):
        for key in ("loss", "grad_norm"):
            assert ours_row[key] == pytest.approx(theirs_row[key], rel=near, abs=near)
        for key in ("tokens", "captions_total"):
            assert ours_row[key] == theirs_row[key]
        for key in ("validation", "loss_by_level"):
            assert ours_row.get(key, {}) == pytest.approx(theirs_row.get(key, {}), rel=near, abs=near)


#: Ranks that cannot read some clips. UNREAD is {rank: places of clips in their order}.
UNREADABLE = """
import os
from train.data import LatentDataset
real = LatentDataset._bytes
def failing(self, shard, span):
    mine = {tuple(CLIPS[place]) for place in UNREAD.get(int(os.environ["RANK"]), ())}
    if any(shard == s and span[0] <= at < span[0] + span[1] for s, at in mine):
        raise OSError("connection reset")
    return real(self, shard, span)
LatentDataset._bytes = failing
"""


def unreadable(dataset: Path, unread: dict[int, tuple[int, ...]]) -> str:
    from train.data import LatentDataset

    clips = [(clip.shard, clip.latent[0]) for clip in LatentDataset(str(dataset)).clips]
    return f"CLIPS, UNREAD = {clips!r}, {unread!r}\n{UNREADABLE}"


def test_ranks_that_share_tokens_agree_where_one_cannot_read_a_clip(dataset: Path, tmp_path: Path) -> None:
    """What one of them reads the other takes from it; what neither reads is left out once. So in validation."""
    config = config_for(
        dataset, tmp_path / "one", steps=8, validation=ValidationConfig(4, clips=2, samples=0)
    )
    config = replace(config, feed=replace(config.feed, tries=1))
    whole = 16
    train_on(config, 1, unreadable(dataset, {0: (whole,)}))
    every_third = tuple(n for n in range(42) if n % 3 == 0 and n != whole)
    for number, unread in enumerate(
        ({1: (*every_third, whole), 0: (whole,)}, {0: (*every_third, whole), 1: (whole,)})
    ):
        run = tmp_path / f"two{number}"
        train_on(replace(config, out=str(run), parallel=SHARE), 2, unreadable(dataset, unread))
        assert_same_losses(run, tmp_path / "one")
        assert [row["damaged"] for row in rows_of(run)] == [
            row["damaged"] for row in rows_of(tmp_path / "one")
        ]
        assert sum(row["damaged"] for row in rows_of(run)) >= 1
        assert {event["clip_id"] for event in events_of(run)} == {
            event["clip_id"] for event in events_of(tmp_path / "one")
        }


def test_the_wait_that_is_told_is_that_of_the_slowest_rank(dataset: Path, tmp_path: Path) -> None:
    slow = """
import os, time
class Slow(loop.Feed):
    def __next__(self):
        time.sleep(1.0 if os.environ["RANK"] == "1" else 0.0)
        return super().__next__()
loop.Feed = Slow
"""
    train_on(config_for(dataset, tmp_path, steps=4, log_every=4), 2, slow)
    assert rows_of(tmp_path)[0]["data_wait_share"] > 0.5


@pytest.mark.parametrize("parallel", [SHARD, SHARE])
def test_videos_are_drawn_by_several_ranks(dataset: Path, tmp_path: Path, parallel: ParallelConfig) -> None:
    validation = ValidationConfig(every=4, clips=2, samples=1)
    config = config_for(dataset, tmp_path / "two", validation=validation)
    train(
        replace(config, out=str(tmp_path / "one"), accumulate=1 if parallel is SHARE else 2), lambda row: None
    )
    train_on(replace(config, parallel=parallel), 2)
    assert_same_losses(tmp_path / "two", tmp_path / "one")  # drawing has left the model as it was
    pictures = {}
    for name in ("one", "two"):
        told = EventAccumulator(str(tmp_path / name / "tensorboard"), size_guidance={"images": 0}).Reload()
        pictures[name] = told.Images("samples/0")
    assert [x.step for x in pictures["two"]] == [x.step for x in pictures["one"]] == [4, 8]
    assert all((x.width, x.height) == (y.width, y.height) for x, y in zip(*pictures.values(), strict=True))


#: Writes the state again as soon as it was read, to AGAIN.
WRITES_AGAIN = """
from train.checkpoint import snapshot, write_pieces
from train.ranks import Ranks
from train.store import Store
import os, torch
real = loop.load_checkpoint
def loaded(folder, model, optimizer, ema):
    found = real(folder, model, optimizer, ema)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.device("cpu"))
    write_pieces(Store(AGAIN), "read", snapshot(model, optimizer, ema, ranks), ranks.rank, ranks.size)
    return found
loop.load_checkpoint = loaded
"""


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_other_ranks_read_is_bit_for_bit_what_two_saved(
    dataset: Path, tmp_path: Path, optimizer: str
) -> None:
    """Weights, moments and averages; three ranks cut most tensors elsewhere than two."""
    optim = OptimConfig(name=optimizer, lr=1e-2, warmup=0, ema=0.9)  # type: ignore[arg-type]
    config = config_for(dataset, tmp_path / "two", steps=4, optim=optim, parallel=SHARD)
    saved = train_on(config, 2)
    for count in (1, 2, 3):
        run = tmp_path / f"on{count}"
        shutil.copytree(tmp_path / "two", run)
        again = f"AGAIN = {str(tmp_path / f'again{count}')!r}\n" + WRITES_AGAIN
        train_on(replace(config, out=str(run), steps=5), count, again)
        for name in ("model", "ema", "optimizer"):
            ours, theirs = Pieces(f"{tmp_path}/again{count}/read", name).whole(), Pieces(saved, name).whole()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_kill_9_of_sharded_ranks_while_they_write(dataset: Path, tmp_path: Path) -> None:
    """Killed at any moment, the run goes on bit for bit on as many ranks; and on others, without trouble."""
    config = config_for(dataset, tmp_path / "killed", steps=60, save_every=1, keep=2, parallel=SHARD)
    train_on(replace(config, out=str(tmp_path / "whole"), save_every=60), 2)
    resumed = set()
    for rows in (5, 20, 33):
        ranks = start_ranks(config, 2)
        metrics = tmp_path / "killed" / "metrics.jsonl"
        try:
            while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= rows):
                assert all(process.poll() is None for process in ranks), ranks[0].communicate()
                time.sleep(0.01)
        finally:
            for process in ranks:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        resumed.add(json.loads(metrics.read_text().splitlines()[-1])["resumed_at"])
    shutil.copytree(tmp_path / "killed", tmp_path / "three")
    train_on(config, 2)
    ours, theirs = rows_of(tmp_path / "killed"), rows_of(tmp_path / "whole")
    assert [(row["step"], row["loss"], row["grad_norm"]) for row in ours] == [
        (row["step"], row["loss"], row["grad_norm"]) for row in theirs
    ]
    last = [Path(tmp_path, name, "checkpoints", "step-00000060") for name in ("killed", "whole")]
    for name in ("model", "ema", "optimizer"):
        a, b = (Pieces(str(folder), name).whole() for folder in last)
        assert all(torch.equal(a[key], b[key]) for key in b)
    assert len(resumed) > 1  # where a checkpoint took long to write, two resumed at the same
    begun = checkpoints(tmp_path / "three")[-1]
    place = train_on(replace(config, out=str(tmp_path / "three")), 3)
    assert place.endswith("step-00000060")
    assert rows_of(tmp_path / "three")[-1]["resumed_at"] == int(begun.name.removeprefix("step-"))


def test_two_sharded_ranks_go_back_together(dataset: Path, tmp_path: Path) -> None:
    """A jump of the loss on all ranks; weights of both are those of the checkpoint again."""
    spoil = f"""
real, calls = loop.token_errors, [0]
def spoiled(v, batch):
    calls[0] += 1
    return real(v, batch) * (100.0 if calls[0] == {ENOUGH + 3} else 1.0)
loop.token_errors = spoiled
# Where the machine is busy a checkpoint begins later than it is due, and the two runs would go back to different ones.
begin = loop.Saver.begin
def begin_and_wait(self, *state):
    begin(self, *state)
    self.wait()
loop.Saver.begin = begin_and_wait
"""
    guard = GuardConfig(spike="rollback")
    config = config_for(dataset, tmp_path / "two", steps=ENOUGH + 8, guard=guard, parallel=SHARD)
    train_on(config, 2, spoil)
    train_on(
        replace(config, out=str(tmp_path / "one"), accumulate=2, parallel=ParallelConfig()),
        1,
        spoil.replace(str(ENOUGH + 3), f"{2 * ENOUGH + 5} or calls[0] == {2 * ENOUGH + 6}"),
    )
    assert [event["event"] for event in events_of(tmp_path / "two")] == ["spike", "rolled back"]
    assert_same_losses(tmp_path / "two", tmp_path / "one", near=1e-5)


@pytest.mark.parametrize("parallel", [SHARD, SHARE])
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_blocks_on_several_ranks(dataset: Path, tmp_path: Path, parallel: ParallelConfig) -> None:
    config = config_for(dataset, tmp_path / "two", steps=3, compile=True, parallel=parallel)
    train(
        config_for(dataset, tmp_path / "one", steps=3, accumulate=1 if parallel is SHARE else 2),
        lambda row: None,
    )
    train_on(config, 2)
    assert_same_losses(tmp_path / "two", tmp_path / "one", near=1e-5)


def test_muon_and_recomputing_where_ranks_share_tokens(dataset: Path, tmp_path: Path) -> None:
    optim = OptimConfig(name="muon", lr=3e-3, warmup=3, ema=0.9)
    config = config_for(dataset, tmp_path / "one", optim=optim)
    train(config, lambda row: None)
    both = ParallelConfig(shard=True, ulysses=2)
    train_on(replace(config, out=str(tmp_path / "two"), recompute="full", parallel=both), 2)
    assert_same_losses(tmp_path / "two", tmp_path / "one", near=2e-3)


def test_half_precision_under_sharding_is_near_that_of_one_process(dataset: Path, tmp_path: Path) -> None:
    """Gathered weights are in half precision there; the sums of gradients, moments and averages are not."""
    config = config_for(dataset, tmp_path / "one", precision="bf16", accumulate=2)
    one = train(config, lambda row: None)
    two = train_on(replace(config, out=str(tmp_path / "two"), accumulate=1, parallel=SHARD), 2)
    assert_same_losses(tmp_path / "two", tmp_path / "one", near=2e-2)
    for name in ("model", "ema", "optimizer"):
        ours, theirs = Pieces(two, name).whole(), Pieces(one, name).whole()
        assert all(x.dtype == theirs[key].dtype == torch.float32 for key, x in ours.items())


def test_sigterm_while_a_checkpoint_is_written(dataset: Path, tmp_path: Path) -> None:
    """Both are finished: the one that was being written, and the one of the end."""
    slow = """
import time
from train.store import Store
real = Store.write_tensors
def write(self, path, *args):
    time.sleep(1.0)
    return real(self, path, *args)
Store.write_tensors = write
"""
    config = config_for(dataset, tmp_path, steps=100_000, save_every=3, keep=2, parallel=SHARD)
    ranks = start_ranks(config, 2, slow)
    metrics = tmp_path / "metrics.jsonl"
    try:
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 4):
            assert all(process.poll() is None for process in ranks), ranks[0].communicate()
            time.sleep(0.01)
        for process in ranks:
            process.send_signal(signal.SIGTERM)
        for process in ranks:
            errors = process.communicate(timeout=60)[1]
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()
    last = rows_of(tmp_path)[-1]["step"]
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step-00000003", f"step-{last:08d}"]


def test_muon_exchanges_its_matrices_in_parts(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many go at once changes no number."""
    optim = OptimConfig(name="muon", lr=3e-3, warmup=3, ema=0.9)
    config = config_for(dataset, tmp_path / "together", optim=optim, steps=4, parallel=SHARD)
    train_on(config, 2)
    train_on(replace(config, out=str(tmp_path / "parts")), 2, "import train.muon; train.muon.AT_ONCE = 500\n")
    assert_same_losses(tmp_path / "parts", tmp_path / "together", near=0)


def test_torchrun_starts_the_command(dataset: Path, tmp_path: Path) -> None:
    """As the README says; nothing in the processes but what torchrun gives them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "pipelines.train"]
    command += [
        f"--dataset={dataset}",
        f"--out={tmp_path}",
        "--steps=4",
        "--device=cpu",
        "--packing.budget=60",
    ]
    command += [
        "--model.width=16",
        "--model.depth=1",
        "--model.heads=1",
        "--validation.every=0",
        "--log_every=1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/checkpoints/step-00000004: loss" in done.stdout
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]
