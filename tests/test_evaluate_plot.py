"""The pictures of `reelmill evaluate`: which line of true clips stands at which model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import evaluate_plot
from pipelines.demo.scene import ATTRIBUTES
from pipelines.evaluate_plot import plot, plot_scaling

SMALL = {"frames": 17, "height": 64, "width": 96, "fps": 8.0, "vae": "tiny-4x8x8-0"}
LARGE = {**SMALL, "height": 128, "width": 192}
GUESS = dict.fromkeys((*ATTRIBUTES, "all"), 0.2)
DOTTED, BLACK = ":", (0, 0, 0)


def row(name: str, setting: dict[str, Any], share: float, tokens: int | None = None) -> dict[str, Any]:
    """All shares `share`, flicker ten times it, distance a hundred times; of a model if it has tokens."""
    one = {"accuracy": share, "error": 0.02}
    return {
        "name": name,
        "checkpoint": tokens and name,
        "tokens": tokens,
        "parameters": tokens and 1_300_000,
        "setting": setting,
        "captioner": dict.fromkeys((*ATTRIBUTES, "all"), one),
        "flow": {"direction": one},
        "flicker": 10 * share,
        "coca_frechet": 100 * share,
    }


ROWS = [
    row("true clips", SMALL, 0.9),
    row("true clips", LARGE, 0.8),
    row("a", SMALL, 0.5, 1000),
    row("b", LARGE, 0.4, 1000),
    row("c", SMALL, 0.6, 4000),
    row("d", LARGE, 0.7, 4000),
]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written, as matplotlib has them."""
    found: list[Any] = []
    written = evaluate_plot.write_png

    def tap(path: Path, figure: Any) -> None:
        found.append(figure)
        written(path, figure)

    monkeypatch.setattr(evaluate_plot, "write_png", tap)
    return found


def black_pieces(panel: Any) -> list[tuple[float, float, float]]:
    """(left, right, height) of the level lines in black, from left to right."""
    pieces = [
        (float(ends[0][0]), float(ends[1][0]), float(ends[0][1]))
        for lines in panel.collections
        if tuple(lines.get_colors()[0][:3]) == BLACK and not _is_error_bar(lines)
        for ends in lines.get_segments()
    ]
    return sorted(pieces)


def _is_error_bar(lines: Any) -> bool:
    return all(ends[0][0] == ends[1][0] for ends in lines.get_segments())


def test_each_bar_has_the_true_clips_of_its_own_setting(tmp_path: Path, figures: list[Any]) -> None:
    plot(tmp_path / "a.png", ROWS, GUESS)
    shares, flicker, distance = figures[0].axes
    assert [height for *_, height in black_pieces(shares)] == [0.9, 0.8] * 2 * 6
    for panel, scale in ((flicker, 10), (distance, 100)):
        assert [height for *_, height in black_pieces(panel)] == pytest.approx([0.9 * scale, 0.8 * scale] * 2)
    for (left, right, _), bar in zip(black_pieces(flicker), flicker.patches, strict=True):
        assert left < bar.get_x() + bar.get_width() / 2 < right


def test_one_setting_has_one_line(tmp_path: Path, figures: list[Any]) -> None:
    plot(tmp_path / "a.png", [ROWS[0], ROWS[2], ROWS[4]], GUESS)
    assert {height for *_, height in black_pieces(figures[0].axes[0])} == {0.9}
    labels = figures[0].axes[0].get_legend_handles_labels()[1]
    assert sorted(labels) == ["a", "a blind guess", "c", "true clips through the VAE"]


def test_over_tokens_each_setting_has_its_lines(tmp_path: Path, figures: list[Any]) -> None:
    plot_scaling(tmp_path / "a.png", ROWS, GUESS)
    lines = [
        (line.get_linestyle(), line.get_marker(), tuple(map(float, line.get_ydata())))
        for line in figures[0].axes[1].lines
        if len(line.get_xdata()) == 2 and line.get_linestyle() in ("-", DOTTED)
    ]
    assert sorted(lines) == [
        ("-", "o", (0.5, 0.6)),
        ("-", "s", (0.4, 0.7)),
        (DOTTED, "o", (0.9, 0.9)),
        (DOTTED, "s", (0.8, 0.8)),
    ]
    labels = figures[0].axes[0].get_legend_handles_labels()[1]
    assert "true clips through the VAE (192x128, 17 frames at 8 fps, VAE tiny-4x8x8-0)" in labels
    assert "1.3M parameters (96x64, 17 frames at 8 fps, VAE tiny-4x8x8-0)" in labels
    plot_scaling(tmp_path / "b.png", [ROWS[0], ROWS[2], ROWS[4]], GUESS)
    assert sorted(figures[1].axes[0].get_legend_handles_labels()[1]) == [
        "1.3M parameters",
        "a blind guess",
        "true clips through the VAE",
    ]
