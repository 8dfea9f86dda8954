"""Small pictures of a decoded frame, as cheaply as they can be had: no colour picture of full size is made.

    shrink = Shrink(first_frame)
    small = shrink(frame)                # costs nothing until something is asked of it
    small.tiny_rgb()                     # (27, 48, 3) uint8 RGB, for the shot finder
    small.luma()                         # (144, W) uint8, what is measured
    candidate = small.planes()           # Y, U, V with a short side of 270 to 539, to be kept
    candidate.bgr(224, width)            # the picture of a chosen one

Planar YUV frames (4:2:0, 4:2:2, 4:4:4; 8 to 16 bits) are halved in place plane by plane, an exact mean of 2x2
pixels that OpenCV does at memory speed, and only what is left is resized to the size wanted. Every other
format goes through swscale first. All pictures are as displayed: turned upright, with square pixels, and
luma spans 0 (black) to 255 whether the frame's range is limited or full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from curate.frames import Frame, rotation_deg

TINY_SIZE = (48, 27)
LUMA_LINES = 144
LEAST_SIDE = 270  # planes() halves while the short side keeps at least this: 270 to 539 pixels
_LIMITED_TO_FULL = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
# (Kr, Kb) of ITU-R BT.601, BT.709 and BT.2020; a frame that does not say is BT.601, as FFmpeg takes it.
_WEIGHTS = {int(Colorspace.ITU709): (0.2126, 0.0722), int(Colorspace.BT2020): (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)


@dataclass(frozen=True)
class Colour:
    """How a frame's Y, U, V become RGB.

    Attributes:
        full_range: luma spans 0 to 255 instead of 16 to 235.
        weights: Kr and Kb of the colour matrix.
    """

    full_range: bool
    weights: tuple[float, float]

    @classmethod
    def of(cls, raw: VideoFrame) -> Colour:
        full = raw.color_range == ColorRange.JPEG or raw.format.name.startswith("yuvj")
        return cls(full, _WEIGHTS.get(int(raw.colorspace), _BT601))

    def luma(self, y: np.ndarray) -> np.ndarray:
        """Y as 0 (black) to 255 (white)."""
        return y if self.full_range else cv2.LUT(y, _LIMITED_TO_FULL)

    def rgb(self, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of three (H, W) planes."""
        return cv2.transform(cv2.merge((y, u, v)), _matrix(self))


@cache
def _matrix(colour: Colour) -> np.ndarray:
    """(3, 4): RGB from Y, U, V and 1 (ITU-R BT.601/709/2020, analogue form scaled to 8 bits)."""
    kr, kb = colour.weights
    kg = 1 - kr - kb
    gain, black, spread = (1.0, 0.0, 255 / 255) if colour.full_range else (255 / 219, 16.0, 255 / 224)
    u, v = 2 * (1 - kb) * spread, 2 * (1 - kr) * spread
    rows = np.array([[gain, 0, v], [gain, -u * kb / kg, -v * kr / kg], [gain, u, 0]])
    return np.column_stack([rows, -rows @ (black, 128.0, 128.0)])


@dataclass(frozen=True)
class Planes:
    """A compact picture that is cheap to take and to keep: 8-bit planes as coded, not yet turned.

    Attributes:
        y: (H, W) uint8; the short side is 270 to 539 if the source's is 270 or more.
        u: chroma, of the same size or half of it in one or both directions.
        v: the same.
        colour: what the numbers mean.
        turn: clockwise degrees to turn it upright: 0, 90, 180 or 270.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    colour: Colour
    turn: int

    def luma(self) -> np.ndarray:
        """(H, W) uint8 upright, pixels not yet square."""
        return _upright(self.colour.luma(self.y), self.turn)

    def bgr(self, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 BGR as displayed."""
        size = (height, width) if self.turn in (90, 270) else (width, height)
        rgb = self.colour.rgb(*(_resized(plane, size) for plane in (self.y, self.u, self.v)))
        return np.ascontiguousarray(_upright(rgb, self.turn)[:, :, ::-1])


