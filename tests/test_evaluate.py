"""`reelmill evaluate` from tiny checkpoints to table, JSON and pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_latents import random_clips, write_latents

from model.vae import vae_id
from pipelines import evaluate_results, evaluate_world
from pipelines.cli import parse
from pipelines.demo.prompts import VALUES
from pipelines.demo.weights import embedded
from pipelines.evaluate import EvaluateConfig, gather_checkpoints, main
from pipelines.evaluate_models import draw
from pipelines.evaluate_results import stems
from pipelines.evaluate_table import GUESS
from pipelines.evaluate_world import PERFECT
from pipelines.text_place import text_id
from pipelines.train import main as train_main

TEXT_WIDTH = 2 * 128  # of two encoders


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, with a checkpoint of each, on latents of the embedded VAE and two text encoders."""
    root = tmp_path_factory.mktemp("root")
    clips = [
        (key, latent, {kind: torch.randn(4, TEXT_WIDTH) for kind in texts})
        for key, latent, texts in random_clips(6, ((2, 8, 6),))
    ]
    coca, vae = str(embedded("coca")), embedded("vae")
    about = {"vae": "embedded", "vae_id": vae_id(vae), "text_encoder": f"embedded,{coca}"}
    about |= {"text_id": text_id(f"{coca},{coca}"), "text_width": TEXT_WIDTH}
    folder = write_latents(root / "data", clips, fps=8.0)
    (latents,) = (folder / "latents").iterdir()
    told = json.loads((latents / "latents.json").read_text())
    (latents / "latents.json").write_text(json.dumps(told | about))
    latents.rename(latents.with_name(vae_id(vae)))
    flags = ["--steps=2", "--save_every=1", "--keep=2", "--packing.budget=64", "--device=cpu"]
    assert train_main([f"--dataset={folder}", f"--out={root / 'run'}", *flags]) == 0
    return root / "run"


FLAGS = ["--prompts=3", "--batch=2", "--sampler.steps=2", "--device=cpu"]


