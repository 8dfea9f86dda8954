"""The vLLM backend up to the engine's door: what goes in, and what becomes of all that may come out.

vLLM itself needs a GPU. Its stage is replaced by a Ray Data map that returns the columns of Ray's own
`vLLMOutputData`; everything before and after it is the real pipeline on real films.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_dataset
from ray import cloudpickle

from curate.dataset import Dataset
from pipelines.captioners import CaptionerConfig
from pipelines.engine import RayConfig
from pipelines.metrics_stages import of_recaption
from pipelines.metrics_tally import State
from pipelines.metrics_watch import Watch
from pipelines.recaption import RecaptionConfig
from pipelines.recaption_recipe import make_recipe
from pipelines.recaption_stages import ReadFrames, work_items
from pipelines.recaption_vllm import build_processor, messages_of, run_vllm
from pipelines.recaption_vllm_stages import ERROR
from recaption.plan import Recipe, kept_clips
from recaption.structured import FIELDS
from recaption.table import gather, known, replace
from recaption.vlm.vllm_config import VLLMConfig

# Ray's workers do not find the modules of this folder: they get them by value.
for module in (sys.modules[__name__], small_dataset):
    cloudpickle.register_pickle_by_value(module)

COLOURS = ("red", "green", "blue")
CONFIG = VLLMConfig(model="some/vlm", frames=2, frame_height=48, max_tokens=50, batch_requests=4, rounds=2)
KEPT = {"a0": "red", "a1": "green", "b0": "blue", "c0": "green", "c1": "blue"}
OBJECT = json.dumps(dict.fromkeys(FIELDS, None) | {"subject": "A screen."})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))


def recipe_of(dataset: Dataset, *kinds: str) -> Recipe:
    return make_recipe(config_of(dataset, *kinds))


def config_of(dataset: Dataset, *kinds: str) -> RecaptionConfig:
    return RecaptionConfig(dataset.uri, CaptionerConfig("vllm", vllm=CONFIG), kinds=kinds)


def run(dataset: Dataset, recipe: Recipe, answer: Any, run_id: str = "run") -> list[dict]:
    return watched(dataset, recipe, answer, run_id)[0]


def watched(
    dataset: Dataset, recipe: Recipe, answer: Any, run_id: str = "run"
) -> tuple[list[dict], list[State]]:
    """The captions table, and how the stages stood in the end."""
    have = known(dataset)
    wanted = [
        (clip, [plan for plan in recipe.plans(clip) if plan.caption_id not in have])
        for clip in kept_clips(dataset)
    ]
    with Watch("recaption", config_of(dataset), of_recaption()) as watch:
        build, ray = lambda _: _stand_in(answer), RayConfig(num_cpus=2)
        told = list(run_vllm(CONFIG, recipe, dataset, wanted, run_id, ray, watch, build=build))
        states = watch._states()
    replace(dataset, *gather(dataset))
    assert len(told) == len({row["caption_id"] for row in told}) == sum(len(plans) for _, plans in wanted)
    return dataset.read("captions").to_pylist(), states


def last_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What each stage told at its end."""
    lines = capsys.readouterr().err.splitlines()
    return [line.split(", done in")[0] for line in lines if ", done in" in line]


def _stand_in(answer: Any) -> Any:
    """A processor: `answer(colour, messages, sampling)` stands for the engine; where it says None, the row is lost."""

    def engine(row: dict[str, Any]) -> list[dict[str, Any]]:
        made = messages_of(row)
        *pictures, text = made["messages"][0]["content"]
        colour = colour_of(pictures[0]["image_url"]["url"]) if pictures else None
        said = answer(colour, text["text"], made["sampling_params"])
        if said is None:
            return []
        error = str(said) if isinstance(said, ValueError) else ""
        words = "" if error else said
        tokens = 50 if words.endswith("...") else min(len(words.split()), 49)
        told = {
            "generated_text": words,
            "num_input_tokens": 0 if error else 100,
            "num_generated_tokens": tokens,
            "time_taken_llm": -1.0 if error else 0.25,
            ERROR: error,
        }
        return [row | told]

    return lambda data: data.flat_map(engine)


