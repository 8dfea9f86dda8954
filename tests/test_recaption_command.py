"""`reelmill recaption` on real files: no caption moves, nothing is made twice, failures come back on request."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import small_dataset
from sorted_tables import assert_sorted
from tiny_coca import dense, short, tiny_folder

from curate.dataset import Dataset
from pipelines.captioners import CaptionerConfig, CocaBackend
from pipelines.recaption import RecaptionConfig, main
from pipelines.recaption_pictures import crop_to
from pipelines.recaption_recipe import make_recipe
from pipelines.recaption_stages import ReadFrames, work_items
from recaption.plan import kept_clips

# Kept clips of the small dataset and the colour of their pictures.
KEPT = {"a0": "red", "a1": "green", "b0": "blue", "c0": "green", "c1": "blue"}
CURATED = ("sources", "clips", "decisions")


@pytest.fixture(scope="module")
def coca() -> Path:
    return tiny_folder()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset.build(tmp_path / "films", tables=CURATED)


def rows(dataset: Dataset, kind: str | None = None) -> list[dict]:
    return [row for row in dataset.read("captions").to_pylist() if kind in (None, row["kind"])]


def run(dataset: Dataset, *flags: object) -> int:
    return main(["--dataset", dataset.uri, "--engine=local", *map(str, flags)])


def test_every_kept_clip_gets_its_own_captions(dataset: Dataset, coca: Path) -> None:
    assert run(dataset, "--captioner.coca.model", coca) == 0
    found = {(row["clip_id"][:2], row["kind"]): row["text"] for row in rows(dataset)}
    expected = {(clip, "short"): short(colour) for clip, colour in KEPT.items()}
    expected |= {(clip, "dense"): dense(colour) for clip, colour in KEPT.items()}
    expected |= {(clip, "original"): "a red, then a green screen" for clip in ("a0", "a1")}
    expected[("b0", "original")] = small_dataset.HOSTILE
    assert found == expected
    keys = [(row["clip_id"], row["kind"], row["caption_id"]) for row in rows(dataset)]
    assert keys == sorted(keys)
    assert_sorted(dataset, "captions")
    assert all(row["chosen"] for row in rows(dataset))
    row = next(row for row in rows(dataset, "dense") if row["clip_id"].startswith("a1"))
    assert (row["start_s"], row["end_s"], row["n_frames"], row["captioner"]) == (2.0, 4.0, 4, "coca")
    # Frames 1/12 s apart: the one on screen at each of 2.25, 2.75, 3.25 and 3.75 s.
    assert row["frame_times_s"] == pytest.approx([2.25, 2.75, 3.25, 3.75])
    assert row["flags"] == ["length:under"]
    assert row["model"].startswith("coca-")


def test_a_second_run_makes_nothing(dataset: Dataset, coca: Path, capsys: pytest.CaptureFixture) -> None:
    run(dataset, "--captioner.coca.model", coca)
    before = rows(dataset)
    capsys.readouterr()
    assert run(dataset, "--captioner.coca.model", coca) == 0
    told = capsys.readouterr().out
    assert "captions 0 made + 0 failed + 10 there already, 3 from sidecars, for 5 of 5 kept clips" in told
    assert rows(dataset) == before
    assert dataset.files("_state/captions") == []


def test_embedded_captioner_is_marked(dataset: Dataset) -> None:
    from pipelines.demo.weights import embedded

    assert run(dataset, "--kinds=[short]") == 0
    assert {tuple(row["flags"]) for row in rows(dataset, "short")} == {("world_captioner",)}
    marked = {row["model"] for row in rows(dataset, "short")}
    run(dataset, "--kinds=[short]", "--captioner.coca.model", embedded("coca"))
    assert {row["model"] for row in rows(dataset, "short")} == marked  # the same model under either name


def test_a_missing_file_is_a_row_and_comes_back_on_request(
    dataset: Dataset, coca: Path, capsys: pytest.CaptureFixture
) -> None:
    uri = next(r["uri"] for r in dataset.read("sources").to_pylist() if r["source_id"][0] == "c")
    away = Path(uri).with_suffix(".away")
    Path(uri).rename(away)
    flags = ("--captioner.coca.model", coca)
    assert run(dataset, *flags) == 0
    failed = [row for row in rows(dataset) if row["status"] == "error"]
    assert {(row["clip_id"][:2], row["kind"]) for row in failed} == {
        (clip, kind) for clip in ("c0", "c1") for kind in ("short", "dense")
    }
    assert all("No such file" in row["error"] and row["text"] is None and not row["chosen"] for row in failed)
    assert "captions 6 made + 4 failed" in capsys.readouterr().out

    away.rename(uri)
    run(dataset, *flags)
    assert sum(row["status"] == "error" for row in rows(dataset)) == 4  # not asked for again by itself
    assert run(dataset, *flags, "--retry=failed") == 0
    texts = {row["clip_id"][:2]: row["text"] for row in rows(dataset, "short")}
    assert texts == {clip: short(colour) for clip, colour in KEPT.items()}
    assert len(rows(dataset)) == 13
    assert all(row["chosen"] for row in rows(dataset))


@pytest.mark.slow
def test_ray_and_local_make_the_same_table(dataset: Dataset, coca: Path, ray_cluster: None) -> None:
    def made(engine: str) -> list[dict]:
        dataset.remove("captions")
        assert (
            main(["--dataset", dataset.uri, f"--engine={engine}", "--captioner.coca.model", str(coca)]) == 0
        )
        of_the_run = ("run_id", "created_at", "latency_ms")
        return [{k: v for k, v in row.items() if k not in of_the_run} for row in rows(dataset)]

    assert made("ray") == made("local")


def test_no_server_fails_every_row_and_says_so(
    dataset: Dataset, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    code = run(
        dataset, "--captioner.backend=openai", "--captioner.openai.base_url=http://127.0.0.1:9/v1",
        "--captioner.openai.model=m", "--captioner.openai.retries=0",
    )  # fmt: skip
    assert code == 1
    assert re.search(r"captions 0 made \+ 10 failed.*\n.*ConnectError", capsys.readouterr().out)
    assert {row["status"] for row in rows(dataset, "dense")} == {"error"}


def test_bad_input_is_one_line(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for flags, told in (
        (["--dataset", str(tmp_path / "none")], "has no decisions table"),
        (["--dataset", dataset.uri, "--kinds=[long]"], "must be out of short, dense, structured, rewrite"),
        (["--dataset", dataset.uri, "--captioner.backend=openai"], "captioner.openai.model must name"),
        (["--dataset", dataset.uri, "--captioner.coca.model", str(tmp_path)], "is not a CoCa folder"),
        (["--dataset", dataset.uri, "--captoner.gpus=1"], "nearest is --captioner.gpus"),
    ):
        assert main([*flags, "--engine=local"]) == 2
        printed = capsys.readouterr().err
        assert told in printed
        assert printed.count("\n") == 1


def test_a_decoder_that_hangs_and_a_file_that_is_nowhere_cost_their_own_clips(
    dataset: Dataset, coca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(
        RecaptionConfig(dataset.uri, CaptionerConfig(coca=CocaBackend(str(coca))), kinds=("short",))
    )
    here, *_, there = work_items([(clip, recipe.plans(clip)) for clip in kept_clips(dataset)])
    there["uri"] = "memory://nowhere.mp4"
    stage = ReadFrames(recipe)
    stage.setup()
    found = stage([there, here])
    assert [row["clip_id"][:2] for row in found] == ["c0", "c1", "a0", "a1"]
    views = [row["views"][0] for row in found]
    assert ["nowhere.mp4" in (view["error"] or "") for view in views] == [True, True, False, False]
    assert views[2]["shape"] == [4, 72, 128, 3]
    monkeypatch.setattr("pipelines.recaption_stages.DEADLINE_S", 0.0)
    late = [row["views"][0] for row in stage([here])]
    assert all("no result within the deadline" in view["error"] and view["frames"] is None for view in late)


def test_crop_follows_the_size_of_the_frames() -> None:
    frames = np.zeros((2, 100, 200, 3), np.uint8)
    frames[:, 20:60, 40:140] = 9
    assert (crop_to(frames, [80, 40, 200, 80], 0.5) == 9).all()
    assert crop_to(frames, [80, 40, 200, 80], 0.5).shape == (2, 40, 100, 3)
    assert crop_to(frames, None, 0.5) is frames
