"""What another threshold would keep: the counts behind the sliders against `decide` itself, and in a real browser."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_browser import ask, needs_chromium
from report_clips import RULES, build

from curate.dataset import Dataset
from curate.decide import CopyConfig, DecideConfig, Range, decide, needed
from curate.overrides import latest
from curate.tables import CLIPS
from pipelines.decide import main, write_decisions
from pipelines.query import connect, rows_of
from pipelines.report import ReportConfig, gather
from pipelines.report_bins import BINS, bars, stops
from pipelines.report_rules import command, rules_of
from pipelines.report_scores import SCORES, histograms

NO_COPIES = replace(RULES, copies=CopyConfig(near=False))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("sliders"))


@pytest.fixture(scope="module")
def values(dataset: Dataset) -> dict:
    return gather(dataset, ReportConfig(dataset.uri, gallery=4))


def kept_by(dataset: Dataset, rules: DecideConfig) -> int:
    """Clips that `decide` keeps: the truth that the page must tell."""
    clips = dataset.read("clips", needed(rules))
    return sum(decide(clips, rules, latest(dataset))["keep"].to_pylist())


def would_keep(score: dict, least: int | None, most: int | None) -> int:
    """The page's sum, in Python: stops by place."""
    free = score["free"]
    n = (
        free["n"]
        - (0 if least is None else free["below"][least])
        - (0 if most is None else free["above"][most])
    )
    is_set = least is not None or most is not None
    return score["by_hand"] + n + (0 if is_set and score["if_null"] == "reject" else free["nulls"])


def test_every_score_of_clips_is_drawn() -> None:
    plain = {"start_s", "end_s", "fps"}
    figures = {field.name for field in CLIPS if str(field.type) in ("float", "double")} - plain
    assert figures | {"duration_s"} == set(SCORES)


def test_any_threshold_is_counted_as_decide_would(tmp_path: Path) -> None:
    dataset = build(tmp_path, 400, NO_COPIES)
    tried = 0
    for score in histograms(connect(dataset), rules_of(dataset)):
        limits, at = NO_COPIES.ranges().get(score["name"]), score["stops"]
        if limits is None or not at:
            continue
        places = sorted(
            {*np.linspace(0, len(at) - 1, 6).astype(int), *(at.index(x["bound"]) for x in score["limits"])}
        )
        for side in ("min", "max"):
            other = limits.max if side == "min" else limits.min
            for place in map(int, places):
                if other is not None and (at[place] > other if side == "min" else at[place] < other):
                    continue
                rules = replace(NO_COPIES, **{score["name"]: replace(limits, **{side: at[place]})})
                fixed = None if other is None else at.index(other)
                told = would_keep(score, place, fixed) if side == "min" else would_keep(score, fixed, place)
                assert told == kept_by(dataset, rules), (score["name"], side, at[place])
                tried += 1
    assert tried > 80


def test_at_the_rules_in_force_the_count_is_what_is_kept(dataset: Dataset, values: dict) -> None:
    kept = sum(dataset.read("decisions")["keep"].to_pylist())
    assert 0 < kept < kept_by(dataset, NO_COPIES)  # some are copies
    for score in values["histograms"]:
        if score["n"]:
            places = {limit["op"]: score["stops"].index(limit["bound"]) for limit in score["limits"]}
            assert would_keep(score, places.get("<"), places.get(">")) == kept, score["name"]
            assert sum(score["kept"]) + sum(score["rejected"]) + score["nulls"] == 400


def test_a_rule_that_rejects_nothing_is_drawn(values: dict) -> None:
    scores = {score["name"]: score for score in values["histograms"]}
    assert scores["static_ratio"]["limits"] == [{"op": ">", "bound": 0.9}]  # every static_ratio is 0
    assert scores["luma"]["limits"] == [{"op": "<", "bound": 20.0}, {"op": ">", "bound": 200.0}]
    assert (scores["motion"]["if_null"], scores["aesthetic"]["if_null"]) == ("reject", "keep")
    assert scores["clip_text_sim"]["limits"] == []
    assert "no_command" in scores["object_motion"]


