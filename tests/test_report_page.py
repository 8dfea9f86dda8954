"""The page itself: one file, no network, all text stays text; opened in a real headless Chromium."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_browser import needs_chromium, open_in_chromium
from small_dataset import HOSTILE, build

import pipelines.report
from curate.dataset import Dataset
from curate.tables import TABLES
from pipelines.report import ReportConfig, gather, main, render


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    dataset = build(tmp_path_factory.mktemp("page"))
    rows = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'
    dataset.write_bytes(rows.encode(), "runs", "</script><b>run", "metrics.jsonl")
    return dataset


@pytest.fixture(scope="module")
def values(dataset: Dataset) -> dict:
    return gather(dataset, ReportConfig(dataset.uri))


def pixels_of(clip: dict) -> np.ndarray:
    """The strip of a card as (H, W, 3) integers."""
    data = base64.b64decode(clip["picture"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_command_writes_one_file(dataset: Dataset, tmp_path: Path, capsys) -> None:
    assert main(["--dataset", dataset.uri]) == 0
    assert (Path(dataset.uri) / "report" / "index.html").stat().st_size > 20_000
    assert "index.html (0." in (told := capsys.readouterr().out)
    assert told.endswith(" MB)\n")
    assert main(["--dataset", dataset.uri, "--out", str(tmp_path / "page.html"), "--gallery=1"]) == 0
    assert (tmp_path / "page.html").is_file()


def test_what_cannot_be_shown_is_told(dataset: Dataset, tmp_path: Path, capsys) -> None:
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "has no clips table. Run `reelmill curate" in capsys.readouterr().err
    assert main(["--dataset", dataset.uri, "--run", str(tmp_path)]) == 2
    assert "holds no metrics.jsonl; give the folder of a training run." in capsys.readouterr().err
    assert main(["--dataset", dataset.uri, "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_pictures_are_frames_of_the_clip_itself(values: dict) -> None:
    clips = {clip["clip_id"][:2]: clip for clip in values["gallery"]}
    assert len(clips) == 8
    for short, colour in {
        "a0": (200, 40, 40),
        "a1": (40, 160, 60),
        "b0": (50, 80, 210),
        "b1": (0, 0, 0),
    }.items():
        clip = clips[short]
        assert clip["no_picture"] is None
        pixels = pixels_of(clip)
        assert pixels.shape == (clip["picture_h"], clip["frames"] * clip["picture_w"], 3)
        assert clip["frames"] == 8
        for frame in range(8):  # above the moving square: the plain colour of this shot, never a neighbour's
            seen = pixels[8, frame * clip["picture_w"] + 100]
            assert np.abs(seen - np.array(colour)).max() < 14, (short, frame, seen)


def test_pictures_come_from_the_shards_when_the_sources_have_gone(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    film = (tmp_path / "films" / "a ö.mp4").read_bytes()  # stands in for the cut clip a0: it begins red
    shards = dataset.read("shards").to_pylist()[:1]
    shards[0] |= {"mp4_offset": 512, "mp4_size": len(film)}
    dataset.write_bytes(bytes(512) + film + bytes(100), "shards", shards[0]["shard"])
    dataset.write("shards", dataset.read("shards").from_pylist(shards, schema=dataset.read("shards").schema))
    shutil.rmtree(tmp_path / "films")
    clips = {c["clip_id"][:2]: c for c in gather(dataset, ReportConfig(dataset.uri))["gallery"]}
    assert pixels_of(clips["a0"])[8, 100, 0] > 180
    assert clips["a1"]["picture"] is None
    assert "the source cannot be read any more" in clips["a1"]["no_picture"]


def test_no_text_becomes_markup_and_nothing_is_fetched(values: dict) -> None:
    page = render(values)
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "<b>" not in page
    assert "onerror=alert(1)>" not in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "default-src 'none'" in page
    script = "".join(path.read_text("utf-8") for path in pipelines.report.PAGE.glob("*.js"))
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "import(",
    ):
        assert sink not in script


def test_numbers_that_json_lacks_become_null() -> None:
    assert '"data">{"a":null,"b":[null,1.5]}</script>' in render(
        {"a": float("nan"), "b": [float("inf"), 1.5]}
    )


@needs_chromium
def test_a_hostile_caption_stays_text_in_a_real_browser(values: dict, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(values), "utf-8")
    dom, log = open_in_chromium(page)
    assert "CONSOLE" not in log
    assert "<title>dataset: Reelmill report</title>" in dom  # the caption's script would have changed it
    body = dom.partition("</header>")[2]
    assert "<img" not in body
    assert "<script" not in body
    text = html.unescape(re.sub(r"<[^>]*>", " ", body))
    assert HOSTILE in text
    for told in ("5 kept", "1 black ratio", "1 failed", "rejected < 0.5", "black ratio 1.00 > 0.10", "bröken <b>.mp4",
                 "HTTP 500: out of tokens", "</script><b>run", "null because: flow needs two frames"):  # fmt: skip
        assert told in text, told
    assert "does not add up" not in text
    (points,) = re.findall(r'<polyline class="loss" points="([^"]*)"', body)
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert x1 < x2
    assert y1 < y2  # a loss that falls goes down the page


@needs_chromium
@pytest.mark.parametrize("tables", [("sources",), ("sources", "clips"), ("sources", "clips", "decisions")])
def test_a_dataset_of_which_only_the_first_tables_exist(tmp_path: Path, tables: tuple[str, ...]) -> None:
    uri = build(tmp_path, tables=tables).uri
    assert main(["--dataset", uri]) == 0
    dom, log = open_in_chromium(Path(uri) / "report" / "index.html")
    assert "CONSOLE" not in log
    assert "files in" in dom
    assert ("pass this filter" in dom) is ("clips" in tables)
    assert ('id="copies"' in dom) is ("decisions" in tables)


@needs_chromium
def test_a_dataset_without_a_clip(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "nothing")
    for table in ("sources", "clips", "decisions", "captions"):
        dataset.write(table, TABLES[table].empty_table())
    assert main(["--dataset", dataset.uri]) == 0
    dom, log = open_in_chromium(tmp_path / "nothing" / "report" / "index.html")
    assert "CONSOLE" not in log
    assert "13 scores were not measured" in dom
