"""Curves and videos of a run for TensorBoard, and for Weights & Biases where that is installed and logged in.

board = Board(run, step=0, about={...})              # RUN/tensorboard/
board.scalars(row)                                   # a row of metrics.jsonl
board.videos(step, {"a red disc": frames})           # (T, H, W, 3) uint8
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import netrc
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Video = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A sample: what was asked for, its frames (T, H, W, 3) and how many of them there are per second."""

    asked: str
    frames: Video
    fps: float


class Board:
    """See the module. Rows behind `step`, which a resumed run writes again, are hidden.

    A full disk, or a service that does not answer, costs the curves and not the run.
    """

    def __init__(self, run: Path, step: int, about: dict[str, Any]) -> None:
        self._run = run
        self._writer: Any = None
        self._wandb: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            logger.warning("no curves for TensorBoard: it is not installed (pip install tensorboard).")
        else:
            self.forget(step)
        if has_wandb():
            with self._tried("Weights & Biases"):
                import wandb

                self._wandb = wandb.init(
                    project="reelmill",
                    id=run_id(run),
                    name=run.name,
                    resume="allow",
                    config=about,
                    dir=str(run),
                )

    def forget(self, step: int) -> None:
        """Hide what was written behind a step: the run goes on from there."""
        with self._tried("TensorBoard"):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._run / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def scalars(self, row: dict[str, Any]) -> None:
        """All numbers of a row, nested ones by path."""
        told = flat(row)
        if self._writer:
            with self._tried("TensorBoard"):
                for name, value in told.items():
                    self._writer.add_scalar(name, value, row["step"])
        if self._wandb:
            with self._tried("Weights & Biases"):
                self._wandb.log(told, step=row["step"])

    def videos(self, step: int, videos: Sequence[Shown]) -> None:
        """Samples as animated pictures."""
        for number, shown in enumerate(videos):
            picture = gif(shown.frames, shown.fps)
            if self._writer:
                from tensorboard.compat.proto.summary_pb2 import Summary

                _, height, width, _ = shown.frames.shape
                image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
                value = Summary.Value(tag=f"samples/{number}", image=image)
                with self._tried("TensorBoard"):
                    self._writer._get_file_writer().add_summary(Summary(value=[value]), step)
                    self._writer.add_text(f"samples/{number}/asked", shown.asked, step)
            if self._wandb:
                import wandb

                with self._tried("Weights & Biases"):
                    video = wandb.Video(io.BytesIO(picture), caption=shown.asked, format="gif")
                    self._wandb.log({f"samples/{number}": video}, step=step)

    def close(self) -> None:
        with self._tried("TensorBoard"):
            if self._writer:
                self._writer.close()
        with self._tried("Weights & Biases"):
            if self._wandb:
                self._wandb.finish()

    @contextmanager
    def _tried(self, name: str) -> Iterator[None]:
        """What fails in here is said once, and `name` is asked no more."""
        try:
            yield
        except Exception as error:  # of any library, and none is worth a run
            logger.error("no more curves for %s: %s: %s", name, type(error).__name__, error)
            if name == "TensorBoard":
                self._writer = None
            else:
                self._wandb = None


def run_id(run: Path) -> str:
    """What Weights & Biases knows a run by: its name, and a hash of machine and place, so that no two are one."""
    place = f"{platform.node()}:{run.resolve()}"
    name = re.sub(r"[^\w.-]+", "-", run.resolve().name)[-80:]
    return f"{name}-{hashlib.blake2b(place.encode(), digest_size=6).hexdigest()}"


def flat(row: dict[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of nested dictionaries by path: {"a": {"b": 1}} -> {"a/b": 1.0}."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{before}{name}"] = float(value)
    return found


def gif(frames: Video, fps: float) -> bytes:
    """An animated GIF of frames (T, H, W, 3)."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:], "duration": round(1000 / (fps or 1)), "loop": 0}
    pictures[0].save(file, "GIF", **more)
    return file.getvalue()


def has_wandb() -> bool:
    """It is installed, and somebody is logged in, so that a run never waits for a key to be typed."""
    spec = importlib.util.find_spec("wandb")
    if (
        spec is None or spec.origin is None
    ):  # a folder of that name, which it leaves beside runs, is no module
        return False
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return False
    if mode == "offline" or os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:  # where `wandb login` leaves its key
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
