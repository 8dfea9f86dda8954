"""The benchmarks of the trainer at sizes of no meaning: they run, compare like with like, and add up."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.config import PRESETS
from model.pack import Clip, make_pack
from tests.bench import train_cases
from tests.bench.train_batching import filled, padded
from tests.bench.train_cases import Cases
from tests.bench.train_figures import summary
from tests.bench.train_sizes import CPU
from tests.bench.train_speed import Run
from tests.bench.train_steps import Clock, Trained, packed_loss
from train.batch import Batch

ROOT = Path(__file__).parents[1]


def bench(name: str, out: Path, *words: str) -> tuple[dict, list[str]]:
    """What tests/bench/NAME.py wrote as JSON, and its last table, line by line."""
    command = [sys.executable, "-m", f"tests.bench.{name}", "--json", str(out), *words]
    told = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.read_text()), told.rstrip().rpartition("\n\n")[2].splitlines()


@pytest.fixture(scope="module")
def speed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[str]]:
    out = tmp_path_factory.mktemp("bench") / "speed.json"
    return bench("train_speed", out, "--device=cpu", "--only=mfu,lengths,wan,attention,recompute")


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[str]]:
    out = tmp_path_factory.mktemp("bench") / "loader.json"
    return bench("train_loader", out, "--clips=12", "--repeats=1", "--steps=2")


def of_part(found: dict, part: str) -> dict[str, dict]:
    return {row["case"]: row for row in found["rows"] if row["part"] == part}


def test_all_that_can_run_on_a_cpu_was_measured(speed: tuple[dict, list[str]]) -> None:
    found, _ = speed
    assert len(found["rows"]) == 2 * 3 + 3 + 1 + 5 * 2 + 3
    lacking = {row["case"] for row in found["rows"] if row["reason"]}
    assert lacking == {
        f"{name}, {case}" for name in ("varlen", "fa3", "flex") for case in ("128", "many lengths")
    }
    for row in found["rows"]:
        if row["reason"]:
            assert "cannot run here" in row["reason"]
            continue
        assert row["tokens_per_s"] == pytest.approx(row["tokens"] / row["seconds"])
        assert row["mfu"] is row["memory_gib"] is None  # nobody knows the peak of a CPU
        assert (row["compile"], row["ran_out"]) == (False, [])
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["gpu"] is None or torch.cuda.is_available()


def test_packs_of_the_same_budget_hold_what_their_size_tells(speed: tuple[dict, list[str]]) -> None:
    for row in speed[0]["rows"]:
        if row["part"] in ("mfu", "recompute"):
            size = int(row["case"]) if row["part"] == "mfu" else 128
            assert (row["tokens"], row["clips"]) == (512, 512 // size)


def test_the_three_ways_train_on_the_same_clips(speed: tuple[dict, list[str]]) -> None:
    found, table = speed
    ways = of_part(found, "lengths")
    assert list(ways) == ["packed", "padded", "bucketed"]
    assert len({(row["tokens"], row["clips"]) for row in ways.values()}) == 1
    assert ways["packed"]["padding_share"] == 0
    assert 0 < ways["bucketed"]["padding_share"] < ways["padded"]["padding_share"] < 1
    ratio = ways["packed"]["tokens_per_s"] / ways["padded"]["tokens_per_s"]
    (line,) = [line for line in table if "packed / padded" in line]
    assert line.split()[-3:] == [f"{ratio:.3f}", ">=", "1.8"]


def test_wan_has_our_weights_and_our_tokens(speed: tuple[dict, list[str]]) -> None:
    (row,) = of_part(speed[0], "wan").values()
    # Ours has a learned empty text besides.
    assert (
        row["ours"]["weights"] - row["theirs"]["weights"]
        == speed[0]["scale"]["models"]["tiny Wan"]["text_width"]
    )
    assert row["theirs_by_ours"] == row["theirs"]["step_s"] / row["ours"]["step_s"]


def test_recompute_and_attention_are_what_they_are_called(speed: tuple[dict, list[str]]) -> None:
    assert {name: row["recompute"] for name, row in of_part(speed[0], "recompute").items()} == {
        name: name for name in ("none", "selective", "full")
    }
    for name, row in of_part(speed[0], "attention").items():
        assert row["reason"] or name.startswith(row["attention"])


def test_the_last_table_tells_the_main_figures_and_what_is_lacking(speed: tuple[dict, list[str]]) -> None:
    found, table = speed
    assert table[0].startswith("The main figures")
    assert len(table) == 2 + len(found["summary"])
    assert sum("not measured: attention tiny" in line for line in table) == 3  # one line for each backend


def test_without_time_all_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    # As a plain script, and from elsewhere: it finds what it imports by itself.
    out, script = tmp_path / "out.json", ROOT / "tests" / "bench" / "train_speed.py"
    command = [sys.executable, str(script), "--json", str(out), "--device=cpu", "--only=recompute"]
    told = subprocess.run(
        [*command, "--minutes=0"], check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    found, table = json.loads(out.read_text()), told.stdout.rstrip().splitlines()
    assert [row["reason"] for row in found["rows"]] == ["left out: no time"] * 3
    assert table[-1].split()[:4] == ["not", "measured:", "recompute", "tiny"]
    assert table[-1].rstrip(" -").endswith("left out: no time")


def test_what_runs_out_of_memory_is_tried_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_little_memory(trained: Trained, batch: Batch) -> Callable[[], torch.Tensor]:
        real = packed_loss(trained, batch)

        def loss() -> torch.Tensor:
            if len(batch.target) > 128 or trained.dit.recompute == "none":
                raise torch.OutOfMemoryError("a CPU never says so by itself")
            return real()

        return loss

    monkeypatch.setattr(train_cases, "packed_loss", with_little_memory)
    run = Run(CPU, torch.device("cpu"), Clock(minutes=1))
    run.recompute()
    none, selective, full = run.rows
    assert none["reason"] == "out of memory: none, 512 tokens; none, 256 tokens; none, 128 tokens"
    for row, kind in ((selective, "selective"), (full, "full")):
        assert (row["reason"], row["tokens"], row["recompute"]) == (None, 128, kind)
        assert row["ran_out"] == [f"{kind}, 512 tokens", f"{kind}, 256 tokens"]


def test_the_three_ways_train_on_the_same_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    sums: list[float] = []

    def seen(trained: Trained, batch: Batch) -> Callable[[], torch.Tensor]:
        sums.extend(float(text.double().sum()) for text in batch.pack.text.split(batch.pack.text_lengths))
        return packed_loss(trained, batch)

    monkeypatch.setattr(train_cases, "packed_loss", seen)
    cases, found = Cases(CPU, torch.device("cpu"), Clock(minutes=5)), []
    for way in ("packed", "padded", "bucketed"):
        cases.way(way)
        found.append(sorted(sums))
        sums.clear()
    assert len(set(found[0])) == CPU.library
    assert found[0] == found[1] == found[2]


def test_ways_of_which_the_time_has_cut_batches_are_named() -> None:
    rows = [
        {"part": "lengths", "case": case, "reason": None, "tokens_per_s": rate, "batches_left_out": left_out}
        for case, rate, left_out in (("packed", 4.0, 0), ("padded", 2.0, 3), ("bucketed", 5.0, 1))
    ]
    assert summary(rows, CPU) == [
        ["useful tokens/s, packed / padded", 2.0, ">= 1.8"],
        ["useful tokens/s, packed / bucketed", 0.8, None],
        ["ended by the time, so of fewer clips than the others", "padded, bucketed", None],
    ]


@pytest.mark.slow
def test_compiled_blocks_are_measured_too(tmp_path: Path) -> None:
    rows = of_part(
        bench("train_speed", tmp_path / "out.json", "--device=cpu", "--only=compile")[0], "compile"
    )
    assert [(row["reason"], row["compile"], row["tokens"]) for row in rows.values()] == [
        (None, True, 512),
        (None, False, 512),
    ]


def test_padding_repeats_the_last_token_and_has_no_loss() -> None:
    clips = [Clip(torch.randn(16, t, 2, 2), 16.0, None, 0.5) for t in (2, 3, 1)]
    pack = make_pack(clips, PRESETS["tiny"])
    longer, is_real = padded(pack)
    assert longer.lengths == longer.own_lengths == (3, 3, 3)
    assert is_real.tolist() == [True, True, False, True, True, True, True, False, False]
    assert torch.equal(longer.tokens, pack.tokens[[0, 1, 1, 2, 3, 4, 5, 5, 5]])
    assert longer.level_index.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_padded_batches_stay_within_the_budget() -> None:
    #        4+4+4         8     3·1 do not fit beside 8
    assert filled([0, 1, 2, 3, 4, 5], [4, 1, 3, 8, 1, 1], 12) == [[0, 1, 2], [3], [4, 5]]


def test_readers_are_compared_on_all_clips(loader: tuple[dict, list[str]]) -> None:
    found, table = loader
    # Of each four clips: latents of 16 channels and two bytes, 80 rows of text; with the headers of safetensors.
    bytes_each = [2 * 16 * n + 2 * 80 * 512 for n in (6 * 32 * 32, 4 * 40 * 40, 8 * 28 * 28, 80 * 80)]
    assert found["dataset"]["mb"] == pytest.approx(3 * sum(bytes_each) / 1e6, rel=1e-2)
    reading = found["reading"]
    assert list(reading) == [
        "webdataset", "webdataset, shuffled", "webdataset, shuffled, 2 processes",
        "trainer reads", "trainer reads, 2 threads", "whole Feed, 2 threads",
    ]  # fmt: skip
    for row in reading.values():
        assert row["clips_per_s"] == pytest.approx(12 / min(row["seconds"]))
    ratio = reading["trainer reads"]["clips_per_s"] / reading["webdataset"]["clips_per_s"]
    assert found["ratios"]["trainer / webdataset"] == pytest.approx(ratio)
    assert found["missing"] is None
    assert table[0].startswith("Ratios")


def test_waiting_is_that_of_a_real_training(loader: tuple[dict, list[str]]) -> None:
    training = loader[0]["training"]
    assert training["steps"] == [1, 1]
    assert all(0 <= share < 1 for share in training["data_wait_share_by_row"])
    assert training["after_first_row"] == pytest.approx(training["data_wait_share_by_row"][1])
