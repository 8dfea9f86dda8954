"""The pictures of `reelmill evaluate`: all models side by side, and the figures over the training tokens.

plot(Path("evaluation.png"), rows, guess)
plot_scaling(Path("scaling.png"), rows, guess)

`rows` are those of results.json; dotted black lines are the true clips through the VAE, dashed grey ones a blind guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.demo.scene import ATTRIBUTES
from pipelines.whole_file import write_png

Rows = Sequence[dict[str, Any]]
FLOW = "direction\nby flow"
LINES = {"perfect": {"color": "black", "linestyle": ":"}, "guess": {"color": "grey", "linestyle": "--"}}
#: Figures without a scale of their own, and how they are called.
OTHERS = {"flicker": "flicker, levels of 255", "coca_frechet": "CoCa Fréchet distance"}


def plot(path: Path, rows: Rows, guess: dict[str, float | None]) -> None:
    """Bars: the accuracy of each attribute by model, then flicker and distance. Error bars are standard errors."""
    from matplotlib.figure import Figure

    models, perfect = _parted(rows)
    figure = Figure(figsize=(13, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(7, 1.6, 1.6))
    names = [*ATTRIBUTES, FLOW]
    width, colours = 0.84 / len(models), _colours(len(models))
    for number, row in enumerate(models):
        found = [_accuracy(row, name) for name in names]
        at = [x + (number - (len(models) - 1) / 2) * width for x in range(len(names))]
        heights, errors = zip(*((0 if a is None else a, e or 0) for a, e in found), strict=True)
        panels[0].bar(
            at, heights, 0.92 * width, yerr=errors, capsize=2, color=colours[number], label=row["name"]
        )
        for panel, name in zip(panels[1:], OTHERS, strict=True):
            if row[name] is not None:
                panel.bar(number, row[name], 0.9, color=colours[number])
    for x, name in enumerate(names):
        for key, value in (
            ("perfect", _accuracy(perfect[0], name)[0]),
            ("guess", guess[name.split("\n")[0]]),
        ):
            if value is not None:
                panels[0].hlines(
                    value, x - 0.45, x + 0.45, **LINES[key], label=_told(key) if x == 0 else None
                )
    panels[0].set_xticks(range(len(names)), names)
    panels[0].set_ylim(0, 1.02)
    panels[0].set_ylabel("share right")
    for panel, (name, told) in zip(panels[1:], OTHERS.items(), strict=True):
        _line(panel, "perfect", perfect[0][name])
        panel.set_xticks([])
        panel.set_title(told, fontsize=9)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    _tidy(panels)
    write_png(path, figure)


def plot_scaling(path: Path, rows: Rows, guess: dict[str, float | None]) -> None:
    """One panel for each figure over the training tokens; checkpoints of models of one size make a line."""
    from matplotlib.figure import Figure

    models, perfect = _parted(rows)
    models = [row for row in models if row["tokens"]]
    figure = Figure(figsize=(13, 6.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, 4).flatten()
    sizes = sorted({row["parameters"] for row in models})
    colours = _colours(len(sizes))
    for panel, name in zip(panels, [*ATTRIBUTES, FLOW, *OTHERS], strict=True):
        for number, parameters in enumerate(sizes):
            points = sorted(
                (row["tokens"], value, error or 0)
                for row in models
                if row["parameters"] == parameters and (value := (found := _figure(row, name))[0]) is not None
                for error in found[1:]
            )
            if points:
                x, y, errors = zip(*points, strict=True)
                label = f"{_short(parameters)} parameters" if panel is panels[0] else None
                panel.errorbar(
                    x, y, errors, fmt="o-", markersize=4, capsize=2, color=colours[number], label=label
                )
        _line(
            panel, "perfect", _figure(perfect[0], name)[0], _told("perfect") if panel is panels[0] else None
        )
        if name not in OTHERS:
            _line(panel, "guess", guess[name.split("\n")[0]], _told("guess") if panel is panels[0] else None)
            panel.set_ylim(0, 1.02)
        panel.set_title(OTHERS.get(name, name.replace("\n", " ")), fontsize=10)
        panel.set_xscale("log")
    for panel in panels[4:]:
        panel.set_xlabel("training tokens")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    _tidy(panels)
    write_png(path, figure)


def _parted(rows: Rows) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The models, and the true clips."""
    models = [row for row in rows if row["checkpoint"] is not None]
    return models, [row for row in rows if row["checkpoint"] is None]


def _accuracy(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    found = row["flow"]["direction"] if name == FLOW else row["captioner"][name]
    return found["accuracy"], found["error"]


def _figure(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    return (row[name], None) if name in OTHERS else _accuracy(row, name)


def _told(key: str) -> str:
    return "true clips through the VAE" if key == "perfect" else "a blind guess"


def _line(panel: Any, key: str, value: float | None, label: str | None = None) -> None:
    if value is not None:
        panel.axhline(value, **LINES[key], label=label)


def _colours(count: int) -> list[Any]:
    """As many as are needed; from dark to light where there are too many to have names."""
    from matplotlib import colormaps

    named = count <= 10
    return [f"C{n}" if named else colormaps["viridis"](n / (count - 1)) for n in range(count)]


def _short(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _tidy(panels: Any) -> None:
    for panel in panels:
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