def colour_of(url: str) -> str:
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    mean = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: float(np.abs(mean - small_dataset.COLOURS[name]).sum()))


def by_clip(rows: list[dict], kind: str) -> dict[str, dict]:
    return {row["clip_id"][:2]: row for row in rows if row["kind"] == kind}


@pytest.mark.usefixtures("ray_cluster")
def test_every_clip_gets_its_own_words_and_a_refused_row_fails_alone(dataset: Dataset) -> None:
    def answer(colour: str | None, text: str, sampling: dict) -> str | ValueError:
        if colour == "blue":
            return ValueError("prompt is longer than max_model_len")
        return f"A {colour} screen is cut of..." if "200 words" in text else f"A {colour} screen."

    rows = run(dataset, recipe_of(dataset, "short", "dense"), answer)
    short, dense = by_clip(rows, "short"), by_clip(rows, "dense")
    for clip, colour in KEPT.items():
        if colour == "blue":
            assert (short[clip]["status"], short[clip]["text"]) == ("error", None)
            assert short[clip]["error"] == "vLLM: prompt is longer than max_model_len"
            assert short[clip]["latency_ms"] is None
        else:
            assert short[clip]["text"] == f"A {colour} screen."
            assert (short[clip]["captioner"], short[clip]["tokens_in"], short[clip]["tokens_out"]) == (
                "vllm",
                100,
                3,
            )
            assert short[clip]["n_frames"] == 2
            assert dense[clip]["status"] in ("truncated", "error")  # cut off by the length limit
            assert dense[clip]["finish_reason"] == "length"


