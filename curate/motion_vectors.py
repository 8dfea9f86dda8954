"""Motion from the vectors that an H.264 or MPEG-4 stream carries anyway: an approximation without optical flow.

    reader = VectorReader(video)               # before the first frame is decoded
    grid = reader.read(frame, turn)            # None for a frame without vectors
    fields = vector_fields(grids, box, shape)  # the same FlowFields as curate.motion's, or None

FFmpeg exports vectors of H.264, MPEG-4 and older codecs, and none of HEVC, VP9 and AV1: for those, and for shots
of intra frames only, there is nothing here and the flow is measured instead.

It is an approximation: an encoder chooses vectors that save bits, not those that are true; in flat parts they are
noise. A vector says how far its block moved since its reference picture, but not which picture that is. Only
P pictures are read, and the one before (the last I or P picture) is taken for the reference, which is wrong where
an encoder uses several of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.codec.context import Flags2
from av.sidedata.sidedata import Type
from av.video.frame import PictureType

from curate.borders import Box
from curate.frames import Frame, Video
from curate.motion import FlowFields, cell_places

BLOCK = 16  # pixels of the coded picture; vectors are of blocks of 4x4 to 16x16


@dataclass(frozen=True)
class VectorGrid:
    """The vectors of one P picture, as displayed.

    Attributes:
        begin_s: presentation time of the picture from which its blocks moved, in seconds.
        end_s: its own presentation time.
        vectors: (R, C, 2) float32, right and down, in parts of the picture's diagonal; 0 for intra blocks.
        known: (R, C) float32, share of each cell that has vectors.
    """

    begin_s: float
    end_s: float
    vectors: np.ndarray
    known: np.ndarray


class VectorReader:
    """Reads the vectors of a video's frames, in order. A decoder that has none is not disturbed."""

    def __init__(self, video: Video) -> None:
        video.stream.codec_context.flags2 |= Flags2.export_mvs
        self._reference_s: float | None = None  # time of the last I or P picture

    def read(self, frame: Frame, turn: int) -> VectorGrid | None:
        """The vectors of a P picture; None of any other, and where the codec exports none.

        `turn`: clockwise degrees that turn the coded picture upright.
        """
        if frame.raw.pict_type not in (PictureType.I, PictureType.P):
            return None
        begin_s, self._reference_s = self._reference_s, frame.time_s
        data = frame.raw.side_data.get(Type.MOTION_VECTORS.name)
        if data is None or begin_s is None or frame.raw.pict_type != PictureType.P:
            return None
        table = data.to_ndarray()
        vectors, known = _rasterise(table[table["source"] < 0], frame.raw.width, frame.raw.height)
        for _ in range(turn // 90):  # a quarter turn clockwise: right becomes down, down becomes left
            known, vectors = np.rot90(known, -1), np.rot90(vectors, -1)
            vectors = np.stack([-vectors[..., 1], vectors[..., 0]], -1)
        return VectorGrid(begin_s, frame.time_s, vectors.astype(np.float32), known.astype(np.float32))


def _rasterise(table: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean vector of each BLOCK x BLOCK cell in parts of the diagonal, and the share of it that has any."""
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    row, column = (
        np.clip(table[name] // BLOCK, 0, count - 1) for name, count in (("dst_y", rows), ("dst_x", columns))
    )
    at = row.astype(np.int64) * columns + column
    area = table["w"].astype(np.float32) * table["h"] / BLOCK**2
    scale = area / (np.maximum(1, table["motion_scale"]) * np.hypot(width, height))
    # A vector points back to where the block came from.
    sums = [np.bincount(at, -table[m] * scale, rows * columns) for m in ("motion_x", "motion_y")]
    known = np.bincount(at, area, rows * columns)
    vectors = np.stack(sums, -1) / np.maximum(known, 1e-6)[:, None]
    return vectors.reshape(rows, columns, 2), np.minimum(1, known).reshape(rows, columns)


def vector_fields(grids: list[VectorGrid], box: Box, shape: tuple[int, ...]) -> FlowFields | None:
    """The vectors inside `box` (pixels of a picture of `shape`, H and W) as flow; None if there are none."""
    rows, columns = grids[0].known.shape
    x, y, w, h = box
    across, down = columns / shape[1], rows / shape[0]
    inside = (
        slice(round(y * down), max(round(y * down) + 2, round((y + h) * down))),
        slice(round(x * across), max(round(x * across) + 2, round((x + w) * across))),
    )
    known = np.stack([grid.known[inside] for grid in grids])
    if min(known.shape[1:]) < 2 or not known.any():
        return None
    # Speeds are in % of the diagonal of what is inside the box.
    whole = 100 * float(np.hypot(shape[0], shape[1]) / np.hypot(w, h))
    steps_s = np.array([grid.end_s - grid.begin_s for grid in grids])
    speeds = np.stack([grid.vectors[inside] for grid in grids]) * whole / steps_s[:, None, None, None]
    return FlowFields(
        speeds.astype(np.float32),
        known,
        known,
        np.ones_like(known),
        np.zeros_like(known),
        np.zeros_like(speeds),
        cell_places(known.shape[1], known.shape[2], w / h),
        np.array([(grid.begin_s + grid.end_s) / 2 for grid in grids]),
        steps_s,
    )
