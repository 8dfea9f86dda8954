"""Fixtures that several test files share: real footage, generated footage, one Ray for the session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks so small are no work for several
os.environ.setdefault("WANDB_MODE", "disabled")  # for all trainings but that of one test
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a private cluster on this machine, for these tests only

FOOTAGE = Path(__file__).resolve().parents[2] / "shared" / "footage"


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Commands that set the threads of torch do so for their process; here the next test is in it as well."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of real clips; tests that need it skip where it is absent."""
    if not FOOTAGE.is_dir():
        pytest.skip("the folder of real footage (../shared/footage) is absent")
    return FOOTAGE


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray of two cores for the whole session."""
    from pipelines.engine import RayConfig, start_ray

    start_ray(RayConfig(num_cpus=2, object_store_gib=0.25))
    yield
    import ray

    ray.shutdown()


def write_video(
    path: Path,
    pictures: np.ndarray,
    *,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    pixel: str = "yuv420p",
) -> Path:
    """Encode pictures (T, H, W, 3) uint8 RGB; `pts` in frames of `fps`, by default 0, 1, 2, ..."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], pixel
        stream.codec_context.time_base = 1 / Fraction(fps)
        stream.options = options or ({"crf": "18", "preset": "veryfast"} if codec == "libx264" else {})
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if pts is None else pts[i]
            frame.time_base = 1 / Fraction(fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def moving_square(
    n_frames: int, *, width: int = 160, height: int = 96, step: int = 2, seed: int = 0
) -> np.ndarray:
    """(T, H, W, 3) uint8: a bright square moving `step` pixels per frame to the right over a textured ground."""
    rng = np.random.default_rng(seed)
    ground = np.repeat(np.repeat(rng.integers(40, 160, (height // 8, width // 8, 3)), 8, 0), 8, 1)
    pictures = np.repeat(ground[None], n_frames, 0).astype(np.uint8)
    for i in range(n_frames):
        x = 8 + (i * step) % (width - 40)
        pictures[i, height // 3 : height // 3 + 24, x : x + 24] = rng.integers(200, 255, 3) if i == 0 else 230
    return pictures
