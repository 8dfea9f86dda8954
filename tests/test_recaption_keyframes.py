"""Frames at keyframes: a film with a keyframe every 30 frames, from the file to the prompt that tells their number."""

from __future__ import annotations

import pytest
from numbered_films import film, number_of

from pipelines.recaption_pictures import read_pictures
from pipelines.recaption_stages import ReadFrames, jobs_of, work_items
from recaption.asking import ask
from recaption.captioner import CaptionerIdentity, CaptionRequest, CaptionResult
from recaption.moments import FrameChoice
from recaption.plan import KeptClip, Recipe
from recaption.prompts import PromptTemplate, newest
from recaption.rows import ClipSpan

IDENTITY = CaptionerIdentity("openai", "m", sampling={"temperature": 0.0})

# 120 frames at 25 fps: keyframes are the frames 0, 30, 60 and 90, at 0, 1.2, 2.4 and 3.6 s.


@pytest.fixture(scope="module", params=["film.mp4", "film.mkv"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(film(tmp_path_factory.mktemp("films") / request.param))


@pytest.mark.parametrize(
    ("keyframes", "numbers"),
    [
        (((0.0, 4.8), None, 8), [0, 30, 60, 90]),
        (((1.2, 3.6), None, 8), [30, 60]),  # where the span begins, and not where it ends
        (((0.0, 4.8), None, 2), [30, 90]),
        (((0.1, 1.1), None, 8), [12, 25]),  # none: the moments that were planned
        (((2.4, 4.8), (0.0, 2.4), 8), [30, 60, 90]),  # the last one of the window before
        (((2.4, 4.8), (0.1, 1.1), 8), [12, 60, 90]),  # which had none
        (((0.1, 1.1), (0.0, 0.1), 8), [0, 25]),
    ],
)
def test_keyframes_of_a_span_are_shown(path: str, keyframes: tuple, numbers: list[int]) -> None:
    pictures, found = read_pictures(path, [0.5, 1.0], 96, keyframes)
    assert [number_of(picture) for picture in pictures] == numbers
    assert found == pytest.approx([number / 25 for number in numbers], abs=0.001)


def test_windows_by_keyframes_tell_what_they_show(path: str) -> None:
    class Told:
        identity = IDENTITY

        def __init__(self) -> None:
            self.asked: list[CaptionRequest] = []

        def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
            self.asked += requests
            return [CaptionResult(r.clip_id, r.kind, "ok", "A disc.", window=r.window) for r in requests]

    prompts = {kind: newest(kind) for kind in ("dense", "window", "merged")}
    frames = FrameChoice(by="keyframe", count=8)
    recipe = Recipe(IDENTITY, prompts, frames, 96, window_s=2.4)
    clip = KeptClip(ClipSpan("c1", 0.0, 4.8), path, 96, width=128)
    stage = ReadFrames(recipe)
    stage.setup()
    (row,) = stage(work_items([(clip, recipe.plans(clip))]))
    captioner = Told()
    rows = ask(captioner, jobs_of(recipe, row), {}, "run")
    assert [row["frame_times_s"] for row in rows] == [
        pytest.approx([0.0, 1.2], abs=0.001),
        pytest.approx([1.2, 2.4, 3.6], abs=0.001),  # first what the window before showed last
        [],
    ]
    first, second, _ = captioner.asked
    assert first.prompt.startswith("These 2 frames, in order,")
    assert second.prompt.startswith("These 3 frames, in order, come from part 2 of 2")
    assert "The first frame is the last moment of the part before." in second.prompt


def test_captions_by_keyframes_have_ids_of_their_own() -> None:
    clip = KeptClip(ClipSpan("c1", 0.0, 4.8), "film.mp4", 96)
    ids = set()
    for by, most in (("keyframe", 8), ("keyframe", 9), ("count", 8)):
        frames = FrameChoice(by=by, count=8, most=most)  # type: ignore[arg-type]
        recipe = Recipe(IDENTITY, {"dense": newest("dense")}, frames, 96)
        ids |= {plan.caption_id for plan in recipe.plans(clip)}
    assert len(ids) == 3


def test_captions_made_before_keyframes_were_found_do_not_pass_for_these() -> None:
    clip = KeptClip(ClipSpan("c1", 0.0, 4.8), "film.mp4", 96)
    prompts = {"dense": PromptTemplate("dense.v1", "Describe.")}  # which tells no number of frames
    (plan,) = Recipe(IDENTITY, prompts, FrameChoice(by="keyframe", count=8), 96).plans(clip)
    assert plan.caption_id != "d84086a337fbba0177f1f874aabad9b2"
