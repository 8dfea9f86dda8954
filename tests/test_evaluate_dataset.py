"""`reelmill evaluate --dataset`: captions that are right and wrong, clips that are broken, clips of another world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_shards import Film, film, write_shards

from pipelines.demo.world import Scene, describe, render
from pipelines.evaluate import main

SCENES = (
    Scene("disc", "red", "large", "left", "green hill", start=(0.8, 0.5)),
    Scene("square", "yellow", "large", "up", "blue sea", start=(0.5, 0.8)),
    Scene("ring", "blue", "large", "right", "sandy desert", start=(0.2, 0.5)),
)


def told(kind: str, scene: Scene) -> dict[str, str]:
    return {"kind": kind, "text": describe(scene, kind, np.random.default_rng(0))}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three clips of the world, their dense captions right, of the short ones a colour wrong; and a broken file."""
    folder = tmp_path_factory.mktemp("dataset")
    films: list[Film] = []
    for number, scene in enumerate(SCENES):
        video = render(scene, n_frames=17, fps=8, width=96, height=96)
        said = replace(scene, colour="white") if number == 0 else scene
        films.append(film(folder, f"{number:016x}", video, 8, told("dense", scene), told("short", said)))
    films.append(replace(films[0], clip_id="f" * 16, mp4=b"no video"))
    return write_shards(folder, [films]).uri


def test_captions_against_what_is_to_be_seen(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--dataset={dataset}", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["clips"], found["measured"]) == (4, 3)
    assert list(found["failed"]) == ["f" * 16]
    assert "not a readable video" in found["failed"]["f" * 16]
    assert found["directions"] == {
        "left": 1 / 3, "right": 1 / 3, "up": 1 / 3, "down": 0, "still": 0, "none": 0,
    }  # fmt: skip
    assert found["flicker"] > 0
    dense, short = found["captions"]["dense"], found["captions"]["short"]
    assert dense["captions"] == short["captions"] == 3
    for judge in ("pixels", "captioner"):
        assert {name: one["accuracy"] for name, one in dense[judge].items()} == dict.fromkeys(dense[judge], 1)
        assert short[judge]["colour"]["right"] == 2
        assert short[judge]["all"]["right"] == 14
    assert dense["flow"]["direction"]["accuracy"] == 1
    assert "| short | pixels | 1.000 ± 0.000 | 0.667 ± 0.272 |" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    assert {line["clip_id"] for line in lines} == {f"{number:016x}" for number in range(3)}
    with Image.open(tmp_path / "evaluation.png") as picture:
        assert picture.size[0] > 1000

    assert main([f"--dataset={dataset}", f"--out={tmp_path / 'two'}", "--prompts=2", "--seed=3"]) == 0
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert two["measured"] + len(two["failed"]) == 2


def test_captions_of_another_world_are_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8).repeat(9, axis=0)
    uri = write_shards(tmp_path, [[film(tmp_path, "a" * 16, noise, 8, told("dense", SCENES[0]))]]).uri
    assert main([f"--dataset={uri}", f"--out={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["captions"] is None
    assert found["directions"]["still"] == 1
    assert "these are no clips of the procedural world" in capsys.readouterr().out


def test_either_a_checkpoint_or_a_dataset(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ([], [f"--dataset={dataset}", "--checkpoint=run"]):
        assert main([*given, f"--out={tmp_path}"]) == 2
        assert "give either --checkpoint RUN" in capsys.readouterr().err
