"""`reelmill tune-captioner` on a small dataset: a vision-language model takes over its manner of captioning."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import captioned_films
import pytest
from tiny_coca import COLOURS, short
from tiny_vlm import tiny_vlm_folder

from pipelines.captioner_clips import Look
from pipelines.captioner_examples import CaptionedData, DataConfig
from pipelines.tune_captioner import main, rows
from recaption.prompts import PromptTemplate
from recaption.vlm.captioner import TransformersCaptioner
from recaption.vlm.config import TransformersConfig


@pytest.mark.parametrize("read", ["shards", "tables"])
def test_a_model_takes_over_the_captions_of_a_dataset(
    read: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dataset = captioned_films.build(tmp_path / "data")
    vlm = tiny_vlm_folder(tmp_path / "vlm", texts=[short(colour) for colour in COLOURS])
    flags = [
        *("--out", str(tmp_path / "run"), "--data", dataset.uri, f"--examples.read={read}"),
        *("--kinds=[short]", "--frames=2", "--frame_height=36", "--validation_clips=6", "--device=cpu"),
        *("--examples.held_out=0.2", f"--tuning.model={vlm}", "--tuning.most_tokens=24"),
        *("--tuning.steps=60", "--tuning.batch=8", "--tuning.lr=5e-3", "--tuning.warmup=5"),
        "--tuning.dropout=0",
    ]
    assert main(flags) == 0
    told = capsys.readouterr().out
    assert "clips to learn from" in told
    told_rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert told_rows[-1]["caption_loss"] < told_rows[0]["caption_loss"] / 4
    assert told_rows[-1]["short_recall"] >= 0.8
    TransformersCaptioner(
        TransformersConfig(model=str(tmp_path / "run" / "model"))
    )  # it loads as a captioner
    # A finished run is no answer to other captions, prompts or frames.
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "short.v9.txt").write_text("In a few words?")
    for other in (["--frames=3"], ["--examples.held_out=0.4"], [f"--prompts={tmp_path / 'prompts'}"]):
        assert main([*flags, *other]) == 2
        assert "learnt from other captions, prompts or frames" in capsys.readouterr().err
    assert main(flags) == 0


def test_each_clip_shows_every_kind_in_turn_with_its_own_prompt_and_times(tmp_path: Path) -> None:
    dataset = captioned_films.build(tmp_path / "data")
    look = Look(n_frames=2, height=36)
    data = CaptionedData(dataset.uri, DataConfig(), {"short": 1.0, "dense": 1.0}, seed=0, look=look)
    prompts = {kind: PromptTemplate(kind, f"{kind}, $n_frames frames") for kind in ("short", "dense")}
    n = len(data.learnt)
    made = list(islice(rows(data, prompts, 0), 2 * n))
    words = {text: kind for captions in data.captions.values() for kind, text in captions.items()}
    assert all(row.prompt == f"{words[row.caption]}, 2 frames" for row in made)
    assert {words[row.caption] for row in made[:n]} == {"short", "dense"}
    seen = Counter(row.caption for row in made)
    shown = Counter(text for clip in data.learnt for text in data.captions[clip].values())
    assert seen == shown  # in two epochs every caption of every clip, once
    assert made[0].times_s == (0.125, 0.375)
    assert made[0].frames.shape == (2, 36, 64, 3)
    assert [row.caption for row in islice(rows(data, prompts, 3), 4)] == [row.caption for row in made[3:7]]


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = captioned_films.build(tmp_path / "data")
    capsys.readouterr()
    for flags, told in (
        (["--kinds=[rewrite]"], "has no rewrite captions to learn from"),
        (["--kinds=[short]"], "must be named"),
    ):
        assert main(["--out", str(tmp_path / "run"), "--data", dataset.uri, "--device=cpu", *flags]) == 2
        printed = capsys.readouterr().err
        assert told in printed
        assert printed.splitlines()[-1].startswith("reelmill tune-captioner: error: ")
