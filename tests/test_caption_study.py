"""The caption study on a very small scale: the whole command, what its arms show, and what its tables say."""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from curate.errors import BadInput
from pipelines.demo.caption_study import (
    ARMS,
    CaptionStudyConfig,
    check_settings,
    main,
    train_config,
)
from pipelines.demo.caption_study_data import ClipShape, make_training_set
from pipelines.demo.caption_study_judge import examination, judged, renderings
from pipelines.demo.caption_study_results import accuracy, clip_score, guess, over_seeds, tables
from pipelines.demo.world import ATTRIBUTES, is_held_out
from train.blend import draw_caption
from train.data import LatentDataset

TINY = ["--seeds=1", "--steps=3", "--clips=12", "--scenes=1", "--sampler.steps=2", "--model.width=64"]


def test_the_whole_command_and_going_on_after_a_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    flags = ["--out", str(out), *TINY, "--model.heads=2", "--model.ffn=128", "--model.depth=1"]
    assert main([*flags, "--arms=[dense-95]", "--at_once=1"]) == 0
    first = (out / "trainings/dense-95-0/result.json").stat().st_mtime_ns
    assert main([*flags, "--arms=[original,dense-95]", "--at_once=1"]) == 0

    assert (out / "trainings/dense-95-0/result.json").stat().st_mtime_ns == first  # not trained again
    results = json.loads((out / "results.json").read_text())
    assert [(t["arm"], t["seed"]) for t in results["trainings"]] == [("original", 0), ("dense-95", 0)]
    shown = [training["captions_shown"]["kinds"] for training in results["trainings"]]
    assert shown[0] == {"original": 1.0, "short": 0.0, "dense": 0.0}
    assert shown[1]["short"] == 0.0
    assert shown[1]["dense"] > 0.5
    assert results["training_set"]["clips"] == 12
    assert results["training_set"]["captions"]["dense"]["background"]["right"] > 0.9
    assert {group["prompts"] for t in results["trainings"] for group in t["groups"]} == {1}
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "| dense-95 | 1 |" in table
    with Image.open(out / "study.png") as picture:
        assert picture.size[0] > 800
    assert (out / "trainings/dense-95-0/samples.png").exists()

    assert main([*flags, "--steps=4"]) == 2
    assert "other settings: steps (3 before, now 4)" in capsys.readouterr().err


def test_arms_differ_in_captions_alone_and_show_what_their_names_say() -> None:
    config = CaptionStudyConfig(out="x")
    told = [asdict(train_config(config, arm, 1)) for arm in ARMS]
    for one in told:
        one.pop("captions")
        one.pop("out")
    assert told == [told[0]] * len(ARMS)
    n = 4000
    for arm, blend in ARMS.items():
        kinds = [
            draw_caption(
                {"original": 1, "short": 1, "dense": 4}, seed=0, clip_id=str(i), epoch=0, config=blend
            ).kind
            for i in range(n)
        ]
        kind, _, per_cent = arm.partition("-")
        share = int(per_cent or 100) / 100
        there = [found for found in kinds if found is not None]
        assert set(there) == {kind, "original"}
        assert there.count(kind) / len(there) == pytest.approx(share, abs=0.025)


def test_training_set_goes_on_and_holds_no_held_out_combination(tmp_path: Path) -> None:
    shape, told = ClipShape(), list[int]()
    uri = str(tmp_path / "dataset")
    about = make_training_set(uri, clips=70, shape=shape, on_clips=told.append)
    assert told == [64, 6]
    data = LatentDataset(uri)
    assert len(data.clips) == about["clips"] == 70
    assert {clip.kinds for clip in data.clips} == {("dense", "original", "short")}
    latent, texts = data.read(0)
    assert latent.shape == (16, 3, 8, 8)
    assert len(texts["dense"]) > len(texts["short"]) > len(texts["original"])
    assert about["captions"]["original"]["background"]["named"] < 0.6  # people leave much out
    assert about["captions"]["dense"]["background"]["named"] > 0.95
    scenes = [json.loads(record)["scene"] for record in members(tmp_path, ".json")]
    assert len(scenes) == 70
    assert not any(is_held_out(scene["kind"], scene["colour"], scene["background"]) for scene in scenes)
    assert make_training_set(uri, clips=70, shape=shape, on_clips=told.append) == about
    assert told == [64, 6, 70]  # all at once: they are there


def members(folder: Path, suffix: str) -> list[bytes]:
    """The members of all tars below a folder."""
    found = []
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith(suffix)]  # type: ignore[union-attr]
    return found


def test_examination_is_balanced_and_a_perfect_model_would_pass() -> None:
    shape = ClipShape()
    prompts = examination(12, shape)
    assert prompts == examination(12, shape)
    assert len({prompt.seed for prompt in prompts}) == len(prompts) == 72
    for prompt in prompts:
        scene = prompt.scene
        held_out = is_held_out(scene.kind, scene.colour, scene.background)
        assert held_out == (prompt.combination == "held_out")
        assert all(getattr(scene, name) == value for name, value in prompt.asked.items())
        assert prompt.manner == "original" or set(prompt.asked) == set(ATTRIBUTES)
    videos = renderings(prompts, shape)
    right = judged(prompts, videos, shape.fps)
    wrong = judged(prompts, videos[3:] + videos[:3], shape.fps)  # each scene's videos for another scene
    best, mixed_up = accuracy(right, manner="dense"), accuracy(wrong, manner="dense")
    assert best is not None
    assert mixed_up is not None
    assert best > 0.93
    assert mixed_up < 0.5
    assert (clip_score(right, manner="dense") or 0) > 0.8 > 0.4 > (clip_score(wrong, manner="dense") or 0)


def group(combination: str, manner: str, asked: int, right: int, score: float) -> dict:
    counts = {"asked": asked, "right": right, "none": 0}
    return {
        "combination": combination,
        "manner": manner,
        "prompts": asked,
        "clip_score": score,
        "attributes": {name: counts for name in ATTRIBUTES},
    }


def test_figures_by_hand() -> None:
    groups = [group("held_out", "dense", 10, 2, 0.1), group("seen", "dense", 30, 18, 0.5)]
    assert accuracy(groups, manner="dense") == 0.5
    assert accuracy(groups, manner="dense", combination="held_out", attribute="kind") == 0.2
    assert accuracy(groups, manner="short") is None
    assert clip_score(groups, manner="dense") == pytest.approx(0.4)
    assert over_seeds([0.2, 0.4, None]) == (pytest.approx(0.3), pytest.approx(0.1))
    assert over_seeds([0.2]) == (0.2, None)
    # One in 6 kinds, 8 colours, 2 sizes, 4 directions, 6 backgrounds.
    assert guess("dense", groups) == pytest.approx((1 / 6 + 1 / 8 + 1 / 2 + 1 / 4 + 1 / 6) / 5)
    trainings = [{"arm": "dense-95", "groups": [group("seen", "dense", 10, right, 0.5)]} for right in (4, 6)]
    assert "| dense-95 | 2 | 50.0 ± 10.0 | – | – | 50.0 ± 0.0 | – | – |" in tables(trainings, groups)


@pytest.mark.parametrize(
    ("changes", "said"), [({"seeds": 0}, "--seeds=0 must be at least 1"), ({"arms": ()}, "--arms is empty")]
)
def test_what_cannot_be_studied(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_settings(CaptionStudyConfig(out=str(tmp_path), **changes), tmp_path)