@pytest.mark.usefixtures("ray_cluster")
def test_the_stages_count_what_is_in_the_table_wherever_a_caption_failed(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def answer(colour: str | None, text: str, sampling: dict) -> str | ValueError | None:
        said = {"blue": ValueError("too long"), "green": None}  # of b0; the row of a1 is lost
        return said.get(str(colour), f"A {colour} screen.")

    films = sorted(path for path in Path(dataset.uri).parent.rglob("*.mp4"))
    films[2].unlink()  # of c0 and c1
    rows, states = watched(dataset, recipe_of(dataset, "short"), answer)
    assert [(state.stage, state.unit, state.done, state.total) for state in states] == [
        ("frames", "clips", 5, 5),
        ("request", "captions", 5, 5),
        ("caption", "captions", 5, 5),
        ("commit", "captions", 5, 5),
    ]
    frames, request, caption, commit = states
    assert frames.shown() == {"read": 3, "failed": 2}
    assert request.shown() == {"asked": 3, "error": 2}
    assert caption.shown() == commit.shown() == {"ok": 1, "error": 4}
    assert Counter(row["status"] for row in rows) == {"ok": 1, "error": 4}
    assert caption.seconds >= 0.25  # that the engine took, for the one that it answered
    assert last_lines(capsys) == [
        "recaption/frames: 5/5 clips, read 3, failed 2",
        "recaption/request: 5/5 captions, asked 3, error 2",
        "recaption/caption: 5/5 captions, ok 1, error 4",
        "recaption/commit: 5/5 captions, ok 1, error 4",
    ]
    assert "not complete" not in caplog.text


@pytest.mark.usefixtures("ray_cluster")
def test_second_tries_and_captions_from_text_are_rounds_of_their_own(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def answer(colour: str | None, text: str, sampling: dict) -> str:
        if "JSON object" in text:
            return "{}" if colour else OBJECT
        if colour is None:  # the rewriting
            assert "A screen of one colour" in text
            return "It is rewritten."
        return (
            "A screen of one colour. " * 30 if sampling["temperature"] == 0.0 else "A screen of one colour."
        )

    rows, states = watched(dataset, recipe_of(dataset, "dense", "structured", "rewrite"), answer)
    assert {row["status"] for row in rows} == {"ok"}
    for row in by_clip(rows, "dense").values():
        assert (row["flags"], row["retries"], row["tokens_in"]) == (["length:under", "second_try"], 1, 200)
    assert all(row["flags"] == ["repaired"] for row in by_clip(rows, "structured").values())
    for clip, row in by_clip(rows, "rewrite").items():
        assert row["parent_id"] == by_clip(rows, "dense")[clip]["caption_id"]

    assert len(rows) == 15
    assert [(state.stage, state.done, state.total) for state in states] == [
        ("frames", 15, 15),  # in three rounds
        ("request", 25, 25),
        ("caption", 15, 15),
        ("commit", 15, 15),
    ]
    assert last_lines(capsys)[1:] == [
        "recaption/request: 25/25 captions, asked 25",
        "recaption/caption: 15/15 captions, ok 15, again 10",
        "recaption/commit: 15/15 captions, ok 15, again 10",
    ]
    assert "not complete" not in caplog.text


def test_a_film_is_not_taken_for_captions_from_text(dataset: Dataset) -> None:
    recipe = recipe_of(dataset, "dense", "rewrite")
    clip = kept_clips(dataset)[0]
    dense, rewrite = recipe.plans(clip)
    stage = ReadFrames(recipe)
    stage.setup()
    (seen,) = stage(work_items([(clip, [dense])]))
    (read,) = stage(work_items([(clip, [rewrite])], {dense.caption_id: "A screen."}))
    assert (seen["read_bytes"], len(seen["views"])) == (Path(clip.uri).stat().st_size, 1)
    assert (read["read_bytes"], len(read["views"])) == (0, 0)


@pytest.mark.usefixtures("ray_cluster")
def test_one_dead_engine_does_not_end_the_run(dataset: Dataset, tmp_path: Path) -> None:
    died = str(tmp_path / "died")

    def answer(colour: str | None, text: str, sampling: dict) -> str:
        if colour == "green" and not os.path.exists(died):
            open(died, "w").close()
            os._exit(1)  # as Ray's stage leaves when vLLM says EngineDeadError
        return f"A {colour} screen."

    rows = run(dataset, recipe_of(dataset, "short"), answer)
    assert os.path.exists(died)
    assert {clip: row["text"] for clip, row in by_clip(rows, "short").items()} == {
        clip: f"A {colour} screen." for clip, colour in KEPT.items()
    }


@pytest.mark.usefixtures("ray_cluster")
def test_a_pipeline_that_falls_keeps_what_was_done_and_gives_up_in_the_end(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayError

    waits: list[Any] = []  # for reports of workers, which never come where they fell
    monkeypatch.setattr("pipelines.metrics_watch.Rounds._settle", lambda *args: waits.append(args))

    def answer(colour: str | None, text: str, sampling: dict) -> str:
        raise MemoryError("no engine ever starts")

    with pytest.raises(RayError, match="no engine ever starts"):
        run(dataset, recipe_of(dataset, "short"), answer)
    assert not waits
    rows = run(dataset, recipe_of(dataset, "short"), lambda colour, text, sampling: f"A {colour} screen.")
    assert len(by_clip(rows, "short")) == len(KEPT)
    assert len(waits) == 1


@pytest.mark.usefixtures("ray_cluster")
def test_a_round_after_a_fall_counts_on(dataset: Dataset, tmp_path: Path) -> None:
    fell = str(tmp_path / "fell")

    def answer(colour: str | None, text: str, sampling: dict) -> str:
        if not os.path.exists(fell):
            open(fell, "w").close()
            raise MemoryError("the engine fell")
        return f"A {colour} screen."

    rows, states = watched(dataset, recipe_of(dataset, "short"), answer)
    assert os.path.exists(fell)
    assert Counter(row["status"] for row in rows) == {"ok": 5}
    assert [(state.done, state.total, state.shown()) for state in states[3:]] == [(5, 5, {"ok": 5})]


@pytest.mark.usefixtures("ray_cluster")
def test_rays_own_processor_takes_the_settings(tmp_path: Path) -> None:
    from tiny_vlm import tiny_vlm_folder

    folder = tiny_vlm_folder(tmp_path / "vlm")
    processor: Any = build_processor(VLLMConfig(model=str(folder), engines=2, engine={"max_model_len": 512}))
    assert processor.config.should_continue_on_error is True
    assert processor.config.engine_kwargs["max_model_len"] == 512
    assert processor.config.concurrency == 2
    assert processor.list_stage_names() == ["PrepareMultimodalStage", "ChatTemplateStage", "vLLMEngineStage"]
