"""Curves and videos of a run for TensorBoard, and for Weights & Biases where that is installed and logged in.

board = Board(run, step=0, about={...})              # RUN/tensorboard/
board.scalars(row)                                   # a row of metrics.jsonl
board.videos(step, {"a red disc": frames})           # (T, H, W, 3) uint8
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Video = NDArray[np.uint8]


class Board:
    """See the module. Rows behind `step`, which a resumed run writes again, are hidden."""

    def __init__(self, run: Path, step: int, about: dict[str, Any]) -> None:
        self._writer = self._wandb = None
        if importlib.util.find_spec("tensorboard") is None:
            logger.warning("no curves for TensorBoard: it is not installed (pip install tensorboard).")
        else:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1, flush_secs=10)
        if importlib.util.find_spec("wandb") and _is_logged_in():
            import wandb

            place = re.sub(r"[^\\w.-]+", "-", str(run.resolve()))[-100:]
            self._wandb = wandb.init(
                project="reelmill", id=place, name=run.name, resume="allow", config=about, dir=str(run)
            )

    def scalars(self, row: dict[str, Any]) -> None:
        """All numbers of a row, nested ones by path."""
        told = flat(row)
        if self._writer:
            for name, value in told.items():
                self._writer.add_scalar(name, value, row["step"])
        if self._wandb:
            self._wandb.log(told, step=row["step"])

    def videos(self, step: int, videos: dict[str, Video], fps: float) -> None:
        """Videos by what was asked for, as animated pictures."""
        for number, (asked, frames) in enumerate(videos.items()):
            picture = gif(frames, fps)
            if self._writer:
                from tensorboard.compat.proto.summary_pb2 import Summary

                _, height, width, _ = frames.shape
                image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
                value = Summary.Value(tag=f"samples/{number}", image=image)
                self._writer._get_file_writer().add_summary(Summary(value=[value]), step)
                self._writer.add_text(f"samples/{number}/asked", asked, step)
            if self._wandb:
                import wandb

                shown = wandb.Video(frames.transpose(0, 3, 1, 2), fps=max(1, round(fps)), caption=asked)
                self._wandb.log({f"samples/{number}": shown}, step=step)

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        if self._wandb:
            self._wandb.finish()


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


def _is_logged_in() -> bool:
    """So that a run never waits for somebody to type a key."""
    if os.environ.get("WANDB_MODE") == "disabled":
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") == "offline":
        return True
    import wandb

    return bool(wandb.api.api_key)
