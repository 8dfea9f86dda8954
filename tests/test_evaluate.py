"""`reelmill evaluate` from tiny checkpoints to table, JSON and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_latents import random_clips, write_latents

from model.vae import vae_id
from pipelines.demo.prompts import VALUES
from pipelines.demo.weights import embedded
from pipelines.evaluate import gather_checkpoints, main
from pipelines.evaluate_results import GUESS, PERFECT
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
    for name in (PERFECT, GUESS, "run step-00000001"):
        assert table.count(f"| {name} |") == 2


def test_what_was_seen_in_each_video_and_pictures(evaluated: Path) -> None:
    lines = (evaluated / "true-clips-through-the-VAE.jsonl").read_text().splitlines()
    assert len(lines) == 3
    seen = json.loads(lines[0])
    assert seen["asked"] == {name: seen["scene"][name] for name in VALUES}
    assert set(seen) >= {"caption", "captioner", "pixels", "flow", "flicker", "prompt", "seed"}
    for name, least in (("evaluation", 1000), ("scaling", 1000), ("run-step-00000002", 300)):
        with Image.open(evaluated / f"{name}.png") as picture:
            assert picture.size[0] >= least


def test_a_run_is_its_newest_checkpoint_and_a_seed_is_a_result(
    run: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Other batches, the same videos.
    flags = [*FLAGS, "--batch=3"]
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'a'}", *flags]) == 0
    assert "| run |" in capsys.readouterr().out
    (_, before, same) = (json.loads((evaluated / "results.json").read_text()))["rows"]
    (_, again) = json.loads((tmp_path / "a" / "results.json").read_text())["rows"]
    assert again["name"] == "run"
    assert before["flicker"] != same["flicker"]
    for name in ("captioner", "pixels", "flow", "step", "tokens"):
        assert again[name] == same[name]
    assert again["flicker"] == pytest.approx(same["flicker"], rel=1e-3)
    assert again["coca_frechet"] == pytest.approx(same["coca_frechet"], rel=1e-3)
    assert not (tmp_path / "a" / "scaling.png").exists()
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'b'}", *flags]) == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["rows"] for name in "ab")
    assert one == two
    assert main([f"--checkpoint={run}", f"--out={tmp_path / 'c'}", *flags, "--seed=1"]) == 0
    assert json.loads((tmp_path / "c" / "results.json").read_text())["rows"] != one


def test_checkpoints_are_gathered_as_a_shell_expands_them() -> None:
    args = ["--seed=1", "--checkpoint", "a", "b", "--out", "x", "--checkpoint=c"]
    assert gather_checkpoints(args) == ["--seed=1", "--out", "x", '--checkpoint=["a", "b", "c"]']
    assert gather_checkpoints(["--help"]) == ["--help"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--checkpoint=nowhere", "nowhere holds no finished checkpoint"),
        ("--prompts=0", "--prompts=0 must be at least 1"),
        ("--batch=0", "--batch=0 must be at least 1"),
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
    small = shutil.copytree(newest, tmp_path / "small")
    about = json.loads((small / "config.json").read_text())
    about["typical"]["size"] = [2, 2, 8]
    (small / "config.json").write_text(json.dumps(about))
    assert main([f"--checkpoint={small}", f"--out={tmp_path}", *FLAGS]) == 2
    assert "videos of 64x16 pixels, in which nothing can be judged" in capfd.readouterr().err
