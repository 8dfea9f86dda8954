"""The contact sheet of sampled videos: one row for each, with its prompt and six of its pictures.

small = Thumbnails()
small.write(pictures)                               # (T, H, W, 3) uint8 RGB, any number of times
write_strip(path, [small.chosen(), ...], ["a red disc", ...])
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

COLUMNS, CELL_PX, TEXT_PX, GAP_PX = 6, 160, 16, 4
#: Rows of a contact sheet; more would make a picture that few programs open.
MOST_ROWS = 100


class Thumbnails:
    """Small pictures of a video of unknown length, evenly spaced: every one of a short video, fewer of a long one."""

    MOST = 96

    def __init__(self) -> None:
        self.every, self.seen = 1, 0
        self.kept: list[np.ndarray] = []
        self.last: np.ndarray | None = None

    def write(self, pictures: np.ndarray) -> None:
        """Look at pictures (T, H, W, 3) uint8 RGB."""
        for picture in pictures:
            self.last = picture
            if self.seen % self.every == 0:
                self.kept.append(_small(picture))
                if len(self.kept) > self.MOST:
                    self.every *= 2
                    self.kept = self.kept[::2]
            self.seen += 1
        if self.last is not None:
            self.last = self.last.copy()  # or it would hold all the others

    def chosen(self) -> np.ndarray:
        """(n, H, W, 3): those of a row of the contact sheet, the last picture of the video among them."""
        import numpy as np

        assert self.last is not None, "no picture was written"
        ends_there = (self.seen - 1) % self.every == 0
        kept = self.kept if ends_there else [*self.kept, _small(self.last)]
        return np.stack(_evenly(kept))


def write_strip(path: Path, videos: list[np.ndarray], prompts: list[str]) -> None:
    """A PNG with one row per video: its prompt, and six frames evenly spaced from the first to the last.

    Videos after the first MOST_ROWS are counted in a line at the end.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=12)
    rows = []
    for frames, prompt in zip(videos[:MOST_ROWS], prompts[:MOST_ROWS], strict=True):
        height = max(1, round(CELL_PX * frames.shape[1] / frames.shape[2]))
        # Nearest keeps small pictures honest: no smoothing that the model did not make.
        cells = [
            Image.fromarray(frame).resize((CELL_PX, height), Image.Resampling.NEAREST)
            for frame in _evenly(list(frames))
        ]
        lines = textwrap.wrap(prompt, COLUMNS * CELL_PX // 7) or [""]
        rows.append((lines, cells, height + 2 * GAP_PX))
    if len(videos) > MOST_ROWS:
        rows.append(([f"and {len(videos) - MOST_ROWS} more"], [], 0))
    total = sum(len(lines) * TEXT_PX + height for lines, _, height in rows)
    sheet = Image.new("RGB", (COLUMNS * (CELL_PX + GAP_PX) + GAP_PX, total), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for lines, cells, height in rows:
        for line in lines:
            draw.text((GAP_PX, top), line, fill="black", font=font)
            top += TEXT_PX
        for column, cell in enumerate(cells):
            sheet.paste(cell, (GAP_PX + column * (CELL_PX + GAP_PX), top + GAP_PX))
        top += height
    temporary = path.with_name(f".{path.name}")
    sheet.save(temporary, format="PNG")
    os.replace(temporary, path)


def _evenly(pictures: list[np.ndarray]) -> list[np.ndarray]:
    count = min(COLUMNS, len(pictures))
    return [pictures[round(i * (len(pictures) - 1) / max(1, count - 1))] for i in range(count)]


def _small(picture: np.ndarray) -> np.ndarray:
    """At most as wide as a cell, by nearest neighbours, so that making it a cell later changes nothing."""
    import numpy as np
    from PIL import Image

    height, width = picture.shape[:2]
    if width <= CELL_PX:
        return picture.copy()
    size = CELL_PX, max(1, round(CELL_PX * height / width))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
