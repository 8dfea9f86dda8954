"""What is planned: how clips are dealt out to workers, what an id rests on, and settings that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_dataset

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines.recaption import RecaptionConfig, main
from pipelines.recaption_stages import BYTES_PER_ITEM, CLIPS_PER_ITEM, FRAMES, picture_bytes, work_items
from recaption.captioner import CaptionerIdentity
from recaption.hints import ClipFacts
from recaption.moments import FrameChoice
from recaption.plan import KeptClip, Recipe, kept_clips
from recaption.prompts import PromptTemplate, newest
from recaption.rows import ClipSpan
from recaption.vlm.config import TransformersConfig
from recaption.vlm.vllm_config import VLLMConfig

IDENTITY = CaptionerIdentity("openai", "m", sampling={"temperature": 0.0})


def recipe(*kinds: str, frames: FrameChoice, window_s: float | None = None, height: int = 480) -> Recipe:
    wanted = [*kinds, *(("window", "merged") if window_s else ())]
    return Recipe(IDENTITY, {kind: newest(kind) for kind in wanted}, frames, height, window_s=window_s)


def clip(number: int, seconds: float, uri: str = "film.mp4", width: int | None = 1920) -> KeptClip:
    return KeptClip(ClipSpan(f"c{number}", 0.0, seconds), uri, 1080, width=width)


def test_pictures_are_counted_before_they_are_decoded() -> None:
    eight = recipe("short", "dense", frames=FrameChoice(count=8))
    frame = 480 * 853 * 3
    assert (
        picture_bytes(clip(0, 60.0), eight.plans(clip(0, 60.0))) == 8 * frame
    )  # both kinds see the same ones
    assert picture_bytes(clip(0, 60.0, width=None), eight.plans(clip(0, 60.0))) == 8 * frame  # as if 16:9
    long = recipe("dense", frames=FrameChoice(count=8), window_s=10.0)
    assert picture_bytes(clip(0, 60.0), long.plans(clip(0, 60.0))) == (6 * 8 + 5) * frame
    keys = recipe("dense", frames=FrameChoice(by="keyframe", most=16), window_s=30.0)
    assert picture_bytes(clip(0, 60.0), keys.plans(clip(0, 60.0))) == (16 + 17) * frame


def test_a_plan_of_many_windows_is_divided() -> None:
    long = recipe("dense", frames=FrameChoice(count=8), window_s=10.0)
    wanted = [(one, long.plans(one)) for one in (clip(i, 60.0) for i in range(32))]
    sizes = {one.span.clip_id: picture_bytes(one, plans) for one, plans in wanted}
    assert sum(sizes.values()) > 2e9
    items = work_items(wanted)
    held = [sum(sizes[one["clip_id"]] for one in item["clips"]) for item in items]
    assert max(held) <= BYTES_PER_ITEM < min(held[0], held[1]) + max(sizes.values())  # full, and not too full
    assert [one["clip_id"] for item in items for one in item["clips"]] == [f"c{i}" for i in range(32)]


def test_a_clip_that_is_too_much_alone_is_an_item_alone() -> None:
    long = recipe("dense", frames=FrameChoice(count=8), window_s=10.0)
    clips = [clip(0, 10.0), clip(1, 3600.0), clip(2, 10.0)]
    items = work_items([(one, long.plans(one)) for one in clips])
    assert [[one["clip_id"] for one in item["clips"]] for item in items] == [["c0"], ["c1"], ["c2"]]
    assert str(FRAMES.field("views").type.value_type.field("frames").type) == "large_binary"


def test_small_clips_come_together_by_source() -> None:
    small = recipe("short", frames=FrameChoice(count=1), height=90)
    clips = [clip(i, 2.0, uri="a.mp4" if i < 40 else "b.mp4") for i in range(42)]
    items = work_items([(one, small.plans(one)) for one in clips])
    assert [(item["uri"], len(item["clips"])) for item in items] == [
        ("a.mp4", CLIPS_PER_ITEM),
        ("a.mp4", 8),
        ("b.mp4", 2),
    ]


def test_kept_clips_know_their_size(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    assert {(kept.width, kept.height) for kept in kept_clips(dataset)} == {(128, 72)}


def test_ids_that_were_made_before_still_hold() -> None:
    found = recipe("short", "dense", "structured", frames=FrameChoice(count=8), window_s=4.0)
    facts = ClipFacts("pan", 12.0, 0.0)
    one = KeptClip(ClipSpan("c1", 1.0, 10.0, (0, 10, 100, 80)), "film.mp4", 90, facts=facts)
    assert [(plan.kind, plan.window, plan.caption_id) for plan in found.plans(one)] == [
        ("short", 0, "894350881efd8dc463a3d1f4bc73fa51"),
        ("dense", 0, "9dfc82f6340dc403ec77134673d03ddc"),
        ("dense", 1, "db24feb1cf09e03116764fd6874b64df"),
        ("dense", 2, "4299ebe9d0c7e881568a7cc12de7f01a"),
        ("merged", 0, "6757ef571393d2a9ff70f41b5107de01"),
        ("structured", 0, "166fd6491b1f192498f3317312e5eb85"),
    ]


def test_the_length_is_told_where_a_prompt_has_no_place_for_it() -> None:
    kept = KeptClip(ClipSpan("c1", 1.0, 3.4), "film.mp4", 90, facts=ClipFacts(camera="pan"))
    for text, told in (
        ("Describe. $facts", "Describe. Measured: the clip lasts 2.4 seconds; the camera pans sideways."),
        ("Describe $duration seconds. $facts", "Describe 2.4 seconds. Measured: the camera pans sideways."),
        ("Describe ${duration} s. $facts", "Describe 2.4 s. Measured: the camera pans sideways."),
        ("Describe. It costs $$duration. $facts", "Describe. It costs $duration. Measured: the clip lasts 2.4 "
         "seconds; the camera pans sideways."),
    ):  # fmt: skip
        prompts = {"dense": PromptTemplate("dense.v1", text)}
        (plan,) = Recipe(IDENTITY, prompts, FrameChoice(count=2), 90).plans(kept)
        assert plan.prompt.text == told


@pytest.mark.parametrize("kind", ["short", "dense", "structured", "window", "merged", "rewrite"])
def test_our_prompts_have_a_place_for_the_length(kind: str) -> None:
    assert newest(kind).tells_duration


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--frames.count=-1", "--frames.count=-1 must be at least 1"),
        ("--frames.count=0", "--frames.count=0 must be at least 1"),
        ("--frames.most=-1", "--frames.most=-1 must be at least 1"),
        ("--frames.fps=-1", "--frames.fps=-1.0 must be above 0"),
        ("--window_s=0", "--window_s=0.0 must be above 0"),
        ("--window_s=-1", "--window_s=-1.0 must be above 0"),
        ("--captioner.transformers.frames=0", "transformers.frames=0 must be at least 1"),
        ("--captioner.transformers.max_tokens=-5", "transformers.max_tokens=-5 must be at least 1"),
        (
            "--captioner.transformers.temperature=-1",
            "transformers.temperature=-1.0 must be a number from 0 on",
        ),
        ("--captioner.vllm.frames=-8", "vllm.frames=-8 must be at least 1"),
        ("--captioner.vllm.jpeg_quality=101", "vllm.jpeg_quality=101 must be from 1 to 100"),
        ("--lang=xx", "--lang=xx: lang 'xx' is not known: write a code of ISO 639-1"),
        ("--lang=de", "--lang=de: the coca captioner and our prompts are English"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    flag: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small_dataset.build(tmp_path / "films", tables=("sources", "clips", "decisions"))
    assert main(["--dataset", str(tmp_path / "films" / "dataset"), "--engine=local", flag]) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1
    assert not Dataset(tmp_path / "films" / "dataset").has("captions")


@pytest.mark.parametrize("name", ["max_tokens", "frames", "frame_height", "batch_clips", "batch_tokens"])
def test_local_models_need_at_least_one_of_each(name: str) -> None:
    with pytest.raises(BadInput, match=rf"transformers\.{name}=0 must be at least 1"):
        TransformersConfig(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["max_tokens", "frames", "frame_height", "engines", "tensor_parallel", "batch_requests", "rounds"]
)
def test_engines_need_at_least_one_of_each(name: str) -> None:
    with pytest.raises(BadInput, match=rf"vllm\.{name}=0 must be at least 1"):
        VLLMConfig(**{name: 0})  # type: ignore[arg-type]


def test_what_is_right_is_let_through() -> None:
    RecaptionConfig("films", frames=FrameChoice(count=1, most=1, fps=0.1), window_s=0.5)
