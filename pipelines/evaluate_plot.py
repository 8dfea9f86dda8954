"""The pictures of `reelmill evaluate`: all models side by side, and the figures over the training tokens.

plot(Path("evaluation.png"), rows, guess)
plot_scaling(Path("scaling.png"), rows, guess)

`rows` are those of results.json, those of the true clips of each setting among them: the dotted black lines. Dashed
grey ones are a blind guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.demo.scene import ATTRIBUTES
from pipelines.evaluate_table import label
from pipelines.whole_file import write_png

Rows = Sequence[dict[str, Any]]
FLOW = "direction\nby flow"
LINES = {"perfect": {"color": "black", "linestyle": ":"}, "guess": {"color": "grey", "linestyle": "--"}}
MARKERS = "osD^vP"
#: Figures without a scale of their own, and how they are called.
OTHERS = {"flicker": "flicker, levels of 255", "coca_frechet": "CoCa Fréchet distance"}


def plot(path: Path, rows: Rows, guess: dict[str, float | None]) -> None:
    """Bars: the accuracy of each attribute by model, then flicker and distance. Error bars are standard errors.

    Each bar has the line of the true clips of its own setting.
    """
    from matplotlib.figure import Figure

    models, perfect = _parted(rows)
    figure = Figure(figsize=(13, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(7, 1.6, 1.6))
    names = [*ATTRIBUTES, FLOW]
    width, colours = 0.84 / len(models), _colours(len(models))
    for number, row in enumerate(models):
        own = perfect[str(row["setting"])]
        for x, name in enumerate(names):
            at = x + (number - (len(models) - 1) / 2) * width
            share, error = _accuracy(row, name)
            told = label(row, rows) if x == 0 else None
            panels[0].bar(
                at, share or 0, 0.92 * width, yerr=error or 0, capsize=2, color=colours[number], label=told
            )
            told = _told("perfect") if number == x == 0 else None
            _piece(panels[0], "perfect", at, width, _accuracy(own, name)[0], told)
        for panel, name in zip(panels[1:], OTHERS, strict=True):
            if row[name] is not None:
                panel.bar(number, row[name], 0.9, color=colours[number])
            _piece(panel, "perfect", number, 1, own[name])
    for x, name in enumerate(names):
        told = _told("guess") if x == 0 else None
        _piece(panels[0], "guess", x, 0.9, guess[name.split("\n")[0]], told)
    panels[0].set_xticks(range(len(names)), names)
    panels[0].set_ylim(0, 1.02)
    panels[0].set_ylabel("share right")
    for panel, told in zip(panels[1:], OTHERS.values(), strict=True):
        panel.set_xticks([])
        panel.set_title(told, fontsize=9)
    _legend(figure)
    _tidy(panels)
    write_png(path, figure)


def plot_scaling(path: Path, rows: Rows, guess: dict[str, float | None]) -> None:
    """One panel for each figure over the training tokens.

    Checkpoints of one size of model and one setting make a line. Where there are several settings each has a marker,
    that is on the line of its true clips as well.
    """
    from matplotlib.figure import Figure

    models, perfect = _parted(rows)
    models = [row for row in models if row["tokens"]]
    ends = [function(row["tokens"] for row in models) for function in (min, max)]
    lines = sorted({(row["parameters"], str(row["setting"])) for row in models})
    markers = dict(zip(perfect, itertools.cycle(MARKERS)))
    figure = Figure(figsize=(13, 6.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, 4).flatten()
    for panel, name in zip(panels, [*ATTRIBUTES, FLOW, *OTHERS], strict=True):
        for line, colour in zip(lines, _colours(len(lines)), strict=True):
            own = [row for row in models if (row["parameters"], str(row["setting"])) == line]
            points = sorted(
                (row["tokens"], value, error or 0)
                for row in own
                for value, error in [_figure(row, name)]
                if value is not None
            )
            if points:
                x, y, errors = zip(*points, strict=True)
                style = {"fmt": f"{markers[line[1]]}-", "markersize": 4, "capsize": 2, "color": colour}
                name_of = label(own[0] | {"name": f"{_short(line[0])} parameters"}, rows)
                told = name_of if panel is panels[0] else None
                panel.errorbar(x, y, errors, label=told, **style)
        for setting, row in perfect.items():
            value, marker = _figure(row, name)[0], markers[setting] if len(perfect) > 1 else None
            name_of = label(row | {"name": _told("perfect")}, rows)
            told = name_of if panel is panels[0] else None
            if value is not None and any(str(one["setting"]) == setting for one in models):
                panel.plot(ends, [value] * 2, marker=marker, markersize=4, label=told, **LINES["perfect"])
        if name not in OTHERS:
            told = _told("guess") if panel is panels[0] else None
            panel.axhline(guess[name.split("\n")[0]], label=told, **LINES["guess"])
            panel.set_ylim(0, 1.02)
        panel.set_title(OTHERS.get(name, name.replace("\n", " ")), fontsize=10)
        panel.set_xscale("log")
    for panel in panels[4:]:
        panel.set_xlabel("training tokens")
    _legend(figure)
    _tidy(panels)
    write_png(path, figure)


def _parted(rows: Rows) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The models, and by setting, as text, the true clips."""
    models = [row for row in rows if row["checkpoint"] is not None]
    return models, {str(row["setting"]): row for row in rows if row["checkpoint"] is None}


def _accuracy(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    found = row["flow"]["direction"] if name == FLOW else row["captioner"][name]
    return found["accuracy"], found["error"]


def _figure(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    return (row[name], None) if name in OTHERS else _accuracy(row, name)


def _told(key: str) -> str:
    return "true clips through the VAE" if key == "perfect" else "a blind guess"


def _piece(
    panel: Any, key: str, middle: float, width: float, value: float | None, told: str | None = None
) -> None:
    """A level line across one bar, or several."""
    if value is not None:
        panel.hlines(value, middle - width / 2, middle + width / 2, label=told, **LINES[key])


def _legend(figure: Any) -> None:
    """Above all panels, with as many columns as its longest label leaves room for."""
    labels = [told for panel in figure.axes for told in panel.get_legend_handles_labels()[1]]
    columns = max(1, min(4, 160 // max(map(len, labels))))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


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
