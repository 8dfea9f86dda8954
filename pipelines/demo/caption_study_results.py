"""What the caption study found: results.json, table.md and study.png, from the trainings that are finished.

    publish(Path("runs/study"), config, about_the_training_set)
    accuracy(training["groups"], manner="dense", attribute="colour")        # right / asked

An error is the standard error of the mean over the seeds; with one seed there is none.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.demo.caption_study import ARMS, CaptionStudyConfig, run_of
from pipelines.demo.prompts import VALUES
from pipelines.demo.scene import ATTRIBUTES
from pipelines.whole_file import write_json

Groups = list[dict[str, Any]]
MANNERS = ("dense", "short", "original")
PERFECT, GUESS = "the true scene through the VAE", "a blind guess"


def publish(out: Path, config: CaptionStudyConfig, training_set: dict[str, Any]) -> None:
    """Write the three files from what lies in out/trainings."""
    from pipelines.demo.caption_study_plot import plot

    paths = [run_of(out, arm, seed) / "result.json" for arm in ARMS for seed in range(config.seeds)]
    trainings = [json.loads(path.read_text()) for path in paths if path.exists()]
    reference = json.loads((out / "reference.json").read_text())
    write_json(
        out / "results.json",
        {
            "date": datetime.date.today().isoformat(),
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "config": asdict(config),
            "training_set": training_set,
            "reference": reference,
            "trainings": trainings,
        },
    )
    (out / "table.md").write_text(tables(trainings, reference))
    if trainings:
        plot(out / "study.png", trainings, reference)


def accuracy(
    groups: Groups,
    *,
    manner: str,
    attribute: str | None = None,
    combination: str | None = None,
) -> float | None:
    """Share of the attributes named by the prompts that are right in the videos; None if no prompt names any."""
    chosen = [
        counts
        for group in groups
        if group["manner"] == manner and combination in (None, group["combination"])
        for name, counts in group["attributes"].items()
        if attribute in (None, name)
    ]
    asked = sum(counts["asked"] for counts in chosen)
    return sum(counts["right"] for counts in chosen) / asked if asked else None


def clip_score(groups: Groups, *, manner: str) -> float | None:
    """Mean cosine of prompts and videos."""
    chosen = [group for group in groups if group["manner"] == manner]
    total = sum(group["prompts"] for group in chosen)
    return sum(group["clip_score"] * group["prompts"] for group in chosen) / total if total else None


def over_seeds(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """(mean, standard error of the mean); the error of fewer than two values is None."""
    there = [value for value in values if value is not None]
    if not there:
        return None, None
    error = statistics.stdev(there) / len(there) ** 0.5 if len(there) > 1 else None
    return statistics.fmean(there), error


def guess(manner: str, groups: Groups) -> float | None:
    """Accuracy of drawing every attribute that the prompts name at random."""
    asked = {
        name: sum(group["attributes"][name]["asked"] for group in groups if group["manner"] == manner)
        for name in ATTRIBUTES
    }
    total = sum(asked.values())
    return sum(n / len(VALUES[name]) for name, n in asked.items()) / total if total else None


def tables(trainings: list[dict[str, Any]], reference: Groups) -> str:
    """Two tables in Markdown, all figures in per cent, mean ± standard error over the seeds."""
    arms = {arm: [t["groups"] for t in trainings if t["arm"] == arm] for arm in ARMS}
    arms = {arm: found for arm, found in arms.items() if found}
    by_manner: list[tuple[str, Callable[[Groups], float | None]]] = [
        *((f"{m} prompts", lambda groups, m=m: accuracy(groups, manner=m)) for m in MANNERS),
        *((f"CLIP, {m}", lambda groups, m=m: clip_score(groups, manner=m)) for m in MANNERS),
    ]
    by_attribute: list[tuple[str, Callable[[Groups], float | None]]] = [
        *((a, lambda groups, a=a: accuracy(groups, manner="dense", attribute=a)) for a in ATTRIBUTES),
        ("held out", lambda groups: accuracy(groups, manner="dense", combination="held_out")),
        ("seen", lambda groups: accuracy(groups, manner="dense", combination="seen")),
    ]
    blind_manner = [_cell(guess(m, reference), None) for m in MANNERS] + [""] * len(MANNERS)
    blind_attribute = [_cell(1 / len(VALUES[a]), None) for a in ATTRIBUTES]
    blind_attribute += [_cell(guess("dense", reference), None)] * 2
    return "\n".join(
        [
            "Attributes that are right, and CLIP score (100 × cosine), by the manner of the prompts:",
            "",
            *_table(arms, reference, by_manner, blind_manner),
            "",
            "Attributes that are right with dense prompts, each by itself and all together:",
            "",
            *_table(arms, reference, by_attribute, blind_attribute),
            "",
        ]
    )


def _table(
    arms: dict[Any, list[Groups]],
    reference: Groups,
    columns: list[tuple[str, Callable[[Groups], float | None]]],
    blind: list[str],
) -> list[str]:
    rows = [
        ["captions in training", "seeds", *(name for name, _ in columns)],
        ["---", *["---:"] * (len(columns) + 1)],
        *(
            [arm, str(len(found)), *(_cell(*over_seeds([read(g) for g in found])) for _, read in columns)]
            for arm, found in arms.items()
        ),
        [f"*{PERFECT}*", "", *(_cell(read(reference), None) for _, read in columns)],
        [f"*{GUESS}*", "", *blind],
    ]
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(mean: float | None, error: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