def test_every_bound_is_an_edge_of_the_bars(values: dict) -> None:
    for score in values["histograms"]:
        for limit in score["limits"] if score["n"] else []:
            assert limit["bound"] in score["edges"], score["name"]
            assert limit["bound"] in score["stops"]
        assert len(score["kept"]) == max(0, len(score["edges"]) - 1)
        assert score["edges"] == sorted(set(score["edges"]))
        assert len(score["kept"]) <= BINS + 4
        assert len(score["stops"]) < 180


def test_the_command_makes_what_the_slider_promises(tmp_path: Path) -> None:
    """Its flags hold every rule that is not the default, so that nothing else changes."""
    dataset = build(tmp_path, 120)
    score = next(s for s in histograms(connect(dataset), RULES, dataset.uri) if s["name"] == "luma")
    text = f"{score['command']} \\\n  --rules.luma.min=50 \\\n  --rules.luma.max=150"
    told = subprocess.run(["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True)
    words = told.stdout.splitlines()
    assert words[:4] == ["reelmill", "decide", "--dataset", dataset.uri]  # the folder has a space in its name
    assert main(words[2:]) == 0
    assert rules_of(dataset) == replace(RULES, luma=Range(min=50.0, max=150.0))
    assert command("x", DecideConfig(), "motion") == "reelmill decide \\\n  --dataset x"
    off = replace(DecideConfig(), motion=Range())
    assert command("x", off, "motion").endswith("--rules.motion.min=null")


def test_the_command_of_the_page_counts_and_writes_nothing(dataset: Dataset, values: dict, capsys) -> None:
    before = dataset.read("decisions")
    _, command, *flags = shlex.split(values["what_if"])
    assert (command, main(flags)) == ("decide", 0)
    assert capsys.readouterr().out.startswith("kept   161 -> 152 (-9) of 400")
    assert dataset.read("decisions").equals(before)


def test_rules_that_are_not_told_are_read_from_the_reasons(dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset(tmp_path)
    for table in ("sources", "clips", "decisions"):
        other.write(table, dataset.read(table))
    assert rules_of(other) is None
    scores = {score["name"]: score for score in histograms(connect(other), None, other.uri)}
    assert scores["motion"]["limits"] == [{"op": "<", "bound": 0.3}]
    assert scores["motion"]["if_null"] == "reject"
    assert scores["static_ratio"]["limits"] == []
    assert "does not tell its rules" in scores["motion"]["no_command"]


def test_stops_are_round_and_bars_hold_everything() -> None:
    values = np.array([0.013, 0.217, 0.5, 1.0, 2.5, np.nan])
    at = stops(values, [0.3])
    assert at[0] == 0.0
    assert {0.013, 0.3, 0.22, 0.5} <= set(at)
    assert all(len(f"{stop:g}".replace(".", "").strip("0")) <= 4 for stop in at)
    drawn = bars(values, np.array([True] * 6), [0.3])
    assert (sum(drawn["kept"]), drawn["nulls"], drawn["max"]) == (5, 1, 2.5)
    words = bars(np.array([3.0, 3.0, 4.0, 5.0]), np.ones(4, bool), [], whole=True)
    assert (words["edges"], words["kept"]) == ([3.0, 4.0, 5.0, 6.0], [2, 1, 1])


def test_the_plain_figures_around_a_bound_are_stops() -> None:
    at = stops(np.linspace(0.0131, 29.87, 400), [0.3])
    assert {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0} <= set(at)
    assert (at[0], at[-1]) == (0.0, 30.0)
    quarters = stops(np.linspace(0.01, 8.2, 400), [0.3])  # bins of 0.25
    assert {0.25, 0.75, 1.1, 1.2, 1.5, 7.5, 7.75} <= set(quarters)
    assert all(len(f"{stop:g}") <= 4 for stop in quarters)
    assert {5.0, 10.0, 50.0, 100.0, 200.0} <= set(stops(np.linspace(3, 254, 50), [20.0, 245.0]))


def test_a_bound_parts_a_bin_and_what_lies_far_out_is_beyond_it() -> None:
    kept = np.ones(100, bool)
    motion = bars(np.linspace(0.05, 30, 100), kept, [0.3])
    assert motion["edges"][:4] == [0.0, 0.3, 1.0, 2.0]
    assert motion["kept"][:3] == [1, 3, 3]
    near = bars(np.linspace(0.05, 30, 100), kept, [0.9])
    assert near["edges"][:4] == [0.0, 0.9, 2.0, 3.0]  # no bin of a tenth
    ratio = np.array([0.0] * 98 + [0.8, 1.0])
    black = bars(ratio, kept, [0.5])
    assert (black["edges"][-1], black["over"], sum(black["kept"][-6:])) == (1.0, 0, 2)
    far = bars(ratio, kept, [0.2])
    assert far["edges"][-2:] == [0.2, 0.21]
    assert (far["kept"][-2:], far["over"]) == ([0, 2], 2)
    assert stops(ratio, [0.2])[-1] == 0.21
    luma = np.linspace(1, 255, 100)
    assert bars(luma, kept, [20.0, 245.0], within=(0, 255))["edges"][-2:] == [250.0, 255.0]
    assert stops(luma, [20.0, 245.0], (0, 255))[-1] == 255.0
    spread = bars(np.array([-1e-8, 0.03]), kept[:2], [], within=(0, 2))
    assert (spread["edges"][0], sum(spread["kept"])) == (0.0, 2)


def test_shots_of_which_text_was_never_read_are_counted(tmp_path: Path) -> None:
    """What decide lets through only because text_area is null, while its rule would ask."""
    dataset = build(tmp_path, 200, NO_COPIES)
    rows = dataset.read("clips").to_pylist()
    for row in rows:  # as curate.text_area leaves a clip that another rule rejects
        if row["motion"] is not None and row["motion"] < 0.3:
            row["text_area"] = None
            row["score_errors"] = [("text_area", f"not read: motion {row['motion']:.2f} < 0.3")]
    dataset.write("clips", dataset.read("clips").from_pylist(rows, schema=CLIPS))
    write_decisions(dataset, NO_COPIES)
    scores = {score["name"]: score for score in histograms(connect(dataset), rules_of(dataset))}
    motion = scores["motion"]
    clips = dataset.read("clips", [*needed(NO_COPIES), "score_errors"])
    unread = [bool(why) and why[0][0] == "text_area" for why in clips["score_errors"].to_pylist()]
    assert sum(unread) > 10
    for bound in (0.0, 0.1, 0.2, 0.3, 1.0):
        place = motion["stops"].index(bound)
        rules = replace(NO_COPIES, motion=Range(min=bound, if_null="reject"))
        decided = decide(clips, rules, latest(dataset)).to_pylist()
        by_rule = [row["keep"] and not (row["override"] or "") for row in decided]
        wanted = sum(kept and missing for kept, missing in zip(by_rule, unread, strict=True))
        assert motion["unread"]["n"] - motion["unread"]["below"][place] == wanted
        assert (wanted > 0) is (bound < 0.3)
    assert motion["unread_scores"] == ["text_area"]
    assert scores["text_area"]["unread_scores"] == []
    assert not motion["seeks_copies"]
    assert scores["text_area"]["reasons"][0].startswith("not read: motion < 0.3 (")
    off = replace(NO_COPIES, text_area=Range())
    assert histograms(connect(dataset), off)[1]["unread_scores"] == []


MOVE = """
const card = (name) => document.getElementById(`score-${name}`);
const told = (name) => card(name).querySelector(".result").textContent;
const to = (name, value, which = 0) => {
  const input = card(name).querySelectorAll("input")[which];
  input.value = value;
  input.dispatchEvent(new Event("input"));
  return [told(name), card(name).querySelectorAll("output")[which].textContent];
};
"""


@needs_chromium
def test_the_sliders_tell_in_a_real_browser(
    dataset: Dataset, values: dict, tmp_path: Path, monkeypatch
) -> None:
    at = {
        name: next(s for s in values["histograms"] if s["name"] == name)["stops"]
        for name in ("motion", "luma")
    }
    thresholds = [
        min(at["motion"], key=lambda stop: abs(stop - wanted)) for wanted in (0.0, 0.31, 1.0, 2.7, 6.0)
    ]
    lumas = [min(at["luma"], key=lambda stop: abs(stop - wanted)) for wanted in (10, 100)]
    seen = ask(
        values, tmp_path, monkeypatch,
        MOVE + f"""return {{
          before: told("motion"),
          motion: {thresholds}.map((value) => to("motion", value)),
          luma: {lumas}.map((value) => to("luma", value)), both: to("luma", 120, 1), crossed: to("luma", 60, 1),
          command: card("motion").nextSibling.querySelector("code").textContent,
          hidden: card("aesthetic").nextSibling.hidden,
          back: (card("motion").nextSibling.querySelector("button").click(), told("motion")),
          none: told("object_motion"), tried: to("object_motion", 1),
        }};""",
    )  # fmt: skip
    tables = connect(dataset)

    def count(name: str, condition: str) -> int:
        """Clips that meet `condition` and that no other rule than `name` rejects, and those a person keeps."""
        others = f"[why FOR why IN reasons IF split_part(why, ' ', 1) <> '{name}']"
        return rows_of(
            tables,
            "SELECT count(*) AS n FROM clips JOIN decisions USING (clip_id) "
            f"WHERE override LIKE 'keep%' OR (len({others}) = 0 AND {condition})",
        )[0]["n"]

    kept = rows_of(tables, "SELECT count(*) AS n FROM decisions WHERE keep")[0]["n"]
    assert seen["before"].startswith(f"{kept} of 400 kept ")
    for threshold, (told, shown) in zip(thresholds, seen["motion"], strict=True):
        n = count("motion", f"motion >= {threshold}::FLOAT")
        passing = rows_of(tables, f"SELECT count(*) AS n FROM clips WHERE motion >= {threshold}::FLOAT")[0][
            "n"
        ]
        sign = "+" if n > kept else "−" if n < kept else "±"
        prefix = "up to " if n > kept else "about " if n < kept else ""  # some are copies
        figures = f"{prefix}{n} of 400 would be kept {sign}{abs(n - kept)}{passing} pass this filter"
        assert told.partition("Copies")[0].partition("A copy")[0] == figures
        assert ("Copies among them" in told, "A copy may be" in told) == (n > kept, n < kept)
        assert float(shown) == threshold
    for threshold, (told, _) in zip(lumas, seen["luma"], strict=True):
        assert told_at(told) == count("luma", f"luma BETWEEN {threshold} AND 200")
    assert told_at(seen["both"][0]) == count("luma", f"luma BETWEEN {lumas[1]} AND {seen['both'][1]}")
    assert float(seen["crossed"][1]) == lumas[1]  # the greatest value does not pass the least
    assert seen["command"].endswith(f"  --rules.motion.min={thresholds[-1]:g}")
    assert "--rules.aesthetic.min=4.5" in seen["command"]
    assert seen["hidden"] is True
    assert seen["back"] == seen["before"]
    assert seen["none"].startswith(f"{kept} of 400 kept")
    n = count("object_motion", f"(object_motion IS NULL OR object_motion >= {seen['tried'][1]}::FLOAT)")
    assert told_at(seen["tried"][0]) == n < kept


def told_at(text: str) -> int:
    return int(text.removeprefix("up to ").removeprefix("about ").split(" ")[0].replace(",", ""))


@needs_chromium
def test_a_slider_obeys_the_keyboard(values: dict, tmp_path: Path, monkeypatch) -> None:
    score = next(score for score in values["histograms"] if score["name"] == "motion")
    at, place = score["stops"], score["stops"].index(0.3)
    seen = ask(
        values, tmp_path, monkeypatch,
        """const input = document.querySelector("#score-motion input"), seen = [];
        input.focus();
        const focused = document.activeElement === input && input.type === "range" && input.getAttribute("aria-label");
        for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "PageUp", "Home", "End"]) {
          input.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          seen.push(input.getAttribute("aria-valuetext"));
        }
        return [focused, ...seen];""",
    )  # fmt: skip
    places = [place + 1, place + 2, place + 1, place + 11, 0, len(at) - 1]
    assert seen[0] == "motion at least"
    assert [float(text) for text in seen[1:]] == [at[p] for p in places]
