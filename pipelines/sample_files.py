"""Writes sampled videos: one mp4 each, and one contact sheet of them all.

write_mp4(path, frames, fps)                        # frames (T, H, W, 3) uint8 RGB
write_strip(path, [frames, ...], ["a red disc", ...])
"""

from __future__ import annotations

import os
import textwrap
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

COLUMNS, CELL_PX, TEXT_PX, GAP_PX = 6, 160, 16, 4


def write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """H.264 in yuv420p, which every player shows; odd sides lose one row or column. The file appears whole."""
    import av

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    temporary = path.with_name(f".{path.name}")
    with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Or the same video would now and then have other bytes.
        stream.codec_context.options = {"crf": "14", "x264-params": "cpu-independent=1"}
        stream.codec_context.thread_count = 1
        for frame in frames[:, :height, :width]:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame.copy(), format="rgb24")))
        out.mux(stream.encode(None))
    os.replace(temporary, path)


def write_strip(path: Path, videos: list[np.ndarray], prompts: list[str]) -> None:
    """A PNG with one row per video: its prompt, and six frames evenly spaced from the first to the last."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=12)
    rows = []
    for frames, prompt in zip(videos, prompts, strict=True):
        count = min(COLUMNS, len(frames))
        chosen = [frames[round(i * (len(frames) - 1) / max(1, count - 1))] for i in range(count)]
        height = round(CELL_PX * frames.shape[1] / frames.shape[2])
        # Nearest keeps small pictures honest: no smoothing that the model did not make.
        cells = [
            Image.fromarray(frame).resize((CELL_PX, height), Image.Resampling.NEAREST) for frame in chosen
        ]
        lines = textwrap.wrap(prompt, COLUMNS * CELL_PX // 7) or [""]
        rows.append((lines, cells, height))
    total = sum(len(lines) * TEXT_PX + height + 2 * GAP_PX for lines, _, height in rows)
    sheet = Image.new("RGB", (COLUMNS * (CELL_PX + GAP_PX) + GAP_PX, total), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for lines, cells, height in rows:
        for line in lines:
            draw.text((GAP_PX, top), line, fill="black", font=font)
            top += TEXT_PX
        for column, cell in enumerate(cells):
            sheet.paste(cell, (GAP_PX + column * (CELL_PX + GAP_PX), top + GAP_PX))
        top += height + 2 * GAP_PX
    temporary = path.with_name(f".{path.name}")
    sheet.save(temporary, format="PNG")
    os.replace(temporary, path)
