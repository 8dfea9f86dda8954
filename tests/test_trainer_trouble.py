"""What a training does when something goes wrong: it skips, counts, names, goes back, or ends with a reason."""

import json
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import start_ranks, train_on
from small_latents import random_clips, write_latents
from small_runs import small_run

import train.loop as loop
from model.errors import BadInput
from train.batch import Batch
from train.config import FeedConfig, GuardConfig, PackingConfig
from train.data import LatentDataset
from train.guard import ENOUGH, Guard
from train.loop import train
from train.ranks import Ranks
from train.trouble import Trouble
from train.watchdog import EXIT_CODE, blame


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("data"), random_clips(40, ((3, 4, 4), (1, 4, 4))))


config_for = partial(small_run, steps=10, save_every=4)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spoil(monkeypatch: pytest.MonkeyPatch, steps: Callable[[int], bool], factor: float) -> None:
    """Multiply the loss of some steps, counted from 1 in this process."""
    real, calls = loop.token_errors, [0]

    def spoiled(v: torch.Tensor, batch: Batch) -> torch.Tensor:
        calls[0] += 1
        return real(v, batch) * (factor if steps(calls[0]) else 1.0)

    monkeypatch.setattr(loop, "token_errors", spoiled)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(loop.Ema):
        def update(self, model: torch.nn.Module) -> None:
            super().update(model)
            seen.append({name: p.detach().clone() for name, p in model.named_parameters()})

    monkeypatch.setattr(loop, "Ema", Watched)
    spoil(monkeypatch, lambda step: step in (3, 4, 8), float("nan"))
    train(config_for(dataset, tmp_path, guard=GuardConfig(skips=3)), lambda row: None)
    rows = lines(tmp_path / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 0, 1, 2, 2, 2, 2, 3, 3, 3]
    assert [row["loss"] is None for row in rows] == [step in (3, 4, 8) for step in range(1, 11)]
    assert "skipped, 2 in a row" in rows[3]["note"]
    assert len(seen) == 7  # no weight moved, and no average
    assert all(x.isfinite().all() for weights in seen for x in weights.values())
    events = lines(tmp_path / "events.jsonl")
    assert [(event["step"], event["event"]) for event in events] == [(s, "skipped") for s in (3, 4, 8)]
    ids = {clip.clip_id for clip in LatentDataset(str(dataset)).clips}
    assert all(event["clips"] and set(event["clips"]) <= ids for event in events)


def test_too_many_in_a_row_end_the_run_with_the_clips(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step: step > 2, float("inf"))
    with pytest.raises(
        BadInput, match=r"step 5: loss (inf|nan), .* in 3 steps in a row: the run diverged"
    ) as told:
        train(config_for(dataset, tmp_path, guard=GuardConfig(skips=3)), lambda row: None)
    clips = lines(tmp_path / "events.jsonl")[-1]["clips"]
    assert all(clip in str(told.value) for clip in clips)


def test_a_spike_is_told_or_the_run_goes_back(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ENOUGH + 6
    spoil(monkeypatch, lambda step: step == ENOUGH + 3, 100.0)
    train(config_for(dataset, tmp_path / "note", steps=steps), lambda row: None)
    rows = lines(tmp_path / "note" / "metrics.jsonl")
    assert [row["spikes"] for row in rows][-5:] == [0, 1, 1, 1, 1]
    assert "is far above those before" in rows[ENOUGH + 2]["note"]

    monkeypatch.undo()
    spoil(monkeypatch, lambda step: step == ENOUGH + 3, 100.0)
    config = config_for(dataset, tmp_path / "back", steps=steps, guard=GuardConfig(spike="rollback"))
    told: list[dict] = []
    train(config, told.append)
    events = lines(tmp_path / "back" / "events.jsonl")
    assert [event["event"] for event in events] == ["spike", "rolled back"]
    kept = events[1]["to"]  # which one was begun last depends on how fast the disk is
    assert 0 < kept < ENOUGH + 3
    assert events[1] == {"step": ENOUGH + 3, "event": "rolled back", "to": kept}
    assert [row["step"] for row in told] == [*range(1, ENOUGH + 3), *range(kept + 1, steps + 1)]
    rows = lines(tmp_path / "back" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))  # what was undone has gone
    assert any(f"back to the checkpoint of step {kept}" in row.get("note", "") for row in told)
    # The clips since the checkpoint are left out, so what follows is not what was undone.
    before = {row["step"]: row["loss"] for row in told[: ENOUGH + 2]}
    assert all(row["loss"] != before[row["step"]] for row in rows[kept:] if row["step"] in before)


