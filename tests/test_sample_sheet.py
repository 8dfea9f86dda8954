"""The contact sheet: which picture is where, what is written beside it, and how large it may become."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sample_sheet import (
    CELL_PX,
    COLUMNS,
    GAP_PX,
    MOST_HEIGHT_PX,
    MOST_LINES,
    MOST_ROWS,
    TEXT_PX,
    WIDTH_PX,
    Thumbnails,
    _font,
    _wrapped,
    write_strip,
)  # fmt: skip


def coloured(*colours: tuple[int, int, int], height: int = 32, width: int = 64) -> np.ndarray:
    """One picture of each colour."""
    return np.broadcast_to(
        np.array(colours, np.uint8)[:, None, None], (len(colours), height, width, 3)
    ).copy()


def sheet_of(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        return np.asarray(sheet)


def cells(sheet: np.ndarray, top: int, height: int, width: int = CELL_PX) -> list[tuple[int, ...]]:
    """The colours of a row's cells; each must be of one colour alone, and white around."""
    found = []
    for column in range(COLUMNS):
        left = GAP_PX + column * (CELL_PX + GAP_PX)
        cell = sheet[top + GAP_PX : top + GAP_PX + height, left : left + width].reshape(-1, 3)
        assert (cell == cell[0]).all()
        assert (sheet[top + GAP_PX : top + GAP_PX + height, left - GAP_PX : left] == 255).all()
        found.append(tuple(cell[0].tolist()))
    return found


def test_rows_and_cells_are_in_order(tmp_path: Path) -> None:
    """Six pictures from the first to the last, below their title and prompt; short videos leave cells white."""
    shades = [(10 * i, 200 - 10 * i, 50) for i in range(11)]
    write_strip(
        tmp_path / "a.png",
        [coloured(*shades), coloured((255, 0, 0), (0, 0, 255))],
        ["a red disc", "a star"],
        ["000 · text · 11 frames", "001 · image · 2 frames"],
    )
    sheet = sheet_of(tmp_path / "a.png")
    row = 2 * TEXT_PX + 80 + 2 * GAP_PX
    assert sheet.shape == (2 * row, WIDTH_PX, 3)
    assert cells(sheet, 2 * TEXT_PX, 80) == [shades[i] for i in (0, 2, 4, 6, 8, 10)]
    assert cells(sheet, row + 2 * TEXT_PX, 80) == [(255, 0, 0), (0, 0, 255)] + 4 * [(255, 255, 255)]
    for line in (0, TEXT_PX, row, row + TEXT_PX):  # something is written there
        assert (sheet[line : line + TEXT_PX] < 128).any()


def test_tall_pictures_become_no_towers(tmp_path: Path) -> None:
    """Of 1:3, and as thumbnails of large pictures too; nor do long prompts."""
    tall = coloured((255, 0, 0), (0, 255, 0), height=1500, width=500)
    small = Thumbnails()
    small.write(tall)
    assert small.chosen().shape == (2, MOST_HEIGHT_PX, MOST_HEIGHT_PX // 3, 3)
    write_strip(tmp_path / "a.png", [tall, small.chosen()], ["word " * 1000, "x" * 100_000])
    sheet = sheet_of(tmp_path / "a.png")
    row = MOST_LINES * TEXT_PX + MOST_HEIGHT_PX + 2 * GAP_PX
    assert len(sheet) == 2 * row
    for top in (0, row):
        found = cells(sheet, top + MOST_LINES * TEXT_PX, MOST_HEIGHT_PX, MOST_HEIGHT_PX // 3)
        assert found == [(255, 0, 0), (0, 255, 0)] + 4 * [(255, 255, 255)]


def test_more_videos_than_rows_are_counted(tmp_path: Path) -> None:
    shades = [(i, 255 - i, 7) for i in range(MOST_ROWS + 3)]
    write_strip(tmp_path / "a.png", [coloured(shade) for shade in shades], ["a"] * len(shades))
    sheet = sheet_of(tmp_path / "a.png")
    row = TEXT_PX + 80 + 2 * GAP_PX
    assert len(sheet) == MOST_ROWS * row + TEXT_PX
    for number in (0, 1, MOST_ROWS - 1):
        assert cells(sheet, number * row + TEXT_PX, 80)[0] == shades[number]
    assert (sheet[-TEXT_PX:] < 128).any()
    write_strip(tmp_path / "b.png", [coloured(shade) for shade in shades[:MOST_ROWS]], ["a"] * MOST_ROWS)
    assert len(sheet_of(tmp_path / "b.png")) == MOST_ROWS * row


@pytest.mark.parametrize(
    "text",
    ["a red disc moves left " * 3, "x" * 300, "слово " * 30, "日本語" * 60, "a " + "y" * 200 + " z", ""],
)
def test_lines_hold_the_whole_text_and_fit(text: str) -> None:
    lines = _wrapped(text, _font())
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert 1 <= len(lines) <= MOST_LINES
    assert all(_font().getlength(line) <= WIDTH_PX - 2 * GAP_PX for line in lines)


def test_what_does_not_fit_ends_with_an_ellipsis() -> None:
    for text in ("word " * 200, "x" * 2000):
        lines = _wrapped(text, _font())
        assert len(lines) == MOST_LINES
        assert lines[-1].endswith("…")
        assert text.replace(" ", "").startswith("".join(lines)[:-1].replace(" ", ""))
        assert _font().getlength(lines[-1]) <= WIDTH_PX - 2 * GAP_PX


def test_letters_beyond_latin_are_no_boxes() -> None:
    """Every sign has a shape of its own, and that of a sign the font lacks is another."""
    shapes = {bytes(_font().getmask(sign)) for sign in "ŁЖאΩ—\U0010fffe"}
    assert len(shapes) == 6