@pytest.fixture(scope="module")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both checkpoints of the run, evaluated; not to be changed."""
    out = tmp_path_factory.mktemp("evaluated")
    checkpoints = sorted(str(path) for path in (run / "checkpoints").iterdir())
    assert main(["--checkpoint", *checkpoints, f"--out={out}", *FLAGS]) == 0
    return out


def test_a_row_for_each_checkpoint_between_the_true_clips_and_a_guess(run: Path, evaluated: Path) -> None:
    told = json.loads((evaluated / "results.json").read_text())
    perfect, first, second = told["rows"]
    assert (perfect["name"], perfect["checkpoint"], perfect["tokens"]) == (PERFECT, None, None)
    assert [row["name"] for row in (first, second)] == ["run step-00000001", "run step-00000002"]
    assert [row["step"] for row in (first, second)] == [1, 2]
    states = [json.loads(path.read_text()) for path in sorted(run.glob("checkpoints/*/state.json"))]
    assert [row["tokens"] for row in (first, second)] == [state["tokens"] for state in states]
    assert 2 < first["tokens"] < second["tokens"]
    assert first["parameters"] == second["parameters"] > 1000
    assert first["setting"] == perfect["setting"]
    assert first["setting"] | {"vae": None} == {
        "frames": 5,
        "height": 64,
        "width": 48,
        "fps": 8.0,
        "vae": None,
    }
    for row in told["rows"]:
        assert row["prompts"] == 3
        assert row["captioner"]["all"]["asked"] == 15
        assert row["flicker"] >= 0
        assert row["coca_frechet"] >= 0
    assert perfect["captioner"]["all"]["accuracy"] > 0.8
    assert perfect["flow"]["direction"]["accuracy"] > 0.5
    # Two steps from nothing: noise, far from the true clips.
    assert first["captioner"]["all"]["accuracy"] < 0.7
    assert first["coca_frechet"] > 5 * perfect["coca_frechet"]
    assert told["blind_guess"]["colour"] == 1 / len(VALUES["colour"])
    assert told["config"]["sampler"]["steps"] == 2
    table = (evaluated / "table.md").read_text()
    for name in (f"anchor: {PERFECT}", f"anchor: {GUESS}", "run step-00000001"):
        assert table.count(f"| {name} |") == 2
    colour = perfect["captioner"]["colour"]
    assert f"| {colour['accuracy']:.3f} ± {colour['error']:.3f} |" in table
    assert f"Drawn {first['date']} with euler, 2 steps, guidance 4, on {first['machine']['name']}" in table


def test_a_row_can_be_read_alone(run: Path, evaluated: Path) -> None:
    told = json.loads((evaluated / "results.json").read_text())
    perfect, first, second = told["rows"]
    about = json.loads((run / "checkpoints" / "step-00000001" / "config.json").read_text())["latents"]
    for row in (perfect, first, second):
        assert row["setting"]["vae"] == about["vae_id"]
        assert row["machine"]["device"] == "cpu"
        assert row["machine"]["cores"] >= 1
        assert row["machine"]["name"]
        assert date.fromisoformat(row["date"]) <= date.today()
        assert row["seconds"]["draw"] > 0
        assert row["seconds"]["judge"] > 0
        assert all((evaluated / name).is_file() for name in row["files"])
    assert (perfect["sampler"], perfect["weights_id"]) == (None, None)
    for row in (first, second):
        assert row["sampler"] == {
            "solver": "euler", "steps": 2, "guidance": 4.0, "image_guidance": 1.0, "guidance_interval": [0.0, 1.0],
            "rescale": 0.0, "token_budget": 32_768, "precision": "fp32",
        }  # fmt: skip
        assert (row["weights"], row["text_id"]) == ("ema", about["text_id"])
        assert row["text_encoder"] == about["text_encoder"]
        weights = (run.parent / row["checkpoint"] / "ema.safetensors").read_bytes()
        assert row["weights_id"] == hashlib.blake2b(weights, digest_size=8).hexdigest()
    assert first["weights_id"] != second["weights_id"]


def test_what_was_seen_in_each_video_and_pictures(evaluated: Path) -> None:
    lines = (evaluated / "true-clips-through-the-VAE.jsonl").read_text().splitlines()
    assert len(lines) == 3
    seen = json.loads(lines[0])
    assert seen["asked"] == {name: seen["scene"][name] for name in VALUES}
    assert set(seen) >= {"caption", "captioner", "pixels", "flow", "flicker", "prompt", "seed"}
    for name, least in (("evaluation", 1000), ("scaling", 1000), ("run-step-00000002", 300)):
        with Image.open(evaluated / f"{name}.png") as picture:
            assert picture.size[0] >= least


def rows_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "results.json").read_text())["rows"]


def without_time(out: Path) -> list[dict[str, Any]]:
    return [row | {"seconds": None, "date": None} for row in rows_of(out)]


def test_a_run_is_its_newest_checkpoint_and_a_seed_is_a_result(
    run: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Other batches, the same videos.
    flags = [*FLAGS, "--batch=3"]
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'a'}", *flags]) == 0
    assert "| run |" in capsys.readouterr().out
    _, before, same = json.loads((evaluated / "results.json").read_text())["rows"]
    _, again = json.loads((tmp_path / "a" / "results.json").read_text())["rows"]
    assert again["name"] == "run"
    assert before["flicker"] != same["flicker"]
    for name in ("captioner", "pixels", "flow", "step", "tokens"):
        assert again[name] == same[name]
    assert again["flicker"] == pytest.approx(same["flicker"], rel=1e-3)
    assert again["coca_frechet"] == pytest.approx(same["coca_frechet"], rel=1e-3)
    assert not (tmp_path / "a" / "scaling.png").exists()
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'b'}", *flags]) == 0
    one, two = (without_time(tmp_path / name) for name in "ab")
    assert one == two
    # Another seed makes the rows of the first one leave.
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'b'}", *flags, "--seed=1"]) == 0
    others = without_time(tmp_path / "b")
    assert len(others) == 2
    assert not {row["flicker"] for row in others} & {row["flicker"] for row in one}


def test_checkpoints_are_gathered_as_a_shell_expands_them() -> None:
    args = ["--seed=1", "--checkpoint", "a", "b", "--out", "x", "--checkpoint=c"]
    assert gather_checkpoints(args) == ["--seed=1", "--out", "x", '--checkpoint=["a", "b", "c"]']
    assert gather_checkpoints(["--help"]) == ["--help"]


@pytest.mark.parametrize(
    "name",
    [
        "\U0001f3ac, [film]",
        "Ü",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        'it\'s "b" \\u0041 \\',
        "a\nb\x01",
        "\ufeffa",
    ],
)
def test_any_name_of_a_folder_comes_through_a_shell(name: str) -> None:
    args = gather_checkpoints(["--out=x", "--checkpoint", name, "b"])
    assert parse(EvaluateConfig, args, name="evaluate").checkpoint == [name, "b"]


def trained_on(checkpoint: Path, copy: Path, size: list[int]) -> Path:
    """A copy of a checkpoint that tells of other clips in its training."""
    shutil.copytree(checkpoint, copy)
    about = json.loads((copy / "config.json").read_text())
    about["typical"]["size"] = size
    (copy / "config.json").write_text(json.dumps(about))
    return copy


def test_models_of_two_settings_have_each_their_true_clips_and_files(
    run: Path, evaluated: Path, tmp_path: Path
) -> None:
    (newest,) = (run / "checkpoints").glob("*2")
    wide = trained_on(newest, tmp_path / "wide", [2, 6, 8])
    out = tmp_path / "out"
    # Named twice, in two ways: one row.
    assert main(["--checkpoint", str(run), str(wide), str(newest), f"--out={out}", *FLAGS]) == 0
    rows = rows_of(out)
    assert [row["name"] for row in rows] == [PERFECT, PERFECT, "run", "wide"]
    assert [(row["setting"]["width"], row["setting"]["height"]) for row in rows] == [(48, 64), (64, 48)] * 2
    files = [name for row in rows for name in row["files"]]
    assert len(set(files)) == 8
    for row in rows:
        lines, sheet = (out / name for name in row["files"])
        seen = [json.loads(line) for line in lines.read_text().splitlines()]
        assert sum(one["flicker"] for one in seen) / 3 == pytest.approx(row["flicker"])
        assert sheet.is_file()
    assert rows[0]["coca_frechet"] == pytest.approx(rows_of(evaluated)[0]["coca_frechet"], rel=1e-3)
    assert rows[1]["coca_frechet"] != rows[0]["coca_frechet"]
    assert (
        "| anchor: true clips through the VAE (64x48, 5 frames at 8 fps, VAE "
        in (out / "table.md").read_text()
    )


def test_what_was_broken_off_goes_on(
    run: Path,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    checkpoints = sorted(str(path) for path in (run / "checkpoints").iterdir())
    args = ["--checkpoint", *checkpoints, f"--out={tmp_path}", *FLAGS]

    def breaks(loaded: Any, *args: Any) -> list[np.ndarray]:
        if loaded.checkpoint.name.endswith("2"):
            raise KeyboardInterrupt
        return draw(loaded, *args)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_world, "draw", breaks)
        assert main(args) == 130
    before = rows_of(tmp_path)
    assert [row["name"] for row in before] == [PERFECT, "run step-00000001"]
    assert "| run step-00000001 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "evaluation.png").is_file()
    capfd.readouterr()

    assert main(args) == 0
    after = rows_of(tmp_path)
    assert after[:2] == before  # with their seconds: not drawn again
    assert "2 of 3 rows are in" in capfd.readouterr().err
    assert [row | {"seconds": None} for row in after] == [
        row | {"seconds": None} for row in rows_of(evaluated)
    ]

    def never(*args: Any) -> list[np.ndarray]:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_world, "draw", never)
        assert main(args) == 0
        assert rows_of(tmp_path) == after
        # A file that is gone, another sampler, other weights: measured again.
        with pytest.raises(AssertionError, match="drawn again"):
            main([*args, "--sampler.guidance=3"])
        assert [row["name"] for row in rows_of(tmp_path)] == [PERFECT, *(row["name"] for row in after[1:])]
        (tmp_path / after[2]["files"][0]).unlink()
        with pytest.raises(AssertionError, match="drawn again"):
            main(args)


def test_a_row_leaves_before_its_files_change(
    evaluated: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(evaluated, tmp_path / "out")
    checkpoints = sorted(str(path) for path in (run / "checkpoints").iterdir())

    def breaks(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_results, "write_strip", breaks)
    assert main(["--checkpoint", *checkpoints, f"--out={out}", *FLAGS, "--prompts=1"]) == 130
    assert len((out / "true-clips-through-the-VAE.jsonl").read_text().splitlines()) == 1
    assert rows_of(out) == []


def test_stems_are_file_names_and_no_two_the_same() -> None:
    names = ["a b", "a-b", "A b", "evaluation", "../x/y", "..", "film \U0001f3ac", "x" * 300]
    found = stems(names)
    assert found == ["a-b", "a-b-2", "A-b-3", "evaluation-2", "x-y", "model", "film", "x" * 60]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--checkpoint=nowhere", "nowhere holds no finished checkpoint"),
        ("--prompts=0", "--prompts=0 must be at least 1"),
        ("--batch=0", "--batch=0 must be at least 1"),
        ("--seed=-1", "--seed=-1 must be at least 0"),
        (f"--out={__file__}", "cannot be made a folder (File exists)"),
        (f"--out={__file__}/in", "cannot be made a folder (Not a directory)"),
        ("--text_encoder=embedded", "is not the one that made the text features"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], changed: str, message: str
) -> None:
    assert main([f"--checkpoint={run}", f"--out={tmp_path}", *FLAGS, changed]) == 2
    (told,) = capfd.readouterr().err.strip().splitlines()
    assert message in told


def test_videos_too_small_to_judge_are_refused(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (newest,) = (run / "checkpoints").glob("*2")
    small = trained_on(newest, tmp_path / "small", [2, 2, 8])
    assert main([f"--checkpoint={small}", f"--out={tmp_path}", *FLAGS]) == 2
    assert "videos of 64x16 pixels, in which nothing can be judged" in capfd.readouterr().err
