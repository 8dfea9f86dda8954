"""Rendered footage whose camera is known: a large still picture seen through a moving camera.

    ground = painted_ground(seed=0)                               # or wide(a real frame)
    pictures = film(ground, pan(x=20), fps=30, seconds=2)         # (T, H, W, 3) uint8 RGB

What is seen is a function of time alone, so that the same film can be had at any frame rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

GROUND = (1080, 1920)


@dataclass(frozen=True)
class View:
    """Where the camera is: shift in % of the picture's diagonal, zoom as a factor, roll in degrees."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    roll_deg: float = 0.0


Camera = Callable[[float], View]


def painted_ground(seed: int, shape: tuple[int, int] = GROUND) -> np.ndarray:
    """(H, W, 3) uint8: blobs of every size, as sharp as photographs are."""
    rng = np.random.default_rng(seed)
    ground = np.zeros((*shape, 3), np.float32)
    for cell, weight in ((6, 0.5), (16, 0.8), (48, 1.0), (160, 1.2)):
        coarse = rng.random((shape[0] // cell + 2, shape[1] // cell + 2, 3), np.float32)
        ground += weight * cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    low, high = ground.min(), ground.max()
    return ((ground - low) / (high - low) * 235 + 10).astype(np.uint8)


def wide(picture: np.ndarray) -> np.ndarray:
    """A real picture, mirrored at its sides so that the camera has room, (1080, 1920, 3)."""
    height, width = picture.shape[:2]
    top, left = max(0, (GROUND[0] - height) // 2), max(0, (GROUND[1] - width) // 2)
    return cv2.copyMakeBorder(picture, top, top, left, left, cv2.BORDER_REFLECT_101)


def film(
    ground: np.ndarray,
    camera: Camera,
    *,
    fps: float,
    seconds: float,
    size: tuple[int, int] = (320, 180),
    actor: Callable[[float], tuple[float, float]] | None = None,
    actor_size: float = 0.3,
) -> np.ndarray:
    """What the camera sees at 0, 1/fps, ...; (T, H, W, 3).

    `actor`: where, in fractions of the picture, the centre of a textured disc of `actor_size` picture heights
    is at a time.
    """
    width, height = size
    diagonal = float(np.hypot(width, height))
    disc = painted_ground(99, (height, height))
    pictures = []
    for i in range(round(fps * seconds)):
        view = camera(i / fps)
        centre = (
            ground.shape[1] / 2 + view.x / 100 * diagonal,
            ground.shape[0] / 2 + view.y / 100 * diagonal,
        )
        matrix = cv2.getRotationMatrix2D(centre, view.roll_deg, view.zoom)
        matrix[:, 2] += np.array([width / 2, height / 2]) - centre
        picture = cv2.warpAffine(
            ground, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        if actor is not None:
            _paste(picture, disc, *actor(i / fps), actor_size * height / 2)
        pictures.append(picture)
    return np.stack(pictures)


def _paste(picture: np.ndarray, texture: np.ndarray, x: float, y: float, radius: float) -> None:
    height, width = picture.shape[:2]
    shift = np.array([[1, 0, x * width - texture.shape[1] / 2], [0, 1, y * height - texture.shape[0] / 2]])
    moved = cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_LINEAR)
    mask = np.zeros((height, width), np.uint8)
    scale = 1 << 4
    cv2.circle(
        mask,
        (round(x * width * scale), round(y * height * scale)),
        round(radius * scale),
        255,
        -1,
        cv2.LINE_AA,
        4,
    )
    alpha = mask[:, :, None] / np.float32(255)
    picture[:] = picture * (1 - alpha) + moved * alpha + 0.5


def pan(x: float = 0.0, y: float = 0.0) -> Camera:
    """A steady pan; x and y in % of the diagonal per second."""
    return lambda t: View(x=x * t, y=y * t)


def zoom(rate: float) -> Camera:
    """Grows by the factor exp(rate) a second."""
    return lambda t: View(zoom=float(np.exp(rate * t)))


def roll(deg_s: float) -> Camera:
    """Turns about the picture's centre."""
    return lambda t: View(roll_deg=deg_s * t)


def shake(amplitude: float, seed: int, hz: tuple[float, float] = (1.5, 5.0)) -> Camera:
    """A hand that trembles: sums of sines in both directions, `amplitude` in % of the diagonal."""
    rng = np.random.default_rng(seed)
    waves = [(rng.uniform(*hz), rng.uniform(0, 2 * np.pi), rng.normal(size=2)) for _ in range(4)]

    def view(t: float) -> View:
        x, y = sum(np.sin(2 * np.pi * f * t + phase) * way for f, phase, way in waves) * amplitude / 2
        return View(x=float(x), y=float(y), roll_deg=float(x) * 0.2)

    return view
