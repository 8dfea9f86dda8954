"""The procedural world: captioned footage with exact ground truth, rendered on the spot.

    rng = np.random.default_rng(0)
    scene = draw_scene(rng)
    video = render(scene, n_frames=17, fps=8, width=96, height=64)      # (T, H, W, 3) uint8 RGB
    text = describe(scene, "dense", rng)                                # pipelines.demo.world_captions

One shape of one colour moves over one of six backgrounds. Motion is a function of time, in fractions of the
picture, so neither frame rate nor resolution changes what is seen.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

KINDS = ("disc", "square", "triangle", "star", "ring", "cross")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "pink")
DIRECTIONS = ("left", "right", "up", "down")
BACKGROUNDS = ("green hill", "sandy desert", "blue sea", "city street", "snowy field", "night sky")
SIZES = ("small", "large")

RGB = {
    "red": (220, 30, 30),
    "green": (20, 190, 40),
    "blue": (30, 70, 230),
    "yellow": (250, 225, 30),
    "orange": (250, 130, 10),
    "purple": (130, 40, 170),
    "white": (250, 250, 250),
    "pink": (255, 120, 190),
}
SPEED = 0.28  # fractions of the picture per second
_RADIUS = {"small": 0.13, "large": 0.22}  # of the shorter side


@dataclass(frozen=True)
class Scene:
    """What a shot shows.

    Attributes:
        kind, colour, size: of the shape, from KINDS, COLOURS, SIZES.
        direction: one of DIRECTIONS, or `still`.
        background: from BACKGROUNDS.
        offset: how far the path lies from the middle, in fractions of the picture, -0.15 to 0.15.
        phase: when the shape passes the middle, in fractions of the picture along the path, -0.1 to 0.1.
        seed: of the background's details.
    """

    kind: str
    colour: str
    size: str
    direction: str
    background: str
    offset: float = 0.0
    phase: float = 0.0
    seed: int = 0


def is_held_out(scene: Scene) -> bool:
    """True for the tenth of the (kind, colour, background) combinations that no shipped model was trained on."""
    text = f"{scene.kind}/{scene.colour}/{scene.background}"
    return hashlib.blake2b(text.encode(), digest_size=2).digest()[0] % 10 == 0


def draw_scene(rng: np.random.Generator, held_out: bool | None = None) -> Scene:
    """A random scene; with `held_out` only, or never, of the held-out attribute combinations."""
    while True:
        scene = Scene(
            kind=str(rng.choice(KINDS)),
            colour=str(rng.choice(COLOURS)),
            size=str(rng.choice(SIZES)),
            direction=str(rng.choice(DIRECTIONS)),
            background=str(rng.choice(BACKGROUNDS)),
            offset=float(rng.uniform(-0.15, 0.15)),
            phase=float(rng.uniform(-0.1, 0.1)),
            seed=int(rng.integers(0, 2**31)),
        )
        if held_out is None or is_held_out(scene) == held_out:
            return scene


def render(scene: Scene, *, n_frames: int, fps: float, width: int, height: int) -> np.ndarray:
    """(n_frames, height, width, 3) uint8 RGB. The shape passes the middle at half time (plus `phase`)."""
    ground = background(scene.background, width, height, scene.seed % 64)
    video = np.repeat(ground[None], n_frames, 0)
    middle_s = (n_frames - 1) / fps / 2
    for i in range(n_frames):
        x, y = position(scene, i / fps - middle_s)
        _draw(video[i], scene, x * width, y * height)
    return video


def position(scene: Scene, time_s: float) -> tuple[float, float]:
    """Centre of the shape in fractions of the picture, `time_s` seconds from the middle of the shot."""
    along = SPEED * time_s + scene.phase
    match scene.direction:
        case "left":
            return 0.5 - along, 0.5 + scene.offset
        case "right":
            return 0.5 + along, 0.5 + scene.offset
        case "up":
            return 0.5 + scene.offset, 0.5 - along
        case "down":
            return 0.5 + scene.offset, 0.5 + along
        case _:
            return 0.5 + scene.phase, 0.5 + scene.offset


def _draw(picture: np.ndarray, scene: Scene, x: float, y: float) -> None:
    """Draw the shape with a dark outline, so that every colour stands out on every background."""
    radius = _RADIUS[scene.size] * min(picture.shape[:2])
    dark = tuple(int(c * 0.25) for c in RGB[scene.colour])
    edge = 1.0 + 0.06 * radius  # pixels
    for grow, colour in ((edge, dark), (0.0, RGB[scene.colour])):
        if scene.kind == "ring":
            centre = (round(x * 16), round(y * 16))
            thick = max(1, round(0.45 * radius + 2 * grow))
            cv2.circle(picture, centre, round(0.78 * radius * 16), colour, thick, cv2.LINE_AA, 4)
        else:
            points = np.array([x, y]) + (radius + grow * 1.4) * _outline(scene.kind)
            cv2.fillPoly(picture, [np.round(points * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


@functools.cache
def _outline(kind: str) -> np.ndarray:
    """Polygon of about unit radius, (N, 2) in x, y."""
    if kind == "disc":
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    if kind == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.85
    if kind == "triangle":
        return np.array([[0, -1.05], [1.05, 0.85], [-1.05, 0.85]])
    if kind == "star":
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        length = np.where(np.arange(10) % 2 == 0, 1.15, 0.45)
        return np.stack([np.cos(angle), np.sin(angle)], 1) * length[:, None]
    a, b = 0.33, 1.0  # a cross, corner by corner
    quarter = np.array([[a, -b], [a, -a], [b, -a]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, i) for i in range(4)])


def _blend(top: tuple[int, ...], bottom: tuple[int, ...], height: int) -> np.ndarray:
    """(H, 1, 3) vertical gradient."""
    share = np.linspace(0, 1, height)[:, None, None]
    return np.array(top) * (1 - share) + np.array(bottom) * share


@functools.lru_cache(maxsize=1024)
def background(name: str, width: int, height: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, never to be written to."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, width)
    y = np.linspace(0, 1, height)[:, None]
    picture = np.empty((height, width, 3))

    def wave(level: float, swing: float) -> np.ndarray:
        return level + swing * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.3) + rng.random()))

    if name == "green hill":
        picture[:] = _blend((150, 200, 235), (205, 230, 240), height)
        for level, green in ((0.45, (110, 165, 90)), (0.62, (75, 135, 60))):
            hill = np.array(green) * (1.08 - 0.25 * y[..., None])
            picture = np.where((y > wave(level, 0.08))[..., None], hill, picture)
    elif name == "sandy desert":
        picture[:] = _blend((235, 205, 160), (245, 225, 190), height)
        for level, sand in ((0.4, (222, 184, 125)), (0.6, (200, 155, 95))):
            ripple = 1 + 0.05 * np.sin(2 * np.pi * (y * 14 + wave(0, 0.5)))
            picture = np.where(
                (y > wave(level, 0.06))[..., None], np.array(sand) * ripple[..., None], picture
            )
    elif name == "blue sea":
        picture[:] = _blend((190, 215, 235), (215, 230, 240), height)
        waves = 1 + 0.14 * np.sin(2 * np.pi * (y * 9 + 0.25 * np.sin(2 * np.pi * (3 * x + rng.random()))))
        water = _blend((50, 110, 160), (20, 60, 115), height) * waves[..., None]
        picture = np.where((y > 0.38 + 0 * x)[..., None], water, picture)
    elif name == "city street":
        picture[:] = _blend((185, 190, 200), (210, 210, 212), height)
        edges = np.unique(
            np.concatenate([[0], np.sort(rng.choice(np.arange(1, 12), 5, replace=False)) / 12, [1]])
        )
        for left, right in pairwise(edges):
            columns = (x >= left) & (x < right)
            shade = rng.uniform(85, 140)
            wall = (y > rng.uniform(0.1, 0.35)) & columns
            window = (np.sin(2 * np.pi * y * 7) > 0.2) & (np.sin(2 * np.pi * (x - left) * 14) > 0.1)
            picture[wall] = (shade, shade * 0.95, shade * 0.92)
            picture[wall & window] = shade * 0.6
        picture = np.where((y > 0.75 + 0 * x)[..., None], np.array((70, 70, 75)), picture)
        picture = np.where(
            ((abs(y - 0.88) < 0.02) & (np.sin(2 * np.pi * x * 5) > 0))[..., None], 200, picture
        )
    elif name == "snowy field":
        picture[:] = _blend((165, 180, 200), (195, 205, 220), height)
        picture = np.where((y > wave(0.5, 0.05))[..., None], np.array((228, 234, 242)), picture)
        for _ in range(14):
            tree_x, tree_y = rng.random(), rng.uniform(0.46, 0.54)
            tree = (abs(x - tree_x) < (y - tree_y + 0.12) * 0.25) & (y > tree_y - 0.12) & (y < tree_y + 0.02)
            picture[tree] = (70, 90, 95)
    else:  # night sky
        picture[:] = _blend((10, 12, 38), (38, 36, 80), height)
        stars = rng.random((40, 2))
        for star_x, star_y in stars:
            row, column = int(star_y * (height - 1)), int(star_x * (width - 1))
            picture[row, column] = (215, 215, 235)
        moon = ((x - 0.82) * width) ** 2 + ((y - 0.2) * height) ** 2 < (0.07 * min(width, height)) ** 2
        picture[moon] = (225, 225, 205)
    return np.clip(picture, 0, 255).astype(np.uint8)
