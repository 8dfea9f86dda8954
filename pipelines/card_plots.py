"""The plots of a dataset card, as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.card_data import Figures

KEPT, REJECTED, UNDECIDED = "#2a78d6", "#c3c2b7", "#e8c468"


def plots(figures: Figures) -> dict[str, bytes]:
    """Name -> PNG: lengths of the clips; words of the captions, where there are some."""
    found = {"durations.png": _png(_durations(figures))}
    if figures.bins["words"]:
        found["words.png"] = _png(_words(figures))
    return found


def _durations(figures: Figures) -> Figure:
    figure, axes = _empty()
    seconds = [row[0] for row in figures.bins["seconds"]]
    at = [second + 0.5 for second in seconds]
    below = [0] * len(seconds)
    for column, (label, colour) in enumerate(
        (("kept", KEPT), ("rejected", REJECTED), ("not decided yet", UNDECIDED)), 1
    ):
        counts = [row[column] for row in figures.bins["seconds"]]
        if any(counts):
            axes.bar(at, counts, 0.9, bottom=below, color=colour, label=label)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.set_xlabel(
        "length of the clip in seconds" + (", 60 and more in the last bar" if 60 in seconds else "")
    )
    axes.set_ylabel("clips")
    axes.legend(frameon=False)
    return figure


def _words(figures: Figures) -> Figure:
    figure, axes = _empty()
    for kind in dict.fromkeys(row[0] for row in figures.bins["words"]):
        rows = [row for row in figures.bins["words"] if row[0] == kind]
        total = sum(row[2] for row in rows)
        shares: dict[int, float] = {}
        for _, n, count in rows:  # five words to a step, so that small datasets can be read
            shares[n // 5 * 5] = shares.get(n // 5 * 5, 0) + 100 * count / total
        steps = range(0, max(shares) + 6, 5)
        axes.step([*steps], [shares.get(n, 0) for n in steps], where="post", label=f"{kind} ({total:,})")
    axes.set_xlabel("words of a caption")
    axes.set_ylabel("% of the captions of its kind")
    axes.legend(frameon=False)
    return figure


def _empty() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()
