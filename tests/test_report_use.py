"""What a person does with the page, in a real headless Chromium: filter, walk by keys, on a phone, in the dark."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from report_browser import DARK, MOUSE, NO_MOTION, PHONE, ask, needs_chromium
from report_clips import build as build_many
from report_clips import clip_id
from small_dataset import HOSTILE, build

import pipelines.report
from curate.dataset import Dataset
from pipelines.query import connect, rows_of
from pipelines.report import ReportConfig, gather


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict:
    """Eight clips with real pictures, and a training run."""
    dataset = build(tmp_path_factory.mktemp("use"))
    rows = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'
    dataset.write_bytes(rows.encode(), "runs", f"{HOSTILE.replace('/', '_')}", "metrics.jsonl")
    return gather(dataset, ReportConfig(dataset.uri))


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Dataset, dict]:
    """A hundred clips without pictures: the gallery shows them all."""
    dataset = build_many(tmp_path_factory.mktemp("use"), 100)
    return dataset, gather(dataset, ReportConfig(dataset.uri, gallery=100))


FILTERS = """
const cards = () => [...document.querySelectorAll(".clip")].filter((card) => !card.hidden);
const bar = document.querySelector(".filters"), find = (label) => bar.querySelector(`[aria-label="${label}"]`);
const put = (label, value) => {
  const input = find(label);
  input.value = value;
  input.dispatchEvent(new Event(input.tagName === "SELECT" ? "change" : "input"));
};
const press = (word) => [...bar.querySelectorAll("button")].find((button) => button.textContent === word).click();
"""


@needs_chromium
def test_every_filter_shows_the_clips_that_sql_finds(
    many: tuple[Dataset, dict], tmp_path: Path, monkeypatch
) -> None:
    dataset, values = many
    seen = ask(
        values, tmp_path, monkeypatch,
        FILTERS + """const seen = {}, look = (name) => { seen[name] = cards().length; };
        look("all"); press("Rejected"); look("rejected"); press("Kept"); look("kept"); press("All");
        put("Reason", "aesthetic"); look("aesthetic"); press("Kept"); look("kept, aesthetic"); press("All");
        put("Reason", "");
        put("Search captions", "CAMERA PANS"); look("pans"); put("Search captions", "<scr" + "ipt>"); look("script");
        put("Search captions", "");
        seen.range = [find("Score, at least").checkVisibility()];
        put("Score", "motion"); seen.range.push(find("Score, at least").checkVisibility()); look("any motion");
        put("Score, at least", "2"); look("motion 2"); put("Score, at most", "3.5"); look("motion 2 to 3.5");
        put("Reason", "luma"); look("luma, motion 2 to 3.5"); put("Reason", "");
        put("Score, at least", ""); look("motion to 3.5");
        put("Score", "duration_s"); put("Score, at most", "1"); look("short");
        press("Clear"); look("cleared"); seen.told = bar.querySelector("output").textContent;
        put("Search captions", "no such words"); seen.nothing = document.querySelector(".nothing").checkVisibility();
        seen.clear = [...bar.querySelectorAll("select, input")].map((input) => input.value).join("");
        return seen;""",
    )  # fmt: skip
    tables = connect(dataset)
    found = {
        "all": "true", "rejected": "NOT keep", "kept": "keep",
        "aesthetic": "list_contains([split_part(r, ' ', 1) FOR r IN reasons], 'aesthetic')",
        "kept, aesthetic": "keep AND list_contains([split_part(r, ' ', 1) FOR r IN reasons], 'aesthetic')",
        "pans": "clip_id IN (SELECT clip_id FROM captions WHERE contains(text, 'camera pans'))",
        "script": "clip_id IN (SELECT clip_id FROM captions WHERE contains(text, '<script>'))",
        "any motion": "true", "motion 2": "motion >= 2", "motion 2 to 3.5": "motion BETWEEN 2 AND 3.5",
        "luma, motion 2 to 3.5": "motion BETWEEN 2 AND 3.5 AND "
        "list_contains([split_part(r, ' ', 1) FOR r IN reasons], 'luma')",
        "motion to 3.5": "motion <= 3.5", "short": "end_s - start_s <= 1", "cleared": "true",
    }  # fmt: skip
    for name, condition in found.items():
        n = rows_of(
            tables, f"SELECT count(*) AS n FROM clips JOIN decisions USING (clip_id) WHERE {condition}"
        )[0]["n"]
        assert seen[name] == n, name
        assert n > 0 or name == "kept, aesthetic"
    assert seen["range"] == [False, True]
    assert seen["told"] == "100 of 100 shown"
    assert seen["nothing"] is True
    assert seen["clear"] == "no such words"  # everything else was cleared


@needs_chromium
def test_the_order_is_that_of_the_score_with_nulls_last(
    many: tuple[Dataset, dict], tmp_path: Path, monkeypatch
) -> None:
    dataset, values = many
    seen = ask(
        values, tmp_path, monkeypatch,
        FILTERS + """put("Score", "motion");
        return ["high", "low"].map((order) => {
          put("Order", order);
          return cards().map((card) => card.getAttribute("aria-label").split(" ")[1]);
        });""",
    )  # fmt: skip
    motion = {
        row["clip_id"]: row["motion"] for row in dataset.read("clips", ["clip_id", "motion"]).to_pylist()
    }
    for order, clips in zip(("high", "low"), seen, strict=True):
        drawn = [motion[clip] for clip in clips]
        there = [value for value in drawn if value is not None]
        assert there == sorted(there, reverse=order == "high")
        assert drawn[len(there) :] == [None] * (100 - len(there)) != []


@needs_chromium
def test_the_keyboard_reaches_and_plays(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        """const screens = [...document.querySelectorAll(".gallery .screen")];
        const film = screens[0].querySelector(".film");
        const press = (key) => {
          document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          return screens.indexOf(document.activeElement);
        };
        const state = () => [getComputedStyle(film).animationPlayState, screens[0].getAttribute("aria-pressed")];
        screens[0].focus();
        const walked = ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "End", "Home"].map(press);
        const before = state();
        press("Enter");
        const after = state();
        press(" ");
        // Whether :focus holds depends on the window, which headless Chromium activates late: the rule is asked for.
        const stopped = state(), skip = document.querySelector(".skip");
        const shown = [...document.styleSheets[0].cssRules].filter((rule) => rule.selectorText === ".skip:focus");
        skip.focus();
        const atSkip = document.activeElement === skip;
        const past = document.querySelector(".past"), behind = document.querySelector(past.hash);
        const after_of = (one, other) => Boolean(other.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
        behind.focus();
        const links = [...document.querySelectorAll("nav a")].map((a) => document.querySelector(a.hash));
        const all = [...document.querySelectorAll("button, input, select, [role=button], svg[role=img]")];
        return { walked, before, after, stopped, skip: atSkip && shown[0].style.left === "0px",
          across: getComputedStyle(document.querySelector(".gallery")).gridTemplateColumns.split(" ").length,
          first: document.querySelector("a, button, input, select, [tabindex='0']") === skip,
          links: links.length > 5 && !links.includes(null),
          past: [after_of(screens[0], past), after_of(behind, screens.at(-1)), document.activeElement === behind],
          unnamed: all.filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim())).length };""",
    )  # fmt: skip
    assert seen["across"] == 4
    assert seen["walked"] == [1, 2, 1, 5, 1, 7, 0]
    assert seen["before"] == ["paused", "false"]
    assert seen["after"] == ["running", "true"]
    assert seen["stopped"] == ["paused", "false"]
    assert seen["first"] is True
    assert seen["skip"] is True
    assert seen["links"] is True
    assert seen["past"] == [True, True, True]
    assert seen["unnamed"] == 0


@needs_chromium
def test_a_phone_shows_it_all_without_scrolling_aside(values: dict, tmp_path: Path, monkeypatch) -> None:
    far = "s3://" + "a" * 80  # a name without a place to break
    captions = [{**row, "model": "m" * 60, "with_text": 1_234_567} for row in values["captions"]]
    values = {**values, "dataset": far, "what_if": f"decide --dataset {far}", "captions": captions}
    seen = ask(
        values, tmp_path, monkeypatch,
        """document.querySelectorAll("details").forEach((one) => { one.open = true; });
        for (const input of document.querySelectorAll(".bound input")) {
          input.value = (Number(input.min) + Number(input.max)) / 2;
          input.dispatchEvent(new Event("input"));
        }
        const right = (one) => (one.closest(".film, .bound") ? 0 : one.getBoundingClientRect().right);
        const wide = [...document.querySelectorAll("main *, header *")].filter((one) => right(one) > innerWidth);
        const tops = (one) => [...one.children].map((half) => half.getBoundingClientRect().top);
        const pairs = [...document.querySelectorAll(".two")].map(tops);
        return [innerWidth, document.documentElement.scrollWidth, wide.map((one) => one.outerHTML.slice(0, 200)),
          pairs.map(([kept, copy]) => kept === copy)];""",
        width=PHONE,
    )  # fmt: skip
    assert seen == [PHONE, PHONE, [], [True]]  # a pair stands side by side here too


@needs_chromium
def test_what_a_person_decided_is_told_once_as_by_hand(
    many: tuple[Dataset, dict], tmp_path: Path, monkeypatch
) -> None:
    dataset, values = many
    # Clip 4 has copies and rules against it too, 3 and 20 to 39 are kept by hand.
    seen = ask(
        values, tmp_path, monkeypatch,
        FILTERS + f"""const why = (id) => [...document.querySelectorAll(`[aria-label="clip ${{id}}"] .why`)]
          .map((one) => [one.className, one.textContent]);
        const option = [...find("Reason").options].find((one) => one.textContent === "by hand");
        put("Reason", option.value);
        const found = cards().map((card) => card.getAttribute("aria-label").split(" ")[1]).sort();
        return {{ rejected: why("{clip_id(4)}"), kept: why("{clip_id(3)}"), found,
          funnel: document.querySelectorAll(".stage")[1].querySelector(".sum").textContent,
          override: document.querySelector("main").textContent.includes("override") }};""",
    )  # fmt: skip
    rows = {row["clip_id"]: row for row in dataset.read("decisions").to_pylist()}
    first, *rules = rows[clip_id(4)]["reasons"]
    assert first == "override by bob"
    assert seen["rejected"][0] == ["why hand", "by hand: reject by bob"]
    assert [kind for kind, _ in seen["rejected"][1:]] == ["why"] * len(rules)
    assert seen["kept"][0] == ["why hand", f"by hand: keep by ann: I like it {HOSTILE}"]
    assert len(seen["kept"]) == 1 + len(rows[clip_id(3)]["reasons"])
    assert seen["found"] == [clip_id(i) for i in (3, 4, *range(20, 40))]
    n_kept = sum(row["keep"] for row in rows.values())
    assert seen["funnel"].startswith(f"{n_kept} kept (21 by hand)")
    assert "1 by hand" in seen["funnel"].removeprefix(f"{n_kept} kept (21 by hand)")
    assert seen["override"] is False


@needs_chromium
def test_light_dark_and_still(values: dict, tmp_path: Path, monkeypatch) -> None:
    look = """const film = document.querySelector(".film"), rules = [...document.styleSheets[0].cssRules];
    document.querySelector(".screen").click();
    const hover = rules.filter((rule) => rule.media && rule.cssText.includes(".screen:hover"));
    return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
      getComputedStyle(document.documentElement).scrollBehavior, getComputedStyle(film).animationPlayState,
      hover.length, hover.some((rule) => matchMedia(rule.media.mediaText).matches)];"""
    light = ask(values, tmp_path, monkeypatch, look, MOUSE)
    dark = ask(values, tmp_path, monkeypatch, look, DARK)
    still = ask(values, tmp_path, monkeypatch, look, MOUSE, NO_MOTION)
    assert light == ["rgb(247, 246, 242)", "rgb(29, 28, 26)", "smooth", "running", 1, True]
    assert dark[:2] == ["rgb(21, 21, 20)", "rgb(235, 232, 225)"]
    assert still[2:] == ["auto", "running", 1, False]  # nothing plays unless it is asked to


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb by WCAG 2.1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_the_contrast_of_aa_in_both_themes() -> None:
    style = (pipelines.report.PAGE / "page.css").read_text("utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(themes) == 2
    for theme in themes:
        for text in ("ink", "soft", "good", "why", "failed", "second"):
            for ground in ("paper", "card", "track"):
                if ground == "track" and text not in ("ink", "soft"):
                    continue  # bars, commands and errors hold nothing else
                light, dark = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
        for part in ("good", "rejected", "failed", "second"):  # what is drawn, not written
            light, dark = sorted((luminance(theme[part]), luminance(theme["card"])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, part


@needs_chromium
def test_hostile_text_stays_text_in_every_part(
    many: tuple[Dataset, dict], values: dict, tmp_path: Path, monkeypatch
) -> None:
    """In captions, words, a person's note, file names of copies, reasons for null, and the name of a run."""
    clips = copy.deepcopy(many[1])
    mixed = {
        **clips,
        "runs": values["runs"],
        "n_runs": 1,
        "errors": [{"what": HOSTILE, "who": HOSTILE, "status": "failed", "error": HOSTILE}],
    }
    mixed["samples_left_out"] = [HOSTILE]
    mixed["caption_facts"]["kinds"][0]["top"][0]["word"] = HOSTILE
    mixed["histograms"][1]["command"] = HOSTILE
    mixed["dataset"] = f"/{HOSTILE}/x"
    parts = [
        "#about", "#clips .hand", "#clips .cap", "#copies b", "#captions .words", "#scores details",
        "#score-motion + .command code", "#training h3", "#samples .foot", "#errors summary", "#errors pre",
    ]  # fmt: skip
    seen = ask(
        mixed, tmp_path, monkeypatch,
        f"""const parts = {parts};
        const input = document.querySelector("#score-motion input");
        input.value = 4;
        input.dispatchEvent(new Event("input"));
        const tags = "script, img, iframe, object, embed, link, [onerror], [onload]";
        const texts = (where) => [...document.querySelectorAll(where)].map((one) => one.textContent);
        const says = (where) => texts(where).some((text) => text.includes("<img src=x"));
        return {{ title: document.title, silent: parts.filter((where) => !says(where)),
          bad: document.querySelectorAll(`main :is(${{tags}}), header :is(${{tags}})`).length }};""",
    )  # fmt: skip
    assert seen == {"title": "x: Reelmill report", "silent": [], "bad": 0}


