"""What the camera does, told from the flow: an affine motion of the whole picture, and what is left over.

    moves = camera_moves(fields)              # fields: curate.motion.FlowFields
    camera(moves, fields.times_s)             # "pan", "zoom_in", ...
    camera_flow(fields, moves)                # what the camera alone would do to each cell

For each pair of pictures an affine motion is fitted to the flow by iteratively reweighted least squares, with
the weights of Geman and McClure (1985) at a narrowing scale, so that what moves by itself loses its say. Of its
six numbers the camera's four are taken: shift right and down (pan, tilt), growth (zoom) and turn (roll). Growth
and turn are counted as the mean speed that they give to the picture's points, so that all four have one unit, % of the
diagonal per second. For a picture of 16:9 growing by 10 % a second is about 2.6 % of the diagonal per second, and
so is a turn of 5.7 degrees a second.

A large object over a faint ground can win that vote. So the ground is asked as well: where luma has a slope and
does not change, the camera does not move; if that is true of more of the picture than follows the fitted motion,
the camera stands still.

Each of the four is parted into a slow course (a mean over 0.75 s) and the jitter about it. Then

    static   nothing is faster than STATIC
    shake    the jitter is faster than SHAKE times the fastest slow course
    pan, tilt, zoom_in, zoom_out, roll    one slow course is at least DOMINANT times as fast as each other one
    mixed    anything else
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.motion import FlowFields

STATIC = 0.5  # % of the diagonal per second
SHAKE = 0.7
DOMINANT = 2.0
COURSE_S = 0.75
FIT_ROUNDS = 12
# The camera would have changed the luma by this much, and did not change it by a quarter of that.
CHANGE, STILL_SHARE = 1.5, 0.3
NEAR = 0.01  # parts of the diagonal: slopes of luma go on for so far at least
FINEST = 0.6  # % of the diagonal per second: how exact the flow of a well textured cell is


@dataclass(frozen=True)
class CameraMoves:
    """The camera between N pairs of pictures.

    Attributes:
        affine: (N, 3, 2) float32: speeds are [1, x, y] @ affine, with x and y as in FlowFields.places.
        speeds: (N, 4) pan, tilt, zoom and roll in % of the diagonal per second; the picture's content moves
            right, down, outward and clockwise where they are positive.
    """

    affine: np.ndarray
    speeds: np.ndarray


def camera_moves(fields: FlowFields) -> CameraMoves:
    """Fit the camera to each pair."""
    n = len(fields.speeds)
    places = fields.places.reshape(-1, 2)
    design = np.column_stack([np.ones(len(places)), places])  # (K, 3)
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, 9)
    speeds = fields.speeds.reshape(n, -1, 2).astype(np.float64)
    trust = fields.trust.reshape(n, -1) + 1e-6
    weights = trust
    scale: np.ndarray | None = None
    for _ in range(FIT_ROUNDS):
        normal = (weights @ products).reshape(n, 3, 3) + 1e-9 * np.eye(3)
        right = np.einsum("nk,kd,nkc->ndc", weights, design, speeds, optimize=True)
        affine = np.linalg.solve(normal, right)  # (N, 3, 2)
        squares = ((speeds - design @ affine) ** 2).sum(-1)  # (N, K)
        if scale is None:
            scale = np.sqrt((trust * squares).sum(1) / trust.sum(1))
        weights = trust * (scale[:, None] ** 2 / (scale[:, None] ** 2 + squares + 1e-12)) ** 2
        scale = np.maximum(0.7 * scale, FINEST)
    affine[_stands_still(fields, affine)] = 0
    reach = float(np.hypot(places[:, 0], places[:, 1]).mean())
    growth = (affine[:, 1, 0] + affine[:, 2, 1]) / 2
    turn = (affine[:, 1, 1] - affine[:, 2, 0]) / 2
    return CameraMoves(affine, np.column_stack([affine[:, 0], growth * reach, turn * reach]))


def _stands_still(fields: FlowFields, affine: np.ndarray) -> np.ndarray:
    """(N,) bool: pairs in which more of the picture stays as it is than moves as fitted."""
    carried = _carried(fields, affine)
    speed = np.hypot(carried[..., 0], carried[..., 1])
    way = np.abs(carried) * fields.steps_s[:, None, None, None] / 100
    way *= np.minimum(1, NEAR / np.maximum(1e-9, np.hypot(way[..., 0], way[..., 1])))[..., None]
    # At least: what the slopes in both directions do may cancel out.
    expected = np.abs(np.diff(fields.contrast * way, axis=-1)[..., 0])
    stays = (expected > CHANGE) & (fields.change < STILL_SHARE * expected) & (fields.seen > 0)
    left = np.hypot(*np.moveaxis(fields.speeds - carried, -1, 0))
    follows = (fields.clear > 0.5) & (left < np.maximum(FINEST, STILL_SHARE * speed))
    return stays.sum((1, 2)) > follows.sum((1, 2))


def camera(moves: CameraMoves, times_s: np.ndarray) -> str:
    """static, pan, tilt, zoom_in, zoom_out, roll, shake or mixed, as defined above."""
    course = _course(moves.speeds, times_s)
    jitter = np.median(np.abs(moves.speeds - course), axis=0)
    pace = np.median(np.abs(course), axis=0)
    if max(pace.max(), jitter.max()) < STATIC:
        return "static"
    if jitter.max() > SHAKE * pace.max():
        return "shake"
    first = int(pace.argmax())
    if pace[first] < DOMINANT * np.delete(pace, first).max():
        return "mixed"
    return ("pan", "tilt", "zoom_in" if course[:, 2].sum() > 0 else "zoom_out", "roll")[first]


def camera_flow(fields: FlowFields, moves: CameraMoves) -> np.ndarray:
    """(N, R, C, 2): the speed that the camera gives each cell, in % of the diagonal per second."""
    return _carried(fields, moves.affine)


def _carried(fields: FlowFields, affine: np.ndarray) -> np.ndarray:
    ones = np.ones((*fields.places.shape[:2], 1))
    return np.concatenate([ones, fields.places], -1) @ affine[:, None]


def _course(speeds: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Mean of each column over COURSE_S about each time; (N, 4)."""
    near = np.abs(times_s[:, None] - times_s[None, :]) <= COURSE_S / 2 + 1e-6
    return near @ speeds / near.sum(1, keepdims=True)
