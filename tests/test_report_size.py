"""The page stays under 15 MB for 10,000 clips of noise with long captions and 10,000 files that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from report_browser import needs_chromium, open_in_chromium
from report_clips import clip_id

from curate.dataset import Dataset
from curate.tables import CAPTIONS, CLIPS, DECISIONS, SOURCES
from pipelines import report
from pipelines import report_budget as budget
from pipelines.query import connect
from pipelines.report import ReportConfig, gather, render
from pipelines.report_pictures import as_uri
from pipelines.report_runs import samples

N = 10_000
FPS, SECONDS, WIDTH, HEIGHT = 10, 6, 320, 180


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """All clips lie in one film of noise, which WebP cannot make small; every twentieth is a copy."""
    folder = tmp_path_factory.mktemp("size")
    noise(folder / "noise.mp4")
    dataset = Dataset(folder / "noise.reel")
    film = {
        "source_id": "a" * 32,
        "uri": str(folder / "noise.mp4"),
        "status": "ok",
        "duration_s": float(SECONDS),
    }
    trace = "\n".join(
        f"  File line_{i}.py, line {i}: in a place that is told at some length" for i in range(60)
    )
    in_letters = str.maketrans("0123456789", "abcdefghij")  # so that each is an error of its own
    failed = [
        {
            "uri": f"/films/{i}.mp4",
            "status": "failed",
            "error": f"error {str(i).translate(in_letters)}\n{trace}",
        }
        for i in range(N)
    ]
    dataset.write("sources", pa.Table.from_pylist([film, *failed], schema=SOURCES))
    starts = np.random.default_rng(0).uniform(0, SECONDS - 2, N)
    clips = [
        {"clip_id": clip_id(i), "source_id": "a" * 32, "start_s": start, "end_s": start + 2, "fps": float(FPS),
         "width": WIDTH, "height": HEIGHT, "n_frames": 20, "motion": i / N, "luma": 255 * i / N, "camera": "pan"}
        for i, start in enumerate(starts.tolist())
    ]  # fmt: skip
    dataset.write("clips", pa.Table.from_pylist(clips, schema=CLIPS))
    dataset.write("decisions", pa.Table.from_pylist([decision(i) for i in range(N)], schema=DECISIONS))
    words = " ".join(f"wörd{i}" for i in range(400))  # 3,490 characters
    captions = [
        {"caption_id": f"{i:x}", "clip_id": clip_id(i), "kind": "dense", "status": "ok", "chosen": True,
         "text": f"caption {i} {words * (4 if i % 10 == 0 else 1)} <湖>"}
        for i in range(0, N, 2)
    ]  # fmt: skip
    dataset.write("captions", pa.Table.from_pylist(captions, schema=CAPTIONS))
    return dataset


def decision(i: int) -> dict[str, Any]:
    row: dict[str, Any] = {"clip_id": clip_id(i), "keep": i % 2 == 0, "reasons": [], "weight": 1.0}
    if i % 20 == 1:
        reason = f"copy of {clip_id(i - 1)} ({i % 13}.5 of 64 bits differ <= 13)"
        return row | {"reason": reason, "reasons": [reason], "duplicate_of": clip_id(i - 1)}
    return row | ({} if row["keep"] else {"reason": "motion 0.1 < 0.3", "reasons": ["motion 0.1 < 0.3"]})


def noise(path: Path) -> None:
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"qp": "16", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(FPS * SECONDS):
            picture = random.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def values(dataset: Dataset) -> dict:
    return gather(dataset, ReportConfig(dataset.uri, gallery=40))


def test_ten_thousand_clips_fit_and_what_is_left_out_is_told(dataset: Dataset, values: dict) -> None:
    page = render(values).encode()
    assert 8_000_000 < len(page) < budget.PAGE_BYTES  # the shares are used, and hold
    shown = [clip for clip in values["gallery"] if clip["picture"]]
    assert 10 < len(shown) < len(values["gallery"])
    assert values["left_out"]["pictures"] + len(shown) <= 80
    assert values["left_out"]["cards"] + len(values["gallery"]) == 80
    assert abs(2 * sum(clip["keep"] for clip in shown) - len(shown)) <= 2  # kept and rejected lose alike
    assert sum(len(clip["picture"]) for clip in shown) <= budget.GALLERY_PICTURES
    assert values["n_errors"] == N
    assert 0 < len(values["errors"]) < 500
    assert values["errors"][0]["error"].endswith("at some length")  # in full
    assert (values["copies"]["n_clips"], len(values["copies"]["pairs"])) == (500, 12)
    why = {clip["no_picture"] for clip in values["gallery"] if not clip["picture"]}
    assert why == {"left out to keep this page small"}


def test_cards_that_do_not_fit_are_counted(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "CARDS", 20_000)
    monkeypatch.setattr(report, "PAIRS", 0)
    values = report._pictures(dataset, connect(dataset), 10)
    assert 2 <= len(values["gallery"]) < 20
    assert values["left_out"]["cards"] + len(values["gallery"]) == 20


@needs_chromium
def test_the_large_page_opens_and_says_what_it_left_out(
    dataset: Dataset, values: dict, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(values), "utf-8")
    dom, log = open_in_chromium(page)
    assert "CONSOLE" not in log
    assert "of 10,000 shots, in turn, rejected ones from every reason" in dom
    assert f"{values['left_out']['pictures']:,} pictures" in dom
    assert "were left out, so that the page stays below 15 MB" in dom
    assert f"10,000 in all, {len(values['errors']):,} of them shown" in dom
    assert "SELECT uri, error FROM sources WHERE error IS NOT NULL" in dom
    assert "are told once" not in dom  # each is an error of its own
    assert "500 shots are copies" in dom
    assert "12 of these pairs are shown" in dom


def test_long_captions_are_cut_with_a_word_on_it() -> None:
    rows = [{"kind": "dense", "text": "x" * 5000, "status": "ok"}] * 20
    short = budget.shortened(rows)
    assert len(short) == budget.MOST_CAPTIONS + 1
    assert short[0]["text"] == "x" * 4000 + "… (cut here; 5,000 characters in all)"
    assert short[-1]["error"].startswith("8 more captions are not on this page")


def test_a_row_that_is_too_long_does_not_stop_shorter_ones() -> None:
    rows = [{"a": "x" * 10}, {"a": "x" * 90}, {"a": "<"}]
    assert budget.within(rows, 60) == [rows[0], rows[2]]
    assert budget.size_of({"a": "<é"}) == len('{"a":"\\u003cé"}'.encode()) == 16


def test_samples_share_one_budget(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(bytes(900))
    uri = as_uri(bytes(900), "video/mp4")
    room = budget.Budget(2 * budget.size_of({"name": "a.mp4", "kind": "video", "text": None, "uri": uri}))
    found = samples(Dataset(tmp_path), "", room)
    assert [sample["name"] for sample in found["samples"]] == ["a.mp4", "b.mp4"]
    assert found["samples_left_out"] == ["c.mp4"]
    assert room.left == 0


def test_samples_of_all_runs_and_of_their_own_folder_share_one_budget_in_the_page(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run/samples", "own"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / name / f"{number}.mp4").write_bytes(bytes(900))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    monkeypatch.setattr(budget, "SAMPLES", 5_400)  # four of 1,260 bytes or so
    monkeypatch.setattr(report, "PAIRS", 0)
    config = ReportConfig(dataset.uri, run=str(tmp_path / "run"), samples=str(tmp_path / "own"), gallery=1)
    found = gather(dataset, config)
    (run,) = found["runs"]
    assert [len(part["samples"]) for part in (run, found)] == [3, 1]
    assert [part["samples_left_out"] for part in (run, found)] == [[], ["1.mp4", "2.mp4"]]
