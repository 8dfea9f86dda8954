"""The procedural world: captioned video with exact ground truth, drawn in a millisecond a frame.

    rng = np.random.default_rng(0)
    scene = draw_scene(rng)                                             # what is to be seen
    video = render(scene, n_frames=36, fps=24, width=256, height=144)   # (T, H, W, 3) uint8 RGB
    text = describe(scene, "dense", rng)                                # 40 to 80 words
    parse(text)                                                         # {"kind": "disc", ...} read back

Everything about the world is importable from here; `pipelines.demo.films` makes films of several shots.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.demo.backgrounds import paint
from pipelines.demo.scene import (
    ATTRIBUTES,
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    KINDS,
    LIGHTS,
    SIZES,
    STILL,
    Scene,
    draw_scene,
    is_held_out,
    stand_still,
    with_path,
)
from pipelines.demo.world_captions import describe, describe_film, vocabulary
from pipelines.demo.world_oracle import parse

__all__ = [
    "ATTRIBUTES",
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "DIRECTIONS",
    "KINDS",
    "LIGHTS",
    "SIZES",
    "STILL",
    "Scene",
    "describe",
    "describe_film",
    "draw_scene",
    "is_held_out",
    "parse",
    "render",
    "stand_still",
    "vocabulary",
    "with_path",
]

RGB = {
    "red": (222, 24, 32),
    "green": (24, 190, 56),
    "blue": (28, 84, 240),
    "yellow": (252, 224, 24),
    "orange": (255, 128, 8),
    "purple": (138, 40, 204),
    "white": (252, 252, 252),
    "pink": (255, 124, 190),
}
#: Diameter as a share of the geometric mean of width and height.
DIAMETER = {"small": 0.24, "large": 0.42}
OUTLINE = (26, 26, 34)
RIM = (240, 240, 240)  # a thin light line around the dark outline: visible on light and dark grounds alike
SUPERSAMPLE = 4
PAN_MARGIN = 1.3  # how much wider than the picture a panned background is painted


def render(scene: Scene, *, n_frames: int, fps: float, width: int, height: int) -> np.ndarray:
    """Draw the scene at the times 0, 1/fps, 2/fps, ... s.

    Motion is a function of time only: the frame at a given time is the same at every fps and n_frames.
    An object that leaves the picture comes back in on the other side, always in the same direction.

    Returns:
        (n_frames, height, width, 3) uint8 RGB.
    """
    backdrop = _Backdrop(scene, width, height)
    sprite = _sprite(scene, DIAMETER[scene.size] * (width * height) ** 0.5)
    half = sprite.shape[0] / 2
    reach = half / width, half / height
    video = np.empty((n_frames, height, width, 3), np.uint8)
    for i in range(n_frames):
        time_s = i / fps
        backdrop.draw(time_s, video[i])
        x, y = (
            (place + step * time_s + margin) % (1 + 2 * margin) - margin
            for place, step, margin in zip(scene.start, scene.velocity, reach, strict=True)
        )
        _paste(video[i], sprite, x * width - half, y * height - half)
    return video


class _Backdrop:
    """The background as the camera sees it; painted once, then copied, shifted or scaled."""

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        self.scene, self.size = scene, (width, height)
        pans = scene.camera.startswith("pan")
        self.picture = paint(
            scene.background,
            width=round(width * PAN_MARGIN) if pans else width,
            height=height,
            seed=scene.seed,
            light=scene.light,
        )
        self.spare = self.picture.shape[1] - width

    def draw(self, time_s: float, out: np.ndarray) -> None:
        width, height = self.size
        way = self.scene.camera_speed * time_s
        if self.scene.camera == "static":
            out[:] = self.picture
            return
        if self.scene.camera == "zoom in":
            scale = 1 + way
            matrix = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]])
        else:
            shift = min(way * width, self.spare)
            matrix = np.array(
                [[1, 0, shift - self.spare if self.scene.camera == "pan left" else -shift], [0, 1, 0.0]]
            )
        cv2.warpAffine(self.picture, matrix, self.size, out, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def _outline(kind: str) -> list[np.ndarray]:
    """The shape as polygons in a unit circle, y down; a second polygon is a hole."""
    round_ = np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 48, endpoint=False)), np.sin(a)], 1)
    if kind == "disc":
        return [round_ * 0.96]
    if kind == "ring":
        return [round_, round_ * 0.5]
    if kind == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82]
    if kind == "triangle":
        return [np.array([[0, -1], [1.02, 0.82], [-1.02, 0.82]])]
    if kind == "star":
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.46)
        return [np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.06], 1)]
    arm = 0.33
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    return [np.array(corners + [(-x, -y) for x, y in corners])]


def _sprite(scene: Scene, diameter: float) -> np.ndarray:
    """The object on a transparent square: (S, S, 4) float32, colour times alpha and alpha, both 0 to 1."""
    side = int(np.ceil(diameter * 1.3)) + 2
    big, radius = side * SUPERSAMPLE, diameter * SUPERSAMPLE / 2
    turn = np.deg2rad(scene.tilt_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    polygons = [
        np.round((p @ matrix * radius + big / 2 - 0.5) * 16).astype(np.int32) for p in _outline(scene.kind)
    ]
    shape = np.zeros((big, big), np.uint8)
    cv2.fillPoly(shape, polygons, 255, cv2.LINE_8, 4)
    line, rim = (max(round(radius * share), SUPERSAMPLE // 2) for share in (0.1, 0.15))
    dark = _grown(shape, line)
    light = _grown(shape, line + max(rim - line, 2))
    shade = np.linspace(1.06, 0.86, big, dtype=np.float32)[:, None, None]  # lit from above
    body = np.clip(np.array(RGB[scene.colour], np.float32) * shade, 0, 255)
    picture = np.zeros((big, big, 4), np.float32)
    picture[light > 0] = (*RIM, 255)
    picture[dark > 0] = (*OUTLINE, 255)
    inside = shape > 0
    picture[inside, :3] = np.broadcast_to(body, (big, big, 3))[inside]
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) / 255


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1)))


def _paste(frame: np.ndarray, sprite: np.ndarray, x: float, y: float) -> None:
    """Blend the sprite into the frame with its top left corner at (x, y) pixels, between pixels as well."""
    height, width = frame.shape[:2]
    side = sprite.shape[0] + 1
    left, top = int(np.floor(x)), int(np.floor(y))
    matrix = np.array([[1, 0, x - left], [0, 1, y - top]])
    moved = cv2.warpAffine(sprite, matrix, (side, side))
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return
    part = moved[y0 - top : y1 - top, x0 - left : x1 - left]
    under = frame[y0:y1, x0:x1]
    under[:] = under * (1 - part[..., 3:]) + part[..., :3] * 255 + 0.5
