"""What a shot of the procedural world is: one object of known attributes moving over one background.

    scene = draw_scene(np.random.default_rng(0))
    draw_scene(rng, held_out=True)             # only combinations that training (held_out=False) never sees

Positions are fractions of the picture, speeds fractions of the picture per second, so that a scene looks
the same at any size and frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

KINDS = ("disc", "square", "triangle", "star", "ring", "cross")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "pink")
SIZES = ("small", "large")
DIRECTIONS = ("left", "right", "up", "down")
LEAST_SPEED, MOST_TRAVEL = 0.2, 0.8
STILL = "still"  # the direction of an object that does not move
BACKGROUNDS = ("green hill", "sandy desert", "blue sea", "city street", "snowy field", "night sky")
CAMERAS = ("static", "pan left", "pan right", "zoom in")
LIGHTS = ("bright", "soft", "warm")

#: The attributes that every full caption names; `parse` returns these.
ATTRIBUTES = ("kind", "colour", "size", "direction", "background")


@dataclass(frozen=True)
class Scene:
    """One shot.

    Attributes:
        kind: one of KINDS.
        colour: one of COLOURS.
        size: one of SIZES.
        direction: one of DIRECTIONS, as seen on the screen, or STILL.
        background: one of BACKGROUNDS.
        camera: one of CAMERAS; a pan is named by where the camera turns, so the background goes the other way.
        light: one of LIGHTS.
        start: where the object's centre is at time 0, (x, y) as fractions of width and height.
        speed: how far it moves, in fractions of the width (or height) per second.
        camera_speed: how far the background moves, in widths per second; for a zoom, growth per second.
        tilt_deg: how far the object is turned, anticlockwise.
        seed: decides every detail of the background that the other fields leave open.
    """

    kind: str
    colour: str
    size: str
    direction: str
    background: str
    camera: str = "static"
    light: str = "soft"
    start: tuple[float, float] = (0.5, 0.5)
    speed: float = 0.3
    camera_speed: float = 0.06
    tilt_deg: float = 0.0
    seed: int = 0

    @property
    def velocity(self) -> tuple[float, float]:
        """Motion of the object in fractions of (width, height) per second; y points down."""
        x, y = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), STILL: (0, 0)}[
            self.direction
        ]
        return x * self.speed, y * self.speed


def is_held_out(kind: str, colour: str, background: str) -> bool:
    """Whether this combination is kept for evaluation: one in six.

    Each pair of attributes still occurs in training, with other thirds: for every kind and colour exactly
    one background is held out. What is measured on these is therefore composition, not memory.
    """
    return (KINDS.index(kind) + COLOURS.index(colour) + BACKGROUNDS.index(background)) % 6 == 0


def draw_scene(rng: np.random.Generator, held_out: bool | None = None, *, duration_s: float = 1.5) -> Scene:
    """A random moving scene.

    Args:
        rng: source of all chance.
        held_out: True draws only held-out combinations, False never, None any.
        duration_s: length of the shot; in this time the object crosses 35 to 60 % of the picture (more
            where that would be slow), its path centred, so that it stays in the picture.
    """
    while True:
        kind, colour, background = _choice(rng, KINDS), _choice(rng, COLOURS), _choice(rng, BACKGROUNDS)
        if held_out is None or is_held_out(kind, colour, background) == held_out:
            break
    direction = _choice(rng, DIRECTIONS)
    return with_path(
        Scene(
            kind=kind,
            colour=colour,
            size=_choice(rng, SIZES),
            direction=direction,
            background=background,
            camera="static" if rng.random() < 0.6 else _choice(rng, CAMERAS[1:]),
            light=_choice(rng, LIGHTS),
            tilt_deg=float(rng.uniform(-8, 8)),
            seed=int(rng.integers(2**31)),
        ),
        rng,
        duration_s=duration_s,
    )


def with_path(scene: Scene, rng: np.random.Generator, *, duration_s: float) -> Scene:
    """The scene with a fresh start and speed that keep the object in the picture for `duration_s`."""
    # In a long shot the object goes further, for at less than LEAST_SPEED it hardly seems to move.
    travel = max(rng.uniform(0.35, 0.6), min(LEAST_SPEED * duration_s, MOST_TRAVEL))
    along, across = 0.5 + rng.uniform(-0.04, 0.04), rng.uniform(0.34, 0.66)
    scene = replace(scene, speed=float(travel / duration_s), camera_speed=float(rng.uniform(0.05, 0.08)))
    x, y = scene.velocity
    if x:
        start = (along - x * duration_s / 2, across)
    elif y:
        start = (across, along - y * duration_s / 2)
    else:
        start = (across, along)
    return replace(scene, start=(float(start[0]), float(start[1])))


def stand_still(scene: Scene) -> Scene:
    """The scene with nothing moving in it, the object near the middle: for pictures and static shots."""
    x, y = scene.start
    place = (min(max(x, 0.3), 0.7), min(max(y, 0.3), 0.7))
    return replace(scene, direction=STILL, camera="static", start=place)


def _choice(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
