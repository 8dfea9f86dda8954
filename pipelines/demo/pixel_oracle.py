"""The oracle of the procedural world that looks: reads attributes from the pixels of a video, without any model.

    look(video, fps=6)         # {"kind": "disc", "colour": "red", "size": "small", "direction": "left", ...}

It judges what a diffusion model draws, and knows nothing but how `pipelines.demo.world` draws: renderings of all
backgrounds in all lights, the eight colours, the six outlines. Nothing in it was trained, and the captioner has no
part in it. It answers None rather than guess.

1. Background and light: the nearest of many renderings by the colours of its rows, whose medians an object hardly
   moves.
2. Colour: pixels nearer to an object's colour than to any colour that this background has at this height; the
   colour with the fullest spot of them.
3. Direction: the course of that spot. Kind and size: the outline that fits its mask best.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from itertools import product

import cv2
import numpy as np

from pipelines.demo.backgrounds import paint
from pipelines.demo.scene import BACKGROUNDS, COLOURS, KINDS, LIGHTS, SIZES, STILL, Scene
from pipelines.demo.world import DIAMETER, RGB, render

#: Seeds of the renderings that backgrounds are compared with.
SEEDS = range(12)
BANDS = 8  # the rows of a picture are summed up in as many bands
CELL = 8  # colours are looked up in cells of so many levels per channel

# Distances are in levels of 255. Renderings lie within NEAR; what a model draws too bright or too dark lies further
# away, but nearer to its background than to any other. Grey, noise, black and white do not.
NEAR, FAR = 14.0, 40.0
CLEARLY = 0.6  # at most this share of the distance to the next background
FARTHEST_COLOUR = 110.0  # of a pixel from an object's colour, in levels of 255
GROUND = 12.0  # a colour this near to one that the background has is background
SOFT = 8.0  # levels over which a pixel passes from background to object
LEAST_SPOT = 0.3  # share of object pixels in a window of the size of a small object
MOST_AREA = 0.3  # of the picture; a large disc has 0.14
LEAST_WAY = 0.1  # of the picture: less in the whole video is standing still
STRAIGHT = 1.5  # how much further along one axis than along the other
LEAST_FIT = 0.5  # correlation of a mask with the best outline
N_FITTED = 9  # frames whose masks are compared with outlines
FIRST_WEIGHT = 3  # of the first frame among these: a VAE that is causal in time shows it sharpest
SLACK_PX = 3  # how far the centre of a mask may be from that of the outline
TILTS_DEG, BLURS_PX = (-5, 5), (0.0, 0.8)  # what the outlines are tried with; a VAE blurs


def look(video: np.ndarray, fps: float) -> dict[str, str | None]:
    """What is to be seen in a video of the procedural world.

    Args:
        video: (T, H, W, 3) uint8 RGB, both sides at least 32 pixels.
        fps: frames per second.

    Returns:
        A value, or None where there is none to be seen, for each of background, colour, direction, size and kind;
        direction may be STILL. A video of one frame has no direction.
    """
    n_frames, height, width, _ = video.shape
    found: dict[str, str | None] = dict.fromkeys(("background", "colour", "direction", "size", "kind"))
    background, light, is_clear = nearest_background(video)
    if is_clear:
        found["background"] = background
    colour, masks, spots = fullest_spot(video, background, light)
    if colour is None:
        return found
    found["colour"] = colour
    if n_frames > 1:
        found["direction"] = course(spots / (width, height), fps)
    found["kind"], found["size"] = best_outline(masks, spots)
    return found


def nearest_background(video: np.ndarray) -> tuple[str, str, bool]:
    """The background and light whose rows have the likest colours, and whether that is beyond doubt."""
    height, width = video.shape[1:3]
    names, rows = _row_colours_of_world(height, width)
    distances = np.abs(rows - _row_colours(video)).mean(axis=(1, 2))  # (renderings,)
    best = int(distances.argmin())
    background, light = names[best]
    least = float(distances[best])
    other = min(float(d) for (name, _), d in zip(names, distances, strict=True) if name != background)
    return background, light, least <= NEAR or (least <= FAR and least <= CLEARLY * other)


def fullest_spot(video: np.ndarray, background: str, light: str) -> tuple[str | None, np.ndarray, np.ndarray]:
    """The object: its colour, its masks (T, H, W) float32 from 0 to 1, and its centres (T, 2) as x, y in pixels.

    The colour is None if no spot in the video is large and full enough to be an object.
    """
    height, width = video.shape[1:3]
    cells = _cells(video)  # (T, H, W)
    ground = _ground_distance(background, light, height, width)  # (BANDS, cells)
    band = np.arange(height) * BANDS // height
    from_ground = ground[band[:, None], cells]  # (T, H, W)
    to_colour = _colour_distance()[:, cells]  # (colours, T, H, W)
    nearest = to_colour.argmin(axis=0)
    least = to_colour.min(axis=0)
    is_object = 1 / (1 + np.exp(np.clip((least - from_ground) / SOFT, -30, 30)))
    is_object[(least > FARTHEST_COLOUR) | (from_ground < GROUND)] = 0
    side = max(3, round(0.6 * DIAMETER["small"] * (width * height) ** 0.5))
    best: tuple[float, int] = (0.0, 0)
    for number in range(len(COLOURS)):
        mask = np.where(nearest == number, is_object, 0).astype(np.float32)
        fullness = float(np.mean([cv2.blur(frame, (side, side)).max() for frame in mask]))
        best = max(best, (fullness, number))
    fullness, number = best
    masks = np.where(nearest == number, is_object, 0).astype(np.float32)
    if fullness < LEAST_SPOT or masks.mean() > MOST_AREA:
        return None, masks, np.zeros((len(video), 2))
    reach = round(0.6 * DIAMETER["large"] * (width * height) ** 0.5)
    spots = np.array([_centre(mask, side, reach) for mask in masks])
    return COLOURS[number], masks, spots


def _centre(mask: np.ndarray, side: int, reach: int) -> tuple[float, float]:
    """x, y of the centre of the fullest spot, pixels further away than `reach` left out."""
    y, x = np.unravel_index(int(cv2.blur(mask, (side, side)).argmax()), mask.shape)
    for _ in range(3):
        x0, y0 = max(0, round(x) - reach), max(0, round(y) - reach)
        part = mask[y0 : round(y) + reach + 1, x0 : round(x) + reach + 1]
        total = part.sum() + 1e-6
        x = x0 + (part.sum(axis=0) @ np.arange(part.shape[1])) / total
        y = y0 + (part.sum(axis=1) @ np.arange(part.shape[0])) / total
    return float(x), float(y)


def course(places: np.ndarray, fps: float, least_way: float = LEAST_WAY) -> str | None:
    """The direction of a course (T, 2) in fractions of width and height; None if it is neither still nor straight.

    What goes less than `least_way` of the picture is still.
    """
    time_s = np.arange(len(places)) / fps
    length_s = time_s[-1]
    x, y = (float(np.polyfit(time_s, places[:, axis], 1)[0]) * length_s for axis in (0, 1))
    if max(abs(x), abs(y)) < least_way:
        return STILL
    if max(abs(x), abs(y)) < STRAIGHT * min(abs(x), abs(y)):
        return None
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def best_outline(masks: np.ndarray, spots: np.ndarray) -> tuple[str | None, str | None]:
    """(kind, size) of the outline that correlates best with the masks, over several frames; None if none does well."""
    outlines = _outlines(*masks.shape[1:])
    chosen = np.unique(np.linspace(0, len(masks) - 1, N_FITTED).round().astype(int))
    fits = dict.fromkeys(outlines, 0.0)
    for number in chosen:
        weight = FIRST_WEIGHT if number == 0 else 1
        x, y = (round(float(value)) for value in spots[number])
        for key, outline in outlines.items():
            half = outline.shape[0] // 2 + SLACK_PX
            window = cv2.copyMakeBorder(masks[number], half, half, half, half, cv2.BORDER_CONSTANT, value=0)
            window = window[y : y + 2 * half + 1, x : x + 2 * half + 1]
            fits[key] += weight * float(cv2.matchTemplate(window, outline, cv2.TM_CCOEFF_NORMED).max())
    best = max(fits, key=lambda key: fits[key])
    weights = len(chosen) + FIRST_WEIGHT - 1
    return best[:2] if fits[best] / weights >= LEAST_FIT else (None, None)


@cache
def _outlines(height: int, width: int) -> dict[tuple[str, str, int, float], np.ndarray]:
    """(kind, size, tilt in degrees, blur in pixels) -> mask of the body: square, of odd side, with an empty margin."""
    found = {}
    for kind, size, tilt in product(KINDS, SIZES, TILTS_DEG):
        scene = Scene(kind, "red", size, STILL, BACKGROUNDS[0], tilt_deg=tilt)
        # Two renderings that differ in the body's colour alone differ in its pixels alone.
        red, blue = (
            render(one, n_frames=1, fps=1, width=width, height=height)[0].astype(np.float32)
            for one in (scene, replace(scene, colour="blue"))
        )
        mask = np.abs(red - blue).sum(axis=2)
        mask /= mask.max()
        rows, columns = np.nonzero(mask > 0.1)
        half = max(np.ptp(rows), np.ptp(columns)) // 2 + 3
        y, x = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
        sharp = np.pad(mask, half)[y : y + 2 * half + 1, x : x + 2 * half + 1]
        for blur in BLURS_PX:
            found[kind, size, tilt, blur] = cv2.GaussianBlur(sharp, (0, 0), blur) if blur else sharp
    return found


@cache
def _row_colours_of_world(height: int, width: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Names (background, light) and row colours (renderings, BANDS, 3) of renderings without an object."""
    names, rows = [], []
    for background in BACKGROUNDS:
        for light in LIGHTS:
            for seed in SEEDS:
                names.append((background, light))
                picture = paint(background, width=width, height=height, seed=seed, light=light)
                rows.append(_row_colours(picture[None]))
    return names, np.stack(rows)