def test_a_run_that_jumps_again_and_again_ends(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step: step > ENOUGH, 1e4)
    guard = GuardConfig(spike="rollback", rollbacks=2)
    with pytest.raises(BadInput, match="jumped again after going back 2 times"):
        train(config_for(dataset, tmp_path, steps=100, guard=guard), lambda row: None)


def test_the_guard_by_hand() -> None:
    guard = Guard(GuardConfig(window=30, spike_deviations=5))
    for number in range(ENOUGH - 1):
        assert guard.judge(1.0 + 0.01 * (number % 3), 1.0) == "fine"
    assert guard.limit() is None
    assert guard.judge(99.0, 1.0) == "fine"  # too few to tell
    # Median 1.01, median distance from it 0.01.
    assert guard.limit() == pytest.approx(1.01 + 5 * 1.4826 * 0.01)
    assert guard.judge(1.05, float("nan")) == "skip"
    assert guard.judge(1.2, 1.0) == "spike"
    other = Guard(GuardConfig(window=30, spike_deviations=5))
    other.remember(json.loads(json.dumps(guard.seen())))
    assert (other.limit(), other.skipped, other.spikes) == (guard.limit(), 1, 1)
    assert Guard(GuardConfig(spike="ignore")).limit() is None


def spoiled_clips(dataset: Path, to: Path, count: int) -> tuple[Path, set[str]]:
    """A copy of the dataset of which the first clips are damaged."""
    shutil.copytree(dataset, to)
    data = LatentDataset(str(to))
    for clip in data.clips[:count]:
        with open(Path(data.root, clip.shard), "r+b") as file:
            file.seek(clip.latent[0])
            file.write(b"\xff" * clip.latent[1])
    return to, {clip.clip_id for clip in data.clips[:count]}


def test_damaged_clips_are_left_out_counted_and_named(dataset: Path, tmp_path: Path) -> None:
    place, damaged = spoiled_clips(dataset, tmp_path / "data", 4)
    config = config_for(place, tmp_path / "run", steps=24, feed=FeedConfig(corrupt_share=0.2))
    train(config, lambda row: None)
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    first = [row for row in rows if row["epoch"] == 0]
    assert sum(row["damaged"] for row in first) == 4
    assert sum(row["captions"]["clips"] for row in first) == 36
    events = lines(tmp_path / "run" / "events.jsonl")
    assert {event["clip_id"] for event in events} == damaged
    assert all("cannot be read" in event["error"] for event in events)


def test_a_dataset_with_too_many_damaged_clips_ends_the_run(dataset: Path, tmp_path: Path) -> None:
    place, _ = spoiled_clips(dataset, tmp_path / "data", 20)
    config = config_for(place, tmp_path / "run", steps=100, feed=FeedConfig(corrupt_share=0.25))
    message = (
        r"clips shown could not be read, more than --feed.corrupt_share=0.25 allows. .*events.jsonl names"
    )
    with pytest.raises(BadInput, match=message):
        train(config, lambda row: None)


def test_damaged_clips_on_ranks_of_their_own_keep_the_ranks_together(dataset: Path, tmp_path: Path) -> None:
    """One rank's packs lose clips, or all of them; all ranks come to the same step and epoch."""
    place, damaged = spoiled_clips(dataset, tmp_path / "data", 5)
    config = config_for(place, tmp_path / "run", steps=16, packing=PackingConfig(budget=12))
    train_on(config, 2)
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 17))
    seen = {event["clip_id"] for event in lines(tmp_path / "run" / "events.jsonl")}
    assert seen
    assert seen <= damaged


#: One rank stands still before its third step.
STALL = """
import os, time
real = loop.count_step
def stalling(*args, **more):
    stalling.calls += 1
    if os.environ["RANK"] == "1" and stalling.calls == 3:
        loop_feed_hangs()
    return real(*args, **more)
def loop_feed_hangs():
    time.sleep(1000)
stalling.calls = 0
class Hanging(loop.Feed):
    steps = 0
    def __next__(self):
        Hanging.steps += 1
        if os.environ["RANK"] == "1" and Hanging.steps == 3:
            loop_feed_hangs()
        return super().__next__()
loop.Feed = Hanging
"""


