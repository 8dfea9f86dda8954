"""The picture of the caption study: DALL-E 3's Figure 4 on the left, its Figure 5 on the right.

plot(Path("study.png"), trainings, reference)

Rows are the two judges. Error bars are standard errors over the seeds, dots are single trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.demo.caption_study_results import MANNERS, PERFECT, Groups, accuracy, clip_score, over_seeds
from pipelines.whole_file import write_png

COLOURS = {"original": "#8c8c8c", "short": "#e0912f", "dense": "#2f6fb5"}
TOLD = {
    "original": "original captions alone",
    "short-95": "95 % short synthetic",
    "dense-95": "95 % dense synthetic",
}
TITLES = ("What the captions in training are", "How many of them are dense synthetic ones")
LINES = {"dense": "o-", "short": "s--", "original": "^:"}  # manner of the prompts
Score = Callable[[Groups, str], float | None]


def plot(path: Path, trainings: list[dict[str, Any]], reference: Groups) -> None:
    """Write the PNG; arms and panels that lack trainings are left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(3, 2), sharey="row")
    judges: list[tuple[str, Score]] = [
        ("attributes right, % (pixel oracle)", lambda groups, manner: accuracy(groups, manner=manner)),
        ("CLIP score (100 × cosine)", lambda groups, manner: clip_score(groups, manner=manner)),
    ]
    for (label, score), (left, right) in zip(judges, panels, strict=True):
        _by_caption(left, trainings, reference, score)
        _by_share(right, trainings, score)
        left.set_ylabel(label)
        for panel in (left, right):
            panel.grid(axis="y", alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    for panel, title in zip(panels[0], TITLES, strict=True):
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=9)
        panel.set_title(title, pad=48)
    write_png(path, figure)


def _by_caption(panel: Any, trainings: list[dict[str, Any]], reference: Groups, score: Score) -> None:
    """Bars: for each manner of prompt one bar per caption kind in training; a line where a perfect model would be."""
    width = 0.26
    for place, (arm, told) in enumerate(TOLD.items()):
        groups = [training["groups"] for training in trainings if training["arm"] == arm]
        if not groups:
            continue
        for x, manner in enumerate(MANNERS):
            values = [score(each, manner) for each in groups]
            mean, error = over_seeds(values)
            if mean is None:
                continue
            at = x + (place - 1) * width
            panel.bar(
                at,
                100 * mean,
                width=0.92 * width,
                color=COLOURS[arm.partition("-")[0]],
                label=told if x == 0 else None,
            )
            if error is not None:
                panel.errorbar(at, 100 * mean, 100 * error, color="black", capsize=3, linewidth=1.2)
            _dots(panel, at, values)
    for x, manner in enumerate(MANNERS):
        best = score(reference, manner)
        if best is not None:
            name = PERFECT if x == 0 else None
            panel.hlines(
                100 * best, x - 0.42, x + 0.42, color="black", linestyle=":", linewidth=1.2, label=name
            )
    panel.set_xticks(range(len(MANNERS)), [f"{manner} prompts" for manner in MANNERS])


def _by_share(panel: Any, trainings: list[dict[str, Any]], score: Score) -> None:
    """Lines over the share of dense captions in the blend, one for each manner of prompt."""
    shares = sorted({int(t["arm"].partition("-")[2]) for t in trainings if t["arm"].startswith("dense-")})
    for manner in MANNERS:
        points = []
        for share in shares:
            values = [score(t["groups"], manner) for t in trainings if t["arm"] == f"dense-{share}"]
            mean, error = over_seeds(values)
            if mean is not None:
                points.append((share, 100 * mean, 100 * (error or 0)))
            _dots(panel, share, values)
        if points:
            x, y, errors = zip(*points, strict=True)
            # Blue as on the left: all these learnt from dense captions.
            panel.errorbar(
                x, y, errors, fmt=LINES[manner], capsize=3, color=COLOURS["dense"], label=f"{manner} prompts"
            )
    panel.set_xticks(shares, [f"{share} %" for share in shares])
    panel.set_xlabel("dense synthetic captions, the rest original")


def _dots(panel: Any, at: float, values: list[float | None]) -> None:
    there = [100 * value for value in values if value is not None]
    panel.plot([at] * len(there), there, ".", color="black", markersize=4, alpha=0.5)