class Shrink:
    """Makes small pictures of the frames of one source.

    The sizes are those of its first frame: should a stream change its size, its small pictures do not.

    Attributes:
        displayed: (width, height) in pixels as displayed.
        turn: clockwise degrees that turn the coded picture upright.
    """

    def __init__(self, first: Frame) -> None:
        self.displayed = first.displayed_size
        self.turn = rotation_deg(first.raw)

    def __call__(self, frame: Frame) -> Small:
        return Small(frame.raw, self)

    def width(self, lines: int) -> int:
        """The even width of a picture of `lines` lines; at least 16 pixels, at most 16 times its height."""
        width = round(self.displayed[0] * lines / self.displayed[1] / 2) * 2
        return min(max(16, width), 16 * lines)  # a banner of two lines would become millions of pixels


def shot_picture(frame: Frame) -> np.ndarray:
    """(27, 48, 3) uint8 RGB of one frame, for the shot finder alone."""
    return Shrink(frame)(frame).tiny_rgb()


class Small:
    """Small pictures of one frame. Use it before the decoder's frame is gone; what it returns may be kept."""

    def __init__(self, raw: VideoFrame, shrink: Shrink) -> None:
        self._shrink = shrink
        self._colour = Colour.of(raw)
        shift = _extra_bits(raw.format.name)
        if shift is None:
            raw, self._colour = _as_yuv444(raw), replace(self._colour, full_range=True)
        self._shift = shift or 0
        # Each plane with its halvings, made as they are needed.
        self._pyramids = [[_view(raw, i, wide=self._shift > 0)] for i in range(3)]

    def tiny_rgb(self) -> np.ndarray:
        """(27, 48, 3) uint8 RGB as displayed, squeezed to 16:9."""
        size = self._coded(TINY_SIZE)
        planes = (self._eight(_resized(self._at_least(i, size), size)) for i in range(3))
        return np.ascontiguousarray(_upright(self._colour.rgb(*planes), self._shrink.turn))

    def luma(self) -> np.ndarray:
        """(144, W) uint8 as displayed, 0 (black) to 255."""
        size = self._coded((self._shrink.width(LUMA_LINES), LUMA_LINES))
        y = self._eight(_resized(self._at_least(0, size), size))
        return np.ascontiguousarray(_upright(self._colour.luma(y), self._shrink.turn))

    def planes(self) -> Planes:
        """A copy of the planes, halved while the short side keeps at least 270 pixels."""
        levels = max(0, int(np.log2(max(1, min(self._pyramids[0][0].shape) / LEAST_SIDE))))
        y, u, v = (np.array(self._eight(self._level(i, levels))) for i in range(3))
        return Planes(y, u, v, self._colour, self._shrink.turn)

    def _coded(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) before the picture is turned upright."""
        return size[::-1] if self._shrink.turn in (90, 270) else size

    def _at_least(self, plane: int, size: tuple[int, int]) -> np.ndarray:
        """The smallest halving of a plane that has at least twice this width and height, or the plane itself."""
        height, width = self._pyramids[plane][0].shape
        spare = min(width / (2 * size[0]), height / (2 * size[1]))
        return self._level(plane, max(0, int(np.log2(max(1, spare)))))

    def _level(self, plane: int, level: int) -> np.ndarray:
        pyramid = self._pyramids[plane]
        while len(pyramid) <= level:
            pyramid.append(_halved(pyramid[-1]))
        return pyramid[level]

    def _eight(self, plane: np.ndarray) -> np.ndarray:
        return cv2.convertScaleAbs(plane, alpha=0.5**self._shift) if self._shift else plane


@cache
def _extra_bits(format_name: str) -> int | None:
    """Bits per sample beyond 8 of a format with one plane each for Y, U and V; None for any other format."""
    form = VideoFormat(format_name, 16, 16)
    parts = [(c.plane, c.bits) for c in form.components]
    bits = parts[0][1]
    plain = form.is_planar and not form.is_rgb and not form.is_big_endian
    return bits - 8 if plain and bits >= 8 and parts == [(i, bits) for i in range(3)] else None


def _as_yuv444(raw: VideoFrame) -> VideoFrame:
    return raw.reformat(
        format="yuv444p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
    )


def _view(raw: VideoFrame, index: int, *, wide: bool) -> np.ndarray:
    plane = raw.planes[index]
    array = np.frombuffer(plane, np.uint16 if wide else np.uint8)  # type: ignore[call-overload]  # a buffer
    return array.reshape(plane.height, -1)[:, : plane.width]


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels; an odd last line or column is left out."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return cv2.resize(plane[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


def _resized(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return plane if plane.shape[::-1] == size else cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _upright(picture: np.ndarray, turn: int) -> np.ndarray:
    return np.rot90(picture, -turn // 90) if turn else picture