@needs_chromium
def test_a_card_tells_its_scores_and_why_one_is_null(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        """const card = document.querySelector('[aria-label^="clip c1"]'), names = [...card.querySelectorAll("dt")];
        const told = names.map((name) => [name.textContent, name.nextSibling.textContent]);
        return [Object.fromEntries(told), document.querySelector("main").textContent.includes("[object")];""",
    )  # fmt: skip
    told, is_broken = seen
    assert is_broken is False
    assert told["duration"] == "2"
    assert told["luma"] == "120"
    assert told["motion"] == "null (flow needs two frames)"
    assert told["frames"] == "24 at 12 per second"


@needs_chromium
def test_a_single_check_of_a_run_is_drawn(values: dict, tmp_path: Path, monkeypatch) -> None:
    run = {**values["runs"][0], "val_points": [[2, 1.5]], "last": {"tokens_per_s": 5, "wait_s": 2}}
    seen = ask(
        {**values, "runs": [run]}, tmp_path, monkeypatch,
        """const mark = document.querySelector("#training circle"), foot = document.querySelector("#training .foot");
        return [mark.getAttribute("class"), foot.textContent];""",
    )  # fmt: skip
    words = "2 steps · line: training loss · circle: validation loss · tokens per s 5 · wait 2"
    assert seen == ["val", words]


@needs_chromium
def test_nothing_is_fetched_from_file(values: dict, tmp_path: Path, monkeypatch) -> None:
    seen = ask(
        values, tmp_path, monkeypatch,
        """const fetched = performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("data:"));
        return [location.protocol, fetched.map((one) => one.name),
          document.querySelectorAll("link, script[src]").length];""",
    )  # fmt: skip
    assert seen == ["file:", [], 0]
