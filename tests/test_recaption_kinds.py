"""All kinds of captions through the whole command and a real HTTP server: windows, merge, structured, rewrite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_plans import by_word
from fault_server import FaultServer
from test_recaption_command import KEPT, dataset, rows, run

from curate.dataset import Dataset

__all__ = ["dataset"]  # a fixture

PROMPTS = {
    "short": "A short sentence about the picture.",
    "dense": "A long sentence about the first $duration seconds of the picture. $facts",
    "window": "A sentence about what changes in part $window of $n_windows of the picture.",
    "merged": "A whole story out of these parts: $captions",
    "rewrite": "The same story in other words: $captions",
    "structured": "An object about the picture.",
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for kind, text in PROMPTS.items():
        (folder / f"{kind}.v1.txt").write_text(text)
    return folder


def flags(server: FaultServer, prompts: Path) -> list[object]:
    return [
        "--captioner.backend=openai",
        f"--captioner.openai.base_url={server.url}",
        "--captioner.openai.model=tiny",
        "--captioner.openai.backoff_s=0.01",
        "--captioner.openai.frames=4",  # the server reads a number from each: eight alike would be a loop
        f"--prompts={prompts}",
    ]


def by_key(dataset: Dataset) -> dict[tuple, dict]:
    return {(r["clip_id"][:2], r["kind"], r["window"]): r for r in rows(dataset) if r["kind"] != "original"}


def test_long_clips_come_in_windows_and_the_merged_caption_is_chosen(dataset: Dataset, prompts: Path) -> None:
    with FaultServer() as server:
        asked = ["--kinds=[dense,rewrite]", "--window_s=1.2", "--frames.by=fps", "--frames.fps=2"]
        assert run(dataset, *flags(server, prompts), *asked) == 0
        found = by_key(dataset)
        assert len(found) == len(KEPT) * 4 == server.requests
        for clip in KEPT:
            first, second = found[clip, "dense", 0], found[clip, "dense", 1]
            merged, rewrite = found[clip, "merged", 0], found[clip, "rewrite", 0]
            assert (first["end_s"], second["end_s"] - second["start_s"]) == (second["start_s"], 1.0)
            # Two frames per second, and the last moment of the part before.
            assert (first["n_frames"], second["n_frames"], merged["n_frames"]) == (2, 3, 0)
            assert merged["parent_ids"] == [first["caption_id"], second["caption_id"]]
            assert rewrite["parent_ids"] == [merged["caption_id"]]
            assert f"1. {first['text']} 2. {second['text']}" in merged["text"]
            assert merged["text"] in rewrite["text"]
            assert [r["chosen"] for r in (first, second, merged, rewrite)] == [False, False, True, True]
        before = server.requests
        run(dataset, *flags(server, prompts), *asked)
        assert server.requests == before


def test_a_lost_window_costs_its_own_story_and_comes_back(dataset: Dataset, prompts: Path) -> None:
    with FaultServer(by_word({"part": "400"})) as server:
        run(dataset, *flags(server, prompts), "--kinds=[dense]", "--window_s=1.2")
        found = by_key(dataset)
        assert {found[clip, "dense", 0]["status"] for clip in KEPT} == {"ok"}
        assert {found[clip, "dense", 1]["status"] for clip in KEPT} == {"error"}
        assert all("have no text" in found[clip, "merged", 0]["error"] for clip in KEPT)
        server.plan, before = (lambda ask: None), server.requests
        assert (
            run(dataset, *flags(server, prompts), "--kinds=[dense]", "--window_s=1.2", "--retry=failed") == 0
        )
        assert server.requests - before == 2 * len(KEPT)  # the lost windows and the stories, nothing else
        assert {row["status"] for row in rows(dataset)} == {"ok"}


def test_structured_captions_follow_the_schema_and_the_measured_camera(
    dataset: Dataset, prompts: Path
) -> None:
    with FaultServer() as server:
        assert run(dataset, *flags(server, prompts), "--kinds=[structured]") == 0
        assert all("response_format" in ask.body for ask in server.seen.asks)
    found = by_key(dataset)
    cameras = {row["clip_id"][:2]: row["camera"] for row in dataset.read("clips").to_pylist()}
    for clip in KEPT:
        fields = json.loads(found[clip, "structured", 0]["structured"])
        assert fields["subject"].startswith("An object about the picture.")
        said = {"pan": "The camera pans sideways.", "static": "The camera does not move."}[cameras[clip]]
        assert fields["camera"] == said


def test_measured_facts_reach_the_prompt_and_stand_behind_the_caption(
    dataset: Dataset, prompts: Path
) -> None:
    with FaultServer() as server:
        run(dataset, *flags(server, prompts), "--kinds=[dense]", "--facts=both", "--frames.by=keyframe")
        assert all("Measured: the camera" in ask.prompt for ask in server.seen.asks)
    for row in by_key(dataset).values():
        assert "Camera: " in row["text"]
        assert "facts_suffix" in row["flags"]


def test_keyframes_are_shown_and_counted(dataset: Dataset, prompts: Path) -> None:
    (prompts / "dense.v2.txt").write_text("Number of pictures: $n_frames. $facts")
    with FaultServer() as server:
        run(dataset, *flags(server, prompts), "--kinds=[dense]", "--frames.by=keyframe")
    # The only keyframe of each film is its first frame; clips without one show what was planned.
    found = by_key(dataset)
    for clip in KEPT:
        times = [0.0] if clip.endswith("0") else [2.25, 2.75, 3.25, 3.75]
        row = found[clip, "dense", 0]
        assert row["frame_times_s"] == pytest.approx(times)
        assert row["text_raw"].startswith(f"Number of pictures: {len(times)}. Measured:")


GERMAN = {
    "dense": "Auf einer weiten grünen Wiese steht ein großer alter Baum, und ein Hund läuft langsam daran vorbei.",
    "structured": "Ein großer Hund läuft langsam über die grüne Wiese.",
}


def test_captions_in_another_language_are_asked_for_by_prompt_and_option(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for kind, text in GERMAN.items():
        (tmp_path / f"{kind}.v1.txt").write_text(text)
    with FaultServer() as server:
        asked = [*flags(server, tmp_path), "--kinds=[dense,structured]", "--facts=hint"]
        assert run(dataset, *asked, "--lang=de") == 0
        found = by_key(dataset)
        assert {(row["lang"], row["status"]) for row in found.values()} == {("de", "ok")}
        for (_, kind, _), row in found.items():
            assert row["text"].startswith(GERMAN[kind])
        fields = json.loads(found["a0", "structured", 0]["structured"])
        assert "camera" not in (fields["camera"] or "")  # the measured one is told in English alone
        before = server.requests
        run(dataset, *asked, "--lang=de")
        assert server.requests == before
        # Taken for English, the same prompts make captions of their own, none of them good.
        assert run(dataset, *asked) == 1
    english = [row for row in rows(dataset) if row["lang"] == "en" and row["kind"] != "original"]
    assert len(english) == len(found)
    assert {row["status"] for row in english} == {"wrong_lang"}
    capsys.readouterr()
    assert run(dataset, *asked, "--lang=de", "--facts=both") == 2
    assert "--lang=de: the words behind a caption are English" in capsys.readouterr().err


def test_a_loop_costs_one_second_try_with_another_seed_and_temperature(
    dataset: Dataset, prompts: Path
) -> None:
    with FaultServer(lambda ask: "loop" if ask.body["temperature"] == 0.0 else None) as server:
        assert run(dataset, *flags(server, prompts), "--kinds=[short]") == 0
        assert server.requests == 2 * len(KEPT)
        assert {ask.body["seed"] for ask in server.seen.asks} == {0, 1}
    assert all("second_try" in row["flags"] for row in by_key(dataset).values())


def test_a_loop_is_never_asked_for_in_the_same_way_again(dataset: Dataset, prompts: Path) -> None:
    with FaultServer(lambda ask: "loop") as server:
        run(dataset, *flags(server, prompts), "--kinds=[short]")
        assert {row["status"] for row in by_key(dataset).values()} == {"repetitive"}
        server.plan = lambda ask: "loop" if ask.body["seed"] < 3 else None
        assert run(dataset, *flags(server, prompts), "--kinds=[short]", "--retry=failed") == 0
        asked = sorted({(ask.body["seed"], ask.body["temperature"]) for ask in server.seen.asks})
    assert asked == [(0, 0.0), (1, 0.7), (2, 0.7), (3, 0.7)]
    assert all((row["seed"], row["retries"]) == (3, 3) for row in by_key(dataset).values())
