"""What the report draws, measured in a real headless Chromium against figures worked out by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from report_browser import NO_MOTION, PHONE, ask, needs_chromium
from report_clips import build as build_many
from small_dataset import build

from curate.dataset import Dataset
from pipelines.query import connect
from pipelines.report import ReportConfig, gather
from pipelines.report_scores import counts_by, histograms

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
# Nine shots, of which the rule rejects what is not within 1 to 2. The axis of 330 goes from 0 to 4.
COUNTS = {"n": 16, "nulls": 1, "below": [0, 2, 4, 7, 15, 15, 15], "above": [16, 14, 12, 9, 1, 1, 0]}
SCORE: dict[str, Any] = {
    "name": "motion", "about": "a score", "reasons": ["no flow (1)"], "tries": "<", "n": 17, "nulls": 1, "over": 0,
    "limits": [{"op": "<", "bound": 1.0}, {"op": ">", "bound": 2.0}], "if_null": "keep", "median": 1.5, "max": 4.0,
    "edges": [0.0, 1.0, 1.5, 2.0, 4.0], "kept": [0, 3, 6, 0], "rejected": [4, 0, 2, 1], "waiting": [0, 0, 0, 1],
    "stops": [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0], "all": COUNTS, "free": COUNTS, "by_hand": 0, "undecided": 1,
    "unread": {"n": 4, "nulls": 0, "below": [0, 1, 4, 4, 4, 4, 4], "above": [4, 3, 0, 0, 0, 0, 0]},
    "unread_scores": ["text_area"], "seeks_copies": True, "n_copies": 2, "command": "reelmill decide --dataset x",
}  # fmt: skip
RUN = {
    "name": "first", "steps": 2, "points": [[1, 2.0], [2, 1.0]], "val_points": [[1, 2.5], [2, 1.5]], "last": {},
    "not_finite": 0, "samples": [], "samples_left_out": [], "n_left_out": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def values(dataset: Dataset) -> dict:
    """The page of a small dataset, with a score, a shape, a run and samples whose drawing is known."""
    samples = [
        {"name": "000.mp4", "kind": "video", "text": None, "uri": "data:video/mp4;base64,"},
        {"name": "strip.png", "kind": "image", "text": None, "uri": PIXEL},
    ]
    found = gather(dataset, ReportConfig(dataset.uri))
    found["caption_facts"]["cost"]["usd"] = 1.25
    return {
        **found, "histograms": [SCORE], "runs": [RUN], "n_runs": 1, "samples": samples,
        "camera": [{"name": "pan", "kept": 6, "rejected": 2, "waiting": 0},
                   {"name": "tilt", "kept": 1, "rejected": 2, "waiting": 3}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> dict:
    """A hundred clips without pictures: the gallery has them all."""
    dataset = build_many(tmp_path_factory.mktemp("drawn"), 100)
    return gather(dataset, ReportConfig(dataset.uri, gallery=100))


DRAWN = """
const card = document.getElementById("score-motion"), drawing = card.querySelector("svg");
const numbers = (one, ...names) => names.map((name) => Number(one.getAttribute(name)));
const all = (where, from = document) => [...from.querySelectorAll(where)];
"""


@needs_chromium
def test_a_histogram_is_drawn_to_scale(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        DRAWN + """const place = (one) => numbers(one, "x", "y", "width", "height");
        const rects = (kind) => all(`rect.${kind}`, drawing).map(place);
        return { kept: rects("k"), rejected: rects("r"), waiting: rects("w"),
          limits: all(".limit", drawing).map((one) => numbers(one, "x1", "x2")),
          cut: all(".cutoff", drawing).map((one) => numbers(one, "x", "width")),
          colours: ["k", "r", "w"].map((kind) => getComputedStyle(drawing.querySelector(`rect.${kind}`)).fill),
          told: drawing.querySelector(".tallest").textContent, label: drawing.getAttribute("aria-label") };""",
    )  # fmt: skip
    # Of the eight shots of the tallest bar one is 9.75 high; bins begin at 0, 82.5, 123.75 and 165.
    assert seen["kept"] == [[83, 48.75, 40.25, 29.25], [124.25, 19.5, 40.25, 58.5]]
    assert seen["rejected"] == [[0.5, 39, 81.5, 39], [124.25, 0, 40.25, 19.5], [165.5, 68.25, 164, 9.75]]
    assert seen["waiting"] == [[165.5, 58.5, 164, 9.75]]
    assert seen["limits"] == [[82.5, 82.5], [165, 165]]
    assert seen["cut"] == [[0, 82.5], [165, 165]]
    assert seen["colours"] == ["rgb(13, 122, 111)", "rgb(200, 116, 47)", "rgb(182, 178, 166)"]
    assert seen["told"] == "tallest: 8 shots"
    assert "9 kept, 7 rejected, 1 not decided yet" in seen["label"]


@needs_chromium
def test_a_moved_limit_is_drawn_and_tells_what_it_cannot_know(
    values: dict, tmp_path: Path, monkeypatch
) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        DRAWN + """const command = card.nextSibling;
        const line = (one) => [one.getAttribute("visibility"), ...numbers(one, "x1", "x2")];
        const result = card.querySelector(".result");
        const look = () => [all(".moved", drawing).map(line), command.checkVisibility(), result.textContent];
        const press = (label) => card.querySelector(`[aria-label="motion ${label}"]`).click();
        const found = { before: look() };
        press("at least: one stop down");
        found.down = look();
        found.command = command.textContent;
        found.below = command.getBoundingClientRect().top >= card.getBoundingClientRect().bottom;
        press("at least: one stop up"); press("at least: one stop up");
        found.up = look();
        press("at most: one stop up");
        found.both = look();
        return found;""",
    )  # fmt: skip
    there, gone = ["hidden", 165, 165], "hidden"
    lines, is_shown, told = seen["before"]
    assert (lines, is_shown) == ([[gone, 82.5, 82.5], there], False)
    assert told == "12 of 17 kept 12 pass this filter, 1 not decided yet"
    lines, is_shown, told = seen["down"]
    assert (lines, is_shown) == ([["visible", 41.25, 41.25], there], True)
    assert told == (
        "up to 14 of 17 would be kept +214 pass this filter, 1 not decided yet"
        "Copies among them would still be rejected."
        "3 of them have no text area yet: only a new dataset would measure it."
    )
    assert seen["command"] == (
        "reelmill decide --dataset x \\\n  --rules.motion.min=0.5 \\\n  --rules.motion.max=2Back"
    )
    assert seen["below"] is True
    lines, _, told = seen["up"]
    assert lines == [["visible", 123.75, 123.75], there]
    assert told.startswith("about 9 of 17 would be kept −3")
    assert "A copy may be kept in place of a shot that goes." in told
    assert "text area" not in told
    lines, _, told = seen["both"]
    assert lines == [["visible", 123.75, 123.75], ["visible", 247.5, 247.5]]
    assert told.startswith("about 9 of 17 would be kept −3")


@needs_chromium
def test_everything_else_is_drawn(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        DRAWN + """const rows = (at) => all("#shapes .card")[at].querySelectorAll(".mosaic > div");
        const film = document.querySelector("#clips .film"), shots = all(".stage")[1];
        const rules = [...document.styleSheets[0].cssRules];
        const share = (one) => one.getBoundingClientRect().width / one.parentElement.getBoundingClientRect().width;
        const running = () => getComputedStyle(film).animationPlayState;
        const still = running();
        [...document.querySelectorAll("#clips .filters button")].find((one) => one.textContent === "Play all").click();
        return { camera: [...rows(0)].map((row) => row.querySelector(".told").textContent),
          parts: [...rows(0)].map((row) => all(".bar i", row).map((part) => [part.className, part.style.flexGrow])),
          widths: [...rows(0)].map((row) => row.querySelector(".bar").style.width),
          titles: all("#shapes h3").map((one) => one.textContent), shape: rows(1)[0].textContent,
          frames: [getComputedStyle(film).backgroundSize, still, running(),
            getComputedStyle(film).animationTimingFunction],
          stage: all(".bar i", shots).map((part) => Math.round(100 * share(part))),
          losses: all("#training polyline").map((one) => one.getAttribute("class")),
          samples: all("#samples :is(video, img)").map((one) => one.tagName),
          player: document.querySelector("#samples video").getBoundingClientRect().width,
          cost: document.querySelector("#captions .scroll + .foot").textContent,
          halves: all(".two").map((pair) => all(".mark", pair).map((one) => one.textContent)),
          copy: all(".two .half:last-child .mono").map((one) => one.textContent),
          ring: rules.filter((rule) => rule.selectorText === ".screen:focus-visible")
            .map((rule) => [rule.style.outlineStyle, rule.style.boxShadow.includes("inset")]),
        };""",
    )  # fmt: skip
    assert seen["camera"] == ["6 of 8 kept", "1 of 3 kept, 3 not decided"]
    assert seen["parts"] == [
        [["good", "0.75"], ["rejected", "0.25"]],
        [["good", "0.166667"], ["rejected", "0.333333"], ["waiting", "0.5"]],
    ]
    assert seen["widths"] == ["100%", "75%"]
    assert seen["titles"] == ["camera motion", "aspect", "picture size"]
    assert seen["shape"] == "16:95 of 8 kept"
    assert seen["frames"] == ["800% 100%", "paused", "running", "steps(8, jump-none)"]
    kept, *rejected = seen["stage"]
    assert 61 <= kept <= 63  # five of eight, less the gaps
    assert all(12 <= part <= 13 for part in rejected)
    assert seen["losses"] == ["loss", "val"]
    assert seen["samples"] == ["VIDEO", "IMG"]
    assert seen["player"] >= 320  # beneath, the controls cover the picture
    assert seen["cost"].startswith("cost $1.25")
    assert seen["halves"] == [["kept", "copy"]]
    assert [text[:2] for text in seen["copy"]] == ["c2"]
    assert seen["ring"] == [["", True]]


@needs_chromium
def test_a_phone_stacks_the_stages_and_steps_the_sliders(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        DRAWN + """const step = card.querySelector(".bound button").getBoundingClientRect();
        return [getComputedStyle(document.querySelector(".stage")).gridTemplateColumns.split(" ").length,
          step.width >= 24 && step.height >= 24];""",
        width=PHONE,
    )  # fmt: skip
    assert seen == [1, True]


@needs_chromium
def test_a_phone_shows_twelve_clips_and_more_if_asked(many: dict, tmp_path: Path, monkeypatch) -> None:
    look = """const cards = () => [...document.querySelectorAll(".clip:not([hidden])")];
    const more = document.querySelector(".rest"), told = document.querySelector(".filters output"), seen = [];
    const look = () => seen.push([cards().length, told.textContent, more.hidden ? "" : more.textContent]);
    const states = cards().slice(0, 12).map((card) => card.querySelector(".mark").textContent);
    look(); if (!more.hidden) more.click(); look();
    const focused = cards().findIndex((card) => card.contains(document.activeElement));
    for (const [label, value] of [["Score", "luma"], ["Order", "low"]]) {
      const select = document.querySelector(`[aria-label="${label}"]`);
      select.value = value;
      select.dispatchEvent(new Event("change"));
    }
    look();
    for (let i = 0; i < 9; i++) if (!more.hidden) more.click();
    look();
    return [seen, focused, states];"""
    seen, focused, states = ask(many, tmp_path, monkeypatch, look, width=PHONE)
    first, second = [12, "12 of 100 shown", "12 more"], [24, "24 of 100 shown", "12 more"]
    assert seen == [first, second, first, [100, "100 of 100 shown", ""]]
    assert focused == 12
    assert states == ["kept", "rejected"] * 6
    assert ask(many, tmp_path, monkeypatch, look)[0] == [[100, "100 of 100 shown", ""]] * 4


@needs_chromium
def test_a_phone_shows_captioners_as_cards_and_copies_line_by_line(
    values: dict, tmp_path: Path, monkeypatch
) -> None:
    values = copy.deepcopy(values)
    for side in ("kept", "copy"):
        values["copies"]["pairs"][0][side] |= {"clip_id": "c" * 24, "start_s": 1234.5, "end_s": 1250.25}
    look = """const shown = (one) => one.checkVisibility();
    const told = (cell) => [getComputedStyle(cell, "::before").content, cell.textContent];
    const height = (one) => one.getBoundingClientRect().height / parseFloat(getComputedStyle(one).lineHeight);
    const parts = [...document.querySelectorAll(".half .part, .half .mono")];
    return { head: shown(document.querySelector("#captions th")),
      first: [...document.querySelectorAll("#captions tbody tr:first-child td")].filter(shown).map(told),
      figures: new Set([...document.querySelectorAll("#captions tbody tr:first-child .num:not(:empty)")]
        .map((one) => one.getBoundingClientRect().top)).size,
      lines: parts.map((one) => Math.round(height(one))), apart: told(parts[1])[0],
      below: parts[1].getBoundingClientRect().top > parts[0].getBoundingClientRect().top,
      cut: parts.some((one) => one.scrollWidth > one.offsetWidth) };"""
    phone = ask(values, tmp_path, monkeypatch, look, width=360)
    assert phone["head"] is False
    assert phone["first"] == [
        ["none", "dense"], ['"captioner"', "coca"], ['"model"', "embedded"], ['"captions"', "10"],
        ['"distinct"', "6"], ['"words"', "6.3"], ['"answers"', "10 ok"],
    ]  # fmt: skip
    assert phone["figures"] == 1  # beside each other
    assert phone["lines"] == [1] * 6
    assert (phone["cut"], phone["apart"], phone["below"]) == (False, "none", True)
    wide = ask(values, tmp_path, monkeypatch, look)
    assert (wide["head"], wide["apart"], wide["below"]) == (True, '"· "', False)
    assert {label for label, _ in wide["first"]} == {"none"}


@needs_chromium
def test_the_filters_do_not_cover_the_picture_that_has_the_focus(
    many: dict, tmp_path: Path, monkeypatch
) -> None:
    seen = ask(
        many, tmp_path, monkeypatch,
        """const screens = [...document.querySelectorAll(".gallery .screen")], bar = document.querySelector(".filters");
        const score = bar.querySelector('[aria-label="Score"]');
        score.value = "motion";
        score.dispatchEvent(new Event("change"));
        screens.at(-1).focus();
        const seen = [], up = { key: "ArrowUp", bubbles: true, cancelable: true };
        for (let i = 0; i < 12; i++) {
          // A picture that is not seen at all would be scrolled to the middle, one that is seen in part to the edge.
          const next = screens[screens.indexOf(document.activeElement) - 4];
          scrollBy(0, next.getBoundingClientRect().top + 20);
          document.activeElement.dispatchEvent(new KeyboardEvent("keydown", up));
          seen.push(document.activeElement.getBoundingClientRect().top >= bar.getBoundingClientRect().bottom);
        }
        return [seen, bar.getBoundingClientRect().top, screens.includes(document.activeElement), scrollY > 900];""",
        NO_MOTION, "--window-size=1280,800",
    )  # fmt: skip
    assert seen == [[True] * 12, 0, True, True]


def test_what_is_not_decided_is_not_counted_as_kept(tmp_path: Path) -> None:
    dataset = build(tmp_path, tables=("sources", "clips"))
    motion = next(score for score in histograms(connect(dataset)) if score["name"] == "motion")
    assert (sum(motion["kept"]), sum(motion["rejected"]), sum(motion["waiting"])) == (0, 0, 7)
    assert (motion["undecided"], motion["free"]["n"]) == (8, 0)
    assert counts_by(connect(dataset), "'one'") == [{"name": "one", "kept": 0, "rejected": 0, "waiting": 8}]
    whole = build(tmp_path / "whole")
    dataset.write("decisions", whole.read("decisions").slice(0, 4))
    motion = next(score for score in histograms(connect(dataset)) if score["name"] == "motion")
    (row,) = counts_by(connect(dataset), "'one'")
    assert (row["kept"], row["rejected"], row["waiting"]) == (3, 1, 4)
    assert motion["undecided"] == 4
    # Of c1 there is no motion.
    assert (sum(motion["kept"]), sum(motion["rejected"]), sum(motion["waiting"])) == (3, 1, 3)


@needs_chromium
def test_a_clip_without_a_decision_is_said_to_wait(tmp_path: Path, monkeypatch) -> None:
    dataset = build(tmp_path, tables=("sources", "clips"))
    seen = ask(
        gather(dataset, ReportConfig(dataset.uri)), tmp_path, monkeypatch,
        """const marks = [...document.querySelectorAll("#clips .mark")].map((one) => one.textContent);
        const text = (where) => document.querySelector(where).textContent;
        const left = (word) => {
          [...document.querySelectorAll(".sides button")].find((one) => one.textContent === word).click();
          return document.querySelectorAll(".clip:not([hidden])").length;
        };
        return { marks: [...new Set(marks)], kept: left("Kept"), waiting: left("Not decided"),
          hint: text("#clips .hint"), told: text("#score-motion .result"), mosaic: text("#shapes .told") };""",
    )  # fmt: skip
    assert seen["marks"] == ["not decided yet"]
    assert (seen["kept"], seen["waiting"]) == (0, 8)
    assert seen["hint"].startswith("A random sample: 8 not decided of 8 shots")
    assert seen["told"] == "8 of 8 pass this filternothing is decided yet"
    assert seen["mosaic"] == "4 not decided"
