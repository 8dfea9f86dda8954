"""Going on with a run under other circumstances: what stays the same run, what is refused, where its data goes on."""

import io
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from small_latents import VAE_ID, random_clips, random_given, write_latents
from small_runs import small_run

from model.dit import load_dit
from model.errors import BadInput
from pipelines.progress import Progress
from pipelines.train import shown_on, train_here
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.ema import Ema
from train.feed import Feed
from train.loop import train
from train.optim import build_optimizer
from train.packing import Cursor
from train.resume import next_packs

SIZES = ((3, 4, 4), (3, 6, 2), (1, 4, 4))


def write(folder: Path, count: int = 40, **about: object) -> Path:
    clips = random_clips(count, SIZES)
    return write_latents(folder, clips, given=random_given(clips), **about)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"), text_id="embedded/aa")


config_for = partial(small_run, steps=3, save_every=1)


def shown(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Epoch and id of each clip that a training shows the model, in order; it may prepare a step more than it takes."""
    seen: list[list[tuple[int, str]]] = []

    class Watched(Feed):
        def _prepare(self, cursor: Cursor):  # type: ignore[no-untyped-def]
            count = self._ranks * self._config.accumulate
            packs, _ = self._plan.step(cursor, count)
            seen.append([(cursor.epoch, self._data.clips[n].clip_id) for pack in packs for n in pack])
            return super()._prepare(cursor)

    monkeypatch.setattr("train.loop.Feed", Watched)
    rows: list[dict] = []
    train(config, rows.append)
    return [clip for step in seen[: len(rows)] for clip in step]


@pytest.mark.parametrize(("before", "now"), [(0.0, 0.7), (0.7, 0.0)])
def test_another_share_left_out_ends_the_epoch_and_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: float, now: float
) -> None:
    config = config_for(dataset, tmp_path, left_out=before)
    first = shown(config, monkeypatch)
    assert {epoch for epoch, _ in first} == {0}
    assert len(first) < 40
    rows: list[dict] = []
    train(replace(config, left_out=now, steps=4), rows.append)
    assert rows[0]["epoch"] == 1
    assert rows[0]["note"].startswith(f"epoch 0 ended after 3 packs: left_out was {before} and is {now}")
    # From there on each clip comes once an epoch, and no pack is too full.
    rest = shown(replace(config, left_out=now, steps=40), monkeypatch)
    last = rest[-1][0]
    assert last > 2
    for epoch in range(2, last):
        assert sorted(rest.count(clip) for clip in set(rest) if clip[0] == epoch) == [1] * 40
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in told if "note" in row] == [4]
    assert all(row["padding_share"] >= 0 for row in told)


def test_where_the_data_goes_on(tmp_path: Path) -> None:
    config = config_for(tmp_path, tmp_path)
    before = {"train": {"left_out": 0.5}}
    half, other = replace(config, left_out=0.5), config
    assert next_packs(before, Cursor(2, 12, 6), half) == (Cursor(2, 12, 6), None)
    assert next_packs(before, Cursor(2, 12, 6), other)[0] == Cursor(3)
    # At an epoch's beginning nothing is lost.
    assert next_packs(before, Cursor(2), other) == (Cursor(2), None)


def test_how_many_packs_a_step_takes_goes_with_the_checkpoint(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path, accumulate=2, steps=2)
    folder = train(config, log=lambda row: None)
    model, _ = load_dit(folder, "model")
    optimizer = build_optimizer(model, config.optim)
    progress, _ = load_checkpoint(folder, model, optimizer, Ema(model, 0.9))
    assert progress.cursor == Cursor(0, 4, group=2)


def test_other_data_is_another_run(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path / "run")
    train(config, log=lambda row: None)

    def refused(data: Path, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            train(replace(config, dataset=str(data), steps=5), log=lambda row: None)

    for count in (12, 80):
        other = write(tmp_path / str(count), count, text_id="embedded/aa")
        refused(
            other, rf"clips of the dataset \(40 of digest \w+ before, now {count} of .*Give the same ones"
        )
    clips = random_clips(40, SIZES)
    bare = write_latents(tmp_path / "bare", clips, text_id="embedded/aa")  # nothing is there by itself
    refused(bare, r"clips of the dataset \(40 of digest \w+ before, now 40 of digest")
    refused(write(tmp_path / "text", text_id="t5"), r"text_id \(embedded/aa before, now t5\)")


def test_data_may_move(dataset: Path, tmp_path: Path) -> None:
    config = config_for(dataset, tmp_path / "run")
    train(config, log=lambda row: None)
    moved = shutil.copytree(dataset, tmp_path / "moved")
    rows: list[dict] = []
    train(replace(config, dataset=str(moved), steps=4), rows.append)
    assert [row["step"] for row in rows] == [4]
    assert (moved / "latents" / VAE_ID).is_dir()


@pytest.mark.parametrize("name", ["steps", "accumulate", "save_every", "keep", "log_every"])
def test_counts_below_1_are_refused(name: str) -> None:
    for value in (0, -1):
        with pytest.raises(BadInput, match=f"{name} is {value}, must be 1 or more"):
            TrainConfig(dataset="", out="", **{name: value})


def test_rows_of_a_resumed_run_are_of_the_same_steps(dataset: Path, tmp_path: Path) -> None:
    """A row is the mean since the row before, and a checkpoint may lie between the two."""
    config = config_for(dataset, tmp_path / "whole", steps=12, save_every=3, log_every=4)
    config = replace(config, optim=replace(config.optim, schedule="constant"))
    train(config, lambda row: None)
    parts = replace(config, out=str(tmp_path / "parts"))
    for steps in (3, 6, 7, 12):
        train(replace(parts, steps=steps), lambda row: None)
    ours, theirs = (
        {
            row["step"]: row
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        }
        for name in ("parts", "whole")
    )
    assert list(theirs) == [4, 8, 12]
    assert list(ours) == [3, 4, 6, 7, 8, 12]  # each last step has a row too
    for step, row in theirs.items():
        for key in (
            "loss",
            "loss_by_level",
            "conditions",
            "captions",
            "captions_total",
            "damaged",
            "tokens",
            "lr",
        ):
            assert ours[step][key] == row[key]


def test_checkpoints_given_another_place_by_mistake(dataset: Path, tmp_path: Path) -> None:
    """The run would begin anew and drop its metrics."""
    config = config_for(dataset, tmp_path / "run", save_to=str(tmp_path / "store"))
    train_here(config, lambda row: None)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    for place in (None, str(tmp_path / "other")):
        message = rf"checkpoints are in {tmp_path}/store, the newest is step-00000003; with --save_to={place} it would"
        with pytest.raises(BadInput, match=message):
            train_here(replace(config, save_to=place, steps=5), lambda row: None)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == rows
    shutil.copytree(tmp_path / "store", tmp_path / "other")  # as the message says
    told: list[dict] = []
    place = train_here(replace(config, save_to=str(tmp_path / "other"), steps=5), told.append)
    assert (place, [row["step"] for row in told]) == (f"{tmp_path}/other/step-00000005", [4, 5])


@pytest.mark.parametrize("text", ["", "steps: [", "just words"])
def test_a_settings_file_that_was_cut_off_stops_no_run(dataset: Path, tmp_path: Path, text: str) -> None:
    config = config_for(dataset, tmp_path)
    train_here(config, lambda row: None)
    (tmp_path / "config.yaml").write_text(text)
    rows: list[dict] = []
    train_here(replace(config, steps=4), rows.append)
    assert rows[0]["resumed_at"] == 3
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 4


def test_the_bar_of_a_resumed_run_is_of_what_is_left() -> None:
    last: dict = {}
    with Progress("train", total=1500, unit="steps", stream=io.StringIO()) as bar:
        log = shown_on(bar, last)
        for step in (1010, 1500):
            log({"step": step, "resumed_at": 1000, "loss": 1.0, "tokens_per_s": 5.0, "mfu": None})
            assert (bar.done, bar.total) == (step - 1000, 500)
    assert last["step"] == 1500
