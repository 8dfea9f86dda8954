"""Which way the object of a video moves, by optical flow: no model, and nothing known of how the world is drawn.

    object_direction(video, fps=8)             # "left", "right", "up", "down", "still", or None

1. Dense flow (DIS) between neighbouring frames, as means over cells (curate.motion), in the mixture of colours that
   changes most.
2. The camera: the affine motion that most of the picture follows, or none where the ground stands still
   (curate.camera).
3. The object: the cells whose flow differs from what the camera does to them. Each counts by how much, and by how
   clearly its flow is to be seen.
4. Its direction: that of the flow of these cells on the screen, camera included, as captions tell it; summed up over
   the video, by the rule of `pixel_oracle.course`: a diagonal has none.

The thresholds were set on renderings and on what an early model drew, whose blurred shapes jump: of these, flow tells
too little.
"""

from __future__ import annotations

import cv2
import numpy as np

from curate.camera import camera_flow, camera_moves
from curate.motion import flow_fields
from pipelines.demo.pixel_oracle import course

LINES, RATE = (
    144,
    8.0,
)  # lines of the pictures that flow is measured on, and pictures a second: as in curation
LEAST_OWN = 3.0  # % of the diagonal per second: cells that differ less from the camera are of the ground
LEAST_WAY = 0.05  # of the picture: less in the whole video is standing still


def object_direction(video: np.ndarray, fps: float) -> str | None:
    """The direction of what moves otherwise than the camera.

    Args:
        video: (T, H, W, 3) uint8 RGB.
        fps: frames per second.

    Returns:
        One of left, right, up, down and still; None if the way is neither straight nor still, and for one frame.
    """
    every = max(1, round(fps / RATE))
    places = object_course(video[::every], fps / every)
    return course(places, fps / every, LEAST_WAY) if len(places) > 1 else None


def object_course(video: np.ndarray, fps: float) -> np.ndarray:
    """How far the object has come since the first frame, (T, 2) in fractions of width and height."""
    height, width = video.shape[1:3]
    if len(video) < 2:
        return np.zeros((len(video), 2))
    size = max(1, round(LINES * width / height)), LINES
    grays = [cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC) for gray in gray_of_what_changes(video)]
    fields = flow_fields(
        grays, [i / fps for i in range(len(grays))]
    )  # speeds in % of the diagonal per second
    own = fields.speeds - camera_flow(fields, camera_moves(fields))  # (N, R, C, 2)
    length = np.hypot(own[..., 0], own[..., 1])
    counts = fields.seen * fields.clear * np.where(length > LEAST_OWN, length, 0)  # (N, R, C)
    total = np.maximum(counts.sum((1, 2)), 1e-9)
    speed = np.einsum("nrc,nrcd->nd", counts, fields.speeds) / total[:, None]
    step = speed / (100 * fps) * np.hypot(width, height) / (width, height)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])


def gray_of_what_changes(video: np.ndarray) -> np.ndarray:
    """(T, H, W) uint8: the mixture of red, green and blue that changes most from frame to frame, over its whole range.

    In luma an orange square before a blue sea is not to be seen.
    """
    change = np.diff(video.astype(np.float32), axis=0).reshape(-1, 3)
    mixture = np.linalg.eigh(change.T @ change)[1][:, -1]
    gray = video @ mixture.astype(np.float32)
    low, high = gray.min(), gray.max()
    return np.round((gray - low) * (255 / max(1e-6, high - low))).astype(np.uint8)