def _row_colours(video: np.ndarray) -> np.ndarray:
    """Median colour of each band of rows over its columns and all frames, (BANDS, 3)."""
    bands = np.array_split(video, BANDS, axis=1)
    return np.stack([np.median(band.reshape(-1, 3), axis=0) for band in bands])


def _cells(pixels: np.ndarray) -> np.ndarray:
    """The number of the cell of each colour (..., 3) uint8 -> (...)."""
    r, g, b = (pixels[..., channel].astype(np.int32) // CELL for channel in range(3))
    side = 256 // CELL
    return (r * side + g) * side + b


@cache
def _cell_colours() -> np.ndarray:
    """The colour in the middle of each cell, (cells, 3) float32."""
    steps = np.arange(0, 256, CELL, dtype=np.float32) + (CELL - 1) / 2
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)


@cache
def _colour_distance() -> np.ndarray:
    """Distance of each cell from each object colour in the shade where it is nearest, (COLOURS, cells) float32."""
    shades = np.linspace(0.86, 1.06, 6, dtype=np.float32)[:, None]
    return np.stack(
        [_distance_to(np.clip(np.array(RGB[colour], np.float32) * shades, 0, 255)) for colour in COLOURS]
    )


@lru_cache(maxsize=64)
def _ground_distance(background: str, light: str, height: int, width: int) -> np.ndarray:
    """Distance of each cell from the colours that a background has in each band of rows, (BANDS, cells) float32."""
    pictures = np.stack(
        [paint(background, width=width, height=height, seed=seed, light=light) for seed in SEEDS]
    )
    bands = []
    for band in range(BANDS):
        # Zooms and waves move colours by a band's height.
        first, last = (round(place * height / BANDS) for place in (max(0, band - 1), min(BANDS, band + 2)))
        numbers, counts = np.unique(_cells(pictures[:, first:last]), return_counts=True)
        bands.append(_distance_to(_cell_colours()[numbers[counts > 1]]))
    return np.stack(bands)


def _distance_to(colours: np.ndarray) -> np.ndarray:
    """Distance of each cell from the nearest of `colours` (N, 3), (cells,) float32."""
    cells = _cell_colours()
    square = (cells**2).sum(1)[:, None] - 2 * cells @ colours.T + (colours**2).sum(1)
    return np.sqrt(np.maximum(square.min(axis=1), 0)).astype(np.float32)
