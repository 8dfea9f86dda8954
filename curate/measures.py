"""Every score of one shot that needs no model, from the small pictures that were kept of it.

    scores, errors = shot_scores(Kept(grays, times_s, lumas), size=(1920, 1080))

The scores are columns of the clips table. One that cannot be had is None, with its reason in `errors`. All but
`crop` itself are measured inside the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from curate.borders import Box, borders, displayed_crop
from curate.camera import camera, camera_flow, camera_moves
from curate.motion import FlowFields, flow_fields, motion, object_motion
from curate.motion_vectors import VectorGrid, vector_fields
from curate.overlay import NotMoving, overlay_area

BLACK_LUMA = 16.0
# Mean absolute luma difference under which two pictures look the same (encoding noise stays below it).
STILL_DIFFERENCE = 0.7
LEAST_TEXTURE = 0.02  # share of the picture that a camera can be told from

SCORES = (
    *("crop", "luma", "black_ratio", "static_ratio", "sharpness"),
    *("motion", "motion_source", "camera", "object_motion", "overlay_area"),
)


@dataclass(frozen=True)
class Kept:
    """What is kept of a shot's frames.

    Attributes:
        grays: luma pictures (144, W) uint8 as displayed, some eight a second.
        times_s: their times in seconds.
        lumas: larger luma pictures (H, W) uint8 for the borders, a few a second; may be none.
        vectors: the codec's motion vectors of some frames, if they are wanted.
    """

    grays: list[np.ndarray]
    times_s: list[float]
    lumas: list[np.ndarray] = field(default_factory=list)
    vectors: list[VectorGrid] = field(default_factory=list)


def shot_scores(kept: Kept, size: tuple[int, int]) -> tuple[dict, dict[str, str]]:
    """Scores of a shot displayed in `size` (width, height) pixels, and the reasons for those that are None."""
    scores: dict = dict.fromkeys(SCORES)
    if not kept.grays:
        return scores, dict.fromkeys(SCORES, "shot too short: no picture was sampled in it")
    lumas = kept.lumas or kept.grays
    box = borders(lumas)
    scores["crop"] = displayed_crop(box, lumas[0].shape, size)
    x, y, w, h = within(box, lumas[0].shape, kept.grays[0].shape)
    grays = [np.ascontiguousarray(gray[y : y + h, x : x + w]) for gray in kept.grays]
    scores["luma"] = float(np.mean([gray.mean() for gray in grays]))
    scores["black_ratio"] = float(np.mean([gray.mean() < BLACK_LUMA for gray in grays]))
    scores["sharpness"] = float(np.median([sharpness(gray) for gray in grays]))
    if len(grays) < 2:
        missing = [name for name in SCORES if scores[name] is None]
        return scores, dict.fromkeys(missing, "shot too short: motion needs two sampled pictures")
    scores["static_ratio"] = static_ratio(grays)
    fields = vector_fields(kept.vectors, (x, y, w, h), kept.grays[0].shape) if kept.vectors else None
    scores["motion_source"] = "flow" if fields is None else "codec"
    return scores, _moving_scores(scores, grays, kept.times_s, fields or flow_fields(grays, kept.times_s))


def _moving_scores(
    scores: dict, grays: list[np.ndarray], times_s: list[float], fields: FlowFields
) -> dict[str, str]:
    """Fill in what is told from the flow; returns the reasons for what is missing."""
    moves = camera_moves(fields)
    carried = camera_flow(fields, moves)
    scores["motion"] = motion(fields, carried)
    textured = float((fields.trust > 0.5).mean())
    if textured < LEAST_TEXTURE:
        reason = f"too little texture to follow: {100 * textured:.1f} % of the picture"
        return dict.fromkeys(("camera", "object_motion", "overlay_area"), reason)
    scores["camera"] = camera(moves, fields.times_s)
    scores["object_motion"] = object_motion(fields, carried)
    try:
        scores["overlay_area"] = overlay_area(grays, times_s, moves, fields.times_s)
    except NotMoving as reason:
        return {"overlay_area": str(reason)}
    return {}


def within(box: Box, shape: tuple[int, ...], other: tuple[int, ...]) -> Box:
    """A box in pixels of a picture of `shape` (H, W) as one in a picture of another size, rounded inwards."""
    x, y, w, h = box
    across, down = other[1] / shape[1], other[0] / shape[0]
    x0, y0 = int(np.ceil(x * across - 1e-6)), int(np.ceil(y * down - 1e-6))
    x1, y1 = int((x + w) * across + 1e-6), int((y + h) * down + 1e-6)
    return x0, y0, max(1, x1 - x0), max(1, y1 - y0)


def static_ratio(grays: list[np.ndarray]) -> float:
    """Share of neighbouring pictures (at least two are given) that look the same, 0 to 1."""
    still = [cv2.norm(a, b, cv2.NORM_L1) < STILL_DIFFERENCE * a.size for a, b in pairwise(grays)]
    return float(np.mean(still))


def sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., 2000) of a luma picture."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))
    return float(deviation[0, 0] ** 2)
