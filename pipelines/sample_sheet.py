"""The contact sheet of sampled videos: one row for each, with its prompt and six of its pictures.

small = Thumbnails()
small.write(pictures)                               # (T, H, W, 3) uint8 RGB, any number of times
write_strip(path, [small.chosen(), ...], ["a red disc", ...], titles=["000 · text · 17 frames", ...])

The font is DejaVu Sans: Latin, Greek, Cyrillic and some more; signs that it lacks, such as Chinese, are boxes.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageFont import FreeTypeFont

#: A cell is as wide as CELL_PX, but for tall pictures, which are as high as MOST_HEIGHT_PX.
COLUMNS, CELL_PX, MOST_HEIGHT_PX, TEXT_PX, GAP_PX = 6, 160, 288, 16, 4
WIDTH_PX = COLUMNS * (CELL_PX + GAP_PX) + GAP_PX
#: Rows of a contact sheet; more would make a picture that few programs open.
MOST_ROWS = 100
#: Lines of a prompt; of a longer one the end is left out.
MOST_LINES = 3


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


def write_strip(
    path: Path, videos: list[np.ndarray], prompts: list[str], titles: list[str] | None = None
) -> None:
    """A PNG with one row per video: its title if there are any, its prompt, and six frames evenly spaced.

    The frames of a row are from the first to the last. Videos after the first MOST_ROWS are counted in a line at
    the end.
    """
    from PIL import Image, ImageDraw

    font = _font()
    rows = []
    for number, (frames, prompt) in enumerate(zip(videos[:MOST_ROWS], prompts[:MOST_ROWS], strict=True)):
        size = _cell(frames.shape[1], frames.shape[2])
        # Nearest keeps small pictures honest: no smoothing that the model did not make.
        cells = [
            Image.fromarray(frame).resize(size, Image.Resampling.NEAREST) for frame in _evenly(list(frames))
        ]
        lines = [titles[number]] if titles else []
        rows.append(([*lines, *_wrapped(prompt, font)], cells, size[1] + 2 * GAP_PX))
    if len(videos) > MOST_ROWS:
        rows.append(([f"and {len(videos) - MOST_ROWS} more"], [], 0))
    total = sum(len(lines) * TEXT_PX + height for lines, _, height in rows)
    sheet = Image.new("RGB", (WIDTH_PX, total), "white")
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


@lru_cache(maxsize=1)
def _font() -> FreeTypeFont:
    """The one that matplotlib brings."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 12)


def _wrapped(text: str, font: FreeTypeFont) -> list[str]:
    """The lines of a text, at least one; more than MOST_LINES end with an ellipsis."""
    room, lines = WIDTH_PX - 2 * GAP_PX, [""]
    for word in text[: MOST_LINES * WIDTH_PX].split():  # no sign is as narrow as a pixel
        joined = f"{lines[-1]} {word}".lstrip()
        if font.getlength(joined) <= room:
            lines[-1] = joined
            continue
        lines += [""] * bool(lines[-1])
        for sign in word:  # words that are longer than a line are broken
            if font.getlength(lines[-1] + sign) > room:
                lines.append("")
            lines[-1] += sign
    if len(lines) > MOST_LINES:
        last = lines[MOST_LINES - 1]
        while font.getlength(f"{last}…") > room:
            last = last[:-1]
        lines[MOST_LINES - 1 :] = [f"{last}…"]
    return lines


def _cell(height: int, width: int) -> tuple[int, int]:
    """(width, height) in pixels of a cell for a picture: as large as the limits allow."""
    scale = min(CELL_PX / width, MOST_HEIGHT_PX / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _evenly(pictures: list[np.ndarray]) -> list[np.ndarray]:
    count = min(COLUMNS, len(pictures))
    return [pictures[round(i * (len(pictures) - 1) / max(1, count - 1))] for i in range(count)]


def _small(picture: np.ndarray) -> np.ndarray:
    """At most as large as a cell, by nearest neighbours, so that making it a cell later changes nothing."""
    import numpy as np
    from PIL import Image

    height, width = picture.shape[:2]
    size = _cell(height, width)
    if width <= size[0]:
        return picture.copy()
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
