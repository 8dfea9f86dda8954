"""Ways to share the work of a training, on processes of this machine (gloo): none changes what is computed."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from ranks import train_on
from small_latents import random_clips, random_given, with_sentences, write_latents
from small_runs import small_run

from model.config import SizeConfig
from model.dit import load_dit
from model.errors import BadInput
from model.pieces import Pieces
from train.config import OptimConfig, ParallelConfig, ValidationConfig
from train.loop import train

#: Writes the clips that each rank is given, by step, beside the run.
SEEN = """
import json, os
real = loop.count_step
def watched(batches, *args, **more):
    with open(PLACE + os.environ["RANK"], "a") as file:
        file.write(json.dumps([clip for batch in batches for clip in batch.clip_ids]) + "\\n")
    return real(batches, *args, **more)
loop.count_step = watched
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = with_sentences(random_clips(42, ((3, 4, 4), (3, 6, 2), (1, 4, 4))))
    return write_latents(tmp_path_factory.mktemp("data"), clips, given=random_given(clips))


config_for = partial(
    small_run,
    steps=20,
    save_every=20,
    model=SizeConfig(width=20, depth=2, heads=2, ffn=36),
    optim=OptimConfig(lr=1e-2, warmup=3, schedule="cosine", ema=0.9),
    validation=ValidationConfig(every=10, clips=2, samples=0),
)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(ours: Path, theirs: Path, near: float = 1e-6) -> None:
    """Losses, gradients, validation and counts of the same steps."""
    a, b = rows_of(ours), rows_of(theirs)
    assert len(a) == len(b) == 20
    for ours_row, theirs_row in zip(a, b, strict=True):
        for key in ("tokens", "epoch", "captions_total"):
            assert ours_row[key] == theirs_row[key]
        for key in ("loss", "grad_norm"):
            assert ours_row[key] == pytest.approx(theirs_row[key], rel=near, abs=near)
        for key in ("loss_by_level", "validation"):
            assert ours_row.get(key, {}) == pytest.approx(theirs_row.get(key, {}), rel=near, abs=near)
    assert [sorted(row["conditions"]) for row in a] == [sorted(row["conditions"]) for row in b]


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, two packs a step."""
    run = tmp_path_factory.mktemp("alone")
    train(config_for(dataset, run, accumulate=2), lambda row: None)
    return run


def test_the_run_validates_as_it_was_told(alone: Path) -> None:
    told = {row["step"]: row["validation"] for row in rows_of(alone) if "validation" in row}
    assert list(told) == [10, 20]
    assert list(told[10]) == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert all(told[10][level] != told[20][level] for level in told[10])


@pytest.mark.parametrize("count", [2, 3])
def test_sharded_weights_equal_one_process(dataset: Path, tmp_path: Path, count: int) -> None:
    """Three ranks have uneven rows of most weights: of 20, 36, 60 and 8."""
    one = train(config_for(dataset, tmp_path / "one", accumulate=count), lambda row: None)
    place = train_on(config_for(dataset, tmp_path / "many", parallel=ParallelConfig(shard=True)), count)
    assert_same_run(tmp_path / "many", tmp_path / "one")
    # Each rank wrote rows of its own, averages among them; together they are those of one process.
    assert len(list(Path(place).glob(f"ema-*-of-0000{count}.safetensors"))) == count
    for name in ("model", "ema", "optimizer"):
        ours, theirs = Pieces(place, name).whole(), Pieces(one, name).whole()
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=2e-5)
    load_dit(place)


def test_ranks_that_share_tokens_equal_one_process(dataset: Path, tmp_path: Path) -> None:
    """Packs of an odd number of tokens are cut unevenly; texts are whole on both."""
    train(config_for(dataset, tmp_path / "one"), lambda row: None)
    train_on(config_for(dataset, tmp_path / "two", parallel=ParallelConfig(ulysses=2)), 2)
    assert_same_run(tmp_path / "two", tmp_path / "one")
    assert any(row["tokens"] % 2 for row in rows_of(tmp_path / "one"))


def test_both_at_once_on_four_ranks(dataset: Path, alone: Path, tmp_path: Path) -> None:
    parallel = ParallelConfig(shard=True, ulysses=2)
    train_on(config_for(dataset, tmp_path, parallel=parallel), 4)
    assert_same_run(tmp_path, alone)


def test_accumulating_under_sharding_equals_more_ranks(dataset: Path, tmp_path: Path) -> None:
    train(config_for(dataset, tmp_path / "one", accumulate=4), lambda row: None)
    train_on(config_for(dataset, tmp_path / "two", accumulate=2, parallel=ParallelConfig(shard=True)), 2)
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_muon_under_sharding(dataset: Path, tmp_path: Path) -> None:
    """Its half precision makes more of the last digit: 1e-3."""
    optim = OptimConfig(name="muon", lr=3e-3, warmup=3, ema=0.9, weight_decay=0.1)
    train(config_for(dataset, tmp_path / "one", accumulate=2, optim=optim), lambda row: None)
    train_on(config_for(dataset, tmp_path / "two", optim=optim, parallel=ParallelConfig(shard=True)), 2)
    assert_same_run(tmp_path / "two", tmp_path / "one", near=2e-3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_activation_checkpointing_changes_no_number(
    dataset: Path, alone: Path, tmp_path: Path, recompute: Literal["selective", "full"]
) -> None:
    train(config_for(dataset, tmp_path, accumulate=2, recompute=recompute), lambda row: None)
    assert_same_run(tmp_path, alone, near=1e-7)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_blocks_compute_the_same(dataset: Path, alone: Path, tmp_path: Path) -> None:
    train_on(config_for(dataset, tmp_path, accumulate=2, compile=True), 1)
    assert_same_run(tmp_path, alone, near=1e-5)


def test_saved_on_two_ranks_goes_on_on_one_and_on_three(dataset: Path, tmp_path: Path) -> None:
    """No clip of the epoch is repeated or lost, and weights, moments and averages are the same on any ranks."""
    parallel = ParallelConfig(shard=True)
    config = config_for(dataset, tmp_path / "two", steps=2, save_every=2, parallel=parallel)
    train_on(config, 2, before=f"PLACE = {str(tmp_path / 'two')!r}" + SEEN)
    begun = clips_seen(tmp_path, "two")
    whole = [clip for step in begun for clip in step]
    assert len(whole) < 40  # the epoch is not over; 2 of 42 are held back
    for count, name in ((1, "one"), (3, "three")):
        run = tmp_path / name
        shutil.copytree(tmp_path / "two", run)
        more = replace(config, out=str(run), steps=12)
        train_on(more, count, before=f"PLACE = {str(run)!r}" + SEEN)
        rows = rows_of(run)
        assert rows[2]["resumed_at"] == 2
        steps = clips_seen(tmp_path, name)
        rest = [clip for row, step in zip(rows[2:], steps, strict=True) if row["epoch"] == 0 for clip in step]
        assert len(whole + rest) == len(set(whole + rest)) == 40
        pieces = sorted(path.name for path in (run / "checkpoints/step-00000012").glob("model*"))
        assert len(pieces) == count


def clips_seen(folder: Path, name: str) -> list[list[str]]:
    """Clips by step, of all ranks together."""
    by_rank = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob(f"{name}[0-9]"))
    ]
    return [[clip for rank in step for clip in rank] for step in zip(*by_rank, strict=True)]


def test_what_cannot_be_shared_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ulysses=2 does not divide the 1 ranks"):
        train(config_for(dataset, tmp_path, parallel=ParallelConfig(ulysses=2)), lambda row: None)
    with pytest.raises(AssertionError, match="2 attention heads cannot be shared by 4 processes"):
        train_on(config_for(dataset, tmp_path, parallel=ParallelConfig(ulysses=4)), 4)