def test_the_rank_that_stands_still_is_named_and_the_run_ends(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path, guard=GuardConfig(stall_s=3.0))
    ranks = start_ranks(config, 2, STALL)
    try:
        told = [process.communicate(timeout=120)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [EXIT_CODE, EXIT_CODE]
    assert all(re.search(r"The others wait for rank 1 \(data, \d+ s\)", text) for text in told), told
    stacks = (tmp_path / "stalls" / "rank-1.txt").read_text()
    assert "loop_feed_hangs" in stacks
    assert (tmp_path / "stalls" / "rank-0.txt").is_file()


def test_who_is_to_blame() -> None:
    def at(step: int, part: str) -> dict[str, float | str]:
        return {"step": step, "part": part, "standing_s": 100.0}

    assert blame({0: at(5, "exchange"), 1: at(5, "data")}, 2) == "The others wait for rank 1 (data, 100 s)."
    assert (
        blame({0: at(6, "exchange"), 1: at(5, "exchange")}, 2)
        == "The others wait for rank 1 (exchange, 100 s)."
    )
    assert "All ranks are there: 0 (compute, 100 s)" in blame({0: at(5, "compute")}, 1)
    assert blame({0: at(5, "exchange"), 2: at(5, "exchange")}, 3) == "Nothing was heard of rank 1."


def test_a_run_that_only_pauses_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    def log(row: dict) -> None:
        if row["step"] == 2:
            time.sleep(0.5)

    train(config_for(dataset, tmp_path, guard=GuardConfig(stall_s=60.0)), log)
    assert not (tmp_path / "stalls").exists()


def test_events_that_will_come_again_are_dropped(tmp_path: Path) -> None:
    """Up to the last roll-back they have happened for good; behind it, those of steps that are undone have not."""
    told = [
        {"step": 3, "event": "damaged clip"}, {"step": 9, "event": "spike"},
        {"step": 9, "event": "rolled back", "to": 4},
        {"step": 5, "event": "damaged clip"}, {"step": 7, "event": "skipped"},
    ]  # fmt: skip
    for step, rollbacks, kept in (
        (6, 1, told[:4]),
        (4, 1, told[:3]),
        (4, 0, told[:1]),
        (0, 0, []),
        (9, 1, told),
    ):
        place = tmp_path / "events.jsonl"
        place.write_text(
            "".join(json.dumps(event) + "\n" for event in told) + 'half a li{"step": 1}\n{"step": 8, "ev'
        )
        Trouble(tmp_path, Ranks(0, 1, torch.device("cpu")), [], step, rollbacks)
        assert lines(place) == kept


def test_where_no_clip_can_be_read_no_weight_moves_and_the_run_ends(dataset: Path, tmp_path: Path) -> None:
    """A store that is gone for a while must not cost the epoch."""
    train(config_for(dataset, tmp_path / "begun", steps=4), lambda row: None)
    gone = False

    class Gone(LatentDataset):
        def _bytes(self, shard: str, span: tuple[int, int]) -> bytes:
            if gone:
                raise OSError("connection refused")
            return super()._bytes(shard, span)

    def log(row: dict) -> None:
        nonlocal gone
        gone = row["step"] >= 4

    feed = FeedConfig(tries=1, corrupt_share=1.0)
    config = config_for(dataset, tmp_path / "run", steps=100, feed=feed, guard=GuardConfig(skips=3))
    with pytest.raises(
        BadInput, match=r"none of its clips could be read, as of others before it; 3 steps in a row"
    ):
        train(config, log, Gone(str(dataset)))
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] is None
    assert "none of its clips could be read: skipped, 2 in a row" in rows[-1]["note"]
    assert rows[-1]["skipped"] == 2


def test_a_jump_before_the_first_checkpoint_is_told(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step: step == ENOUGH + 3, 100.0)
    guard = GuardConfig(spike="rollback")
    train(config_for(dataset, tmp_path, steps=ENOUGH + 4, save_every=1000, guard=guard), lambda row: None)
    assert "no checkpoint yet to go back to" in lines(tmp_path / "metrics.jsonl")[ENOUGH + 2]["note"]
