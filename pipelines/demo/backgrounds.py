"""The six backgrounds of the procedural world, painted once per shot.

    picture = paint("green hill", width=256, height=144, seed=3, light="bright")      # (H, W, 3) uint8

Their colours are muted and never those of the objects; detail is coarse enough to tell them apart at 32x32.
Every random number is drawn independently of the picture's size, so a seed looks the same at any size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Colour = tuple[int, int, int]

#: Light falling on the scene: a factor for red, green and blue, and an offset.
LIGHT = {
    "bright": (1.06, 1.06, 1.06, 6.0),
    "soft": (0.9, 0.9, 0.92, 4.0),
    "warm": (1.04, 0.92, 0.78, 0.0),
}
PAINTED_LINES = 192
_SHIFT = 4  # sub-pixel bits of cv2's drawing functions


class Canvas:
    """A picture to draw on in fractions of its height (x runs from 0 to `ratio`), anti-aliased."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.pixels = np.zeros((height, width, 3), np.uint8)
        self.height, self.ratio, self.rng = height, width / height, rng

    def gradient(self, top: Colour, bottom: Colour, y0: float = 0.0, y1: float = 1.0) -> None:
        """Fill the rows y0 to y1 with a vertical gradient."""
        a, b = round(y0 * self.height), round(y1 * self.height)
        share = np.linspace(0, 1, max(b - a, 1))[:, None]
        rows = np.array(top) * (1 - share) + np.array(bottom) * share
        self.pixels[a:b] = rows.astype(np.uint8)[: b - a, None]

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Fill a polygon, (N, 2) in fractions of the height."""
        fixed = np.round((points * self.height - 0.5) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], colour, cv2.LINE_AA, _SHIFT)

    def ground(self, height_at: np.ndarray, colour: Colour) -> np.ndarray:
        """Fill everything below a curve given by its heights at equal steps across; returns the curve."""
        x = np.linspace(-0.02, self.ratio + 0.02, len(height_at))
        curve = np.stack([x, height_at], 1)
        corners = np.array([[self.ratio + 0.02, 1.1], [-0.02, 1.1]])
        self.polygon(np.concatenate([curve, corners]), colour)
        return curve

    def ellipse(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Fill an ellipse with half axes w and h."""
        scale = self.height * (1 << _SHIFT)
        centre = (round(x * scale - 8), round(y * scale - 8))
        axes = (max(round(w * scale), 1), max(round(h * scale), 1))
        cv2.ellipse(self.pixels, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def box(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Fill a rectangle with its top left corner at (x, y)."""
        self.polygon(np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]), colour)

    def wave(self, level: float, depth: float, cycles: float, n: int = 24) -> np.ndarray:
        """Heights of a rolling line: two sines of random phase around `level`. (n,)"""
        x = np.linspace(0, 2 * np.pi * cycles, n)
        a, b = self.rng.uniform(0, 2 * np.pi, 2)
        mix = self.rng.uniform(0.2, 0.5)
        return level + depth * (np.sin(x + a) + mix * np.sin(2.3 * x + b))

    def clouds(self, colour: Colour, n: int = 3) -> None:
        """A few flat clouds in the upper part."""
        for place in range(n):
            u, y, w = self.rng.uniform(0, 1), self.rng.uniform(0.05, 0.26), self.rng.uniform(0.1, 0.2)
            x = self.ratio * (place + u) / n
            self.ellipse(x, y, w, w * 0.2, colour)
            self.ellipse(x + 0.3 * w, y - 0.12 * w, w * 0.5, w * 0.22, colour)


def _green_hill(c: Canvas) -> None:
    c.gradient((150, 178, 205), (214, 224, 228))
    c.clouds((232, 236, 238))
    far = c.ground(c.wave(0.52, 0.05, 0.9), (128, 150, 118))
    c.ground(c.wave(0.66, 0.07, 0.7), (98, 128, 82))
    near = c.ground(c.wave(0.84, 0.05, 0.6), (74, 104, 62))
    for curve, colour, size in ((far, (92, 116, 88), 0.028), (near, (52, 78, 46), 0.05)):
        for u in c.rng.uniform(0, 1, 7):
            x, y = curve[int(u * len(curve))]
            c.ellipse(x, y + size * 0.2, size, size, colour)


def _sandy_desert(c: Canvas) -> None:
    c.gradient((196, 186, 172), (232, 214, 184))
    c.ground(c.wave(0.5, 0.03, 1.2), (206, 176, 134))
    for level, colour, shade in (
        (0.6, (194, 160, 114), (176, 142, 98)),
        (0.78, (180, 144, 98), (160, 126, 84)),
    ):
        dune = c.wave(level, 0.06, 0.8)
        c.ground(dune, colour)
        for step in (0.05, 0.1, 0.15):
            ripple = dune + step + 0.006 * np.sin(np.arange(len(dune)) * 1.9 + step * 40)
            points = np.stack([np.linspace(0, c.ratio, len(dune)), ripple], 1)
            c.polygon(np.concatenate([points, points[::-1] + np.array([0, 0.014])]), shade)
    for u in c.rng.uniform(0.05, 0.95, 2):
        x, y, tall = u * c.ratio, c.rng.uniform(0.66, 0.74), c.rng.uniform(0.12, 0.18)
        for dx, dy, w, h in ((0, -tall, 0.03, tall), (-0.05, -0.75 * tall, 0.025, 0.4 * tall)):
            c.box(x + dx, y + dy, w, h, (104, 108, 74))
        c.box(x - 0.05, y - 0.4 * tall, 0.06, 0.022, (104, 108, 74))


def _blue_sea(c: Canvas) -> None:
    c.gradient((168, 190, 206), (206, 218, 224), 0, 0.42)
    c.clouds((226, 232, 236), 2)
    c.gradient((64, 112, 146), (36, 74, 108), 0.38, 1)
    for row in range(9):
        y = 0.41 + 0.6 * (row / 9) ** 1.25
        reach = 0.06 + 0.02 * row
        for u in c.rng.uniform(-0.05, 1, max(9 - row, 4)):
            x, thick = u * c.ratio, 0.006 + 0.0022 * row
            tone = (112, 156, 182) if row % 2 else (88, 136, 168)
            c.polygon(
                np.array([[x, y], [x + reach, y - thick], [x + 2 * reach, y], [x + reach, y + thick]]), tone
            )


def _city_street(c: Canvas) -> None:
    c.gradient((170, 172, 178), (206, 202, 198))
    x = -0.05
    while x < c.ratio:
        wide, top = c.rng.uniform(0.16, 0.28), c.rng.uniform(0.06, 0.34)
        tone = int(c.rng.integers(84, 128))
        warm = int(c.rng.integers(0, 16))
        c.box(x, top, wide, 0.8 - top, (tone + warm, tone, tone - warm // 2))
        lit = c.rng.random((9, 3)) < 0.55
        for row in range(9):
            y = top + 0.05 + 0.08 * row
            for column in range(3):
                if y < 0.7:
                    glass = (184, 176, 148) if lit[row, column] else (78, 80, 88)
                    c.box(x + wide * (0.14 + 0.28 * column), y, wide * 0.16, 0.042, glass)
        x += wide + 0.01
    c.box(-0.1, 0.74, c.ratio + 0.2, 0.06, (148, 146, 142))
    c.gradient((74, 74, 80), (56, 56, 62), 0.79, 1)
    for x in np.arange(c.rng.uniform(-0.2, 0), c.ratio, 0.26):
        c.polygon(
            np.array([[x, 0.9], [x + 0.13, 0.9], [x + 0.12, 0.925], [x - 0.01, 0.925]]), (186, 184, 176)
        )


def _snowy_field(c: Canvas) -> None:
    c.gradient((128, 140, 156), (188, 196, 206))
    c.ground(c.wave(0.5, 0.05, 1.1), (176, 188, 202))
    field = c.ground(c.wave(0.62, 0.03, 0.8), (214, 222, 230))
    c.ground(c.wave(0.84, 0.03, 0.7), (226, 232, 238))
    for u in np.sort(c.rng.uniform(0, 1, 9)):
        x, y = field[int(u * len(field))]
        tall = c.rng.uniform(0.12, 0.24)
        for share, wide in ((0.0, 0.2), (0.28, 0.27), (0.55, 0.34)):
            top = y - tall * (1 - share) + 0.03
            half = tall * wide
            c.polygon(
                np.array([[x, top], [x + half, top + 0.45 * tall], [x - half, top + 0.45 * tall]]),
                (70, 92, 92),
            )
    for u, v, size in c.rng.uniform(0, 1, (40, 3)):
        c.ellipse(u * c.ratio, v, 0.005 + 0.006 * size, 0.005 + 0.006 * size, (238, 242, 246))


def _night_sky(c: Canvas) -> None:
    c.gradient((30, 34, 72), (72, 72, 122))
    for u, v, size in c.rng.uniform(0, 1, (70, 3)):
        tone = int(140 + 100 * size)
        radius = 0.004 + 0.007 * size**3
        c.ellipse(u * c.ratio, 0.84 * v, radius, radius, (tone, tone, min(tone + 16, 255)))
    c.ground(c.wave(0.84, 0.05, 0.8), (50, 54, 84))
    c.ground(c.wave(0.92, 0.03, 0.9), (38, 42, 66))


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "green hill": _green_hill,
    "sandy desert": _sandy_desert,
    "blue sea": _blue_sea,
    "city street": _city_street,
    "snowy field": _snowy_field,
    "night sky": _night_sky,
}


def paint(background: str, *, width: int, height: int, seed: int, light: str) -> np.ndarray:
    """The background without any object, (H, W, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    scale = max(1, round(PAINTED_LINES / height))  # drawn larger and averaged: details thin out, not thicken
    canvas = Canvas(width * scale, height * scale, rng)
    PAINTERS[background](canvas)
    picture = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    *factors, offset = LIGHT[light]
    grain = cv2.resize(
        rng.normal(0, 4, (9, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    lit = picture * np.array(factors, np.float32) + (grain + offset)[..., None]
    return np.clip(lit, 0, 255).astype(np.uint8)
