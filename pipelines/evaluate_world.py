"""What `reelmill evaluate` measures: the videos that models draw of held-out scenes, and the true ones.

    for measured in measure(config, checkpoints, has):      # the true clips of each setting, then its first model, ...
        print(measured.seen[0].caption, measured.distance)

Scenes are drawn, rendered and judged in batches, so that memory does not grow with the number of prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipelines.demo.prompts import Prompt
from pipelines.demo.scene import draw_scene
from pipelines.demo.world import render
from pipelines.demo.world_captions import describe
from pipelines.evaluate_frechet import frechet_distance
from pipelines.evaluate_judge import Judge, Seen
from pipelines.evaluate_models import Checkpoint, Setting, draw, load, through
from pipelines.progress import Progress

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateConfig
    from pipelines.sample_model import Loaded

#: First of the numbers that every random draw starts from: no training clip comes from it.
EVALUATION = 20261125
PERFECT = "true clips through the VAE"  # what a perfect model would get
SHOWN = 8  # videos that are kept to be looked at


@dataclass(frozen=True)
class Measured:
    """The videos of one model, or the true clips, and what was seen in them.

    Attributes:
        checkpoint: null for the true clips through the VAE.
        setting: size, length, frame rate and VAE.
        prompts: what was asked for.
        seen: what was seen in each video, in the order of the prompts.
        distance: Fréchet distance of the features of these videos from those of the true clips of the same prompts;
            null for a single prompt.
        shown: the first videos, (T, H, W, 3) uint8.
        seconds: what it took to draw the videos (with the VAE), and to judge them.
    """

    checkpoint: Checkpoint | None
    setting: Setting
    prompts: list[Prompt]
    seen: list[Seen]
    distance: float | None
    shown: list[np.ndarray]
    seconds: dict[str, float]


def measure(
    config: EvaluateConfig,
    checkpoints: Sequence[Checkpoint],
    has: Callable[[Checkpoint | None, Setting], bool],
) -> Iterator[Measured]:
    """The checkpoints in their order, and before the first of each setting the true clips through its VAE.

    What `has` tells to be measured already, it is given the checkpoint or null for the true clips, is left out.
    """
    true: dict[Setting, np.ndarray] = {}  # features of the true clips
    for checkpoint in checkpoints:
        if not (has(None, checkpoint.setting) and has(checkpoint, checkpoint.setting)):
            yield from _with_anchor(config, checkpoint, has, true)


def _with_anchor(
    config: EvaluateConfig,
    checkpoint: Checkpoint,
    has: Callable[[Checkpoint | None, Setting], bool],
    true: dict[Setting, np.ndarray],
) -> Iterator[Measured]:
    """What `has` lacks of a checkpoint and its true clips. The model is let go of at the end."""
    loaded, setting = load(config, checkpoint.folder), checkpoint.setting
    judge, prompts = Judge(loaded.device), held_out_prompts(config, setting)
    if setting not in true:
        with Progress("true clips", total=len(prompts), unit="videos") as bar:
            true[setting] = true_features(setting, prompts, judge, config.batch, bar.advance)
    for subject in (None, checkpoint):
        if has(subject, setting):
            continue
        name = PERFECT if subject is None else checkpoint.name
        with Progress(name, total=len(prompts), unit="videos") as bar:
            drawn = (
                partial(redraw, loaded, setting, bar.advance)
                if subject is None
                else partial(draw, loaded, setting, config.sampler, bar.advance)
            )
            measured = examined(subject, setting, prompts, drawn, judge, true[setting], config.batch)
        yield measured


def true_features(
    setting: Setting, prompts: list[Prompt], judge: Judge, size: int, on_videos: Callable[[float], None]
) -> np.ndarray:
    """Of the true clips of the prompts, (N, 2 D)."""
    found = []
    for batch in _batches(prompts, size):
        found.append(judge.features([true_clip(prompt, setting) for prompt in batch]))
        on_videos(len(batch))
    return np.concatenate(found)


def redraw(
    loaded: Loaded, setting: Setting, on_videos: Callable[[float], None], prompts: Sequence[Prompt]
) -> list[np.ndarray]:
    """What a perfect model with this VAE would draw: the true clips, encoded and decoded again."""
    found = []
    for prompt in prompts:
        found.append(through(loaded.vae, true_clip(prompt, setting)))
        on_videos(1)
    return found


def examined(
    checkpoint: Checkpoint | None,
    setting: Setting,
    prompts: list[Prompt],
    draw: Callable[[Sequence[Prompt]], list[np.ndarray]],
    judge: Judge,
    true: np.ndarray,
    size: int,
) -> Measured:
    """Judge the videos that `draw` makes of the prompts, `size` of them at a time.

    `true` are the features (N, 2 D) of the true clips of the same prompts.
    """
    seen: list[Seen] = []
    shown: list[np.ndarray] = []
    seconds = {"draw": 0.0, "judge": 0.0}
    for batch in _batches(prompts, size):
        began = time.monotonic()
        videos = draw(batch)
        drawn = time.monotonic()
        seen += judge(videos, setting.fps)
        seconds["draw"] += drawn - began
        seconds["judge"] += time.monotonic() - drawn
        shown += videos[: SHOWN - len(shown)]
    features = np.stack([one.features for one in seen])
    distance = frechet_distance(features, true) if len(seen) > 1 else None
    return Measured(checkpoint, setting, prompts, seen, distance, shown, seconds)


def held_out_prompts(config: EvaluateConfig, setting: Setting) -> list[Prompt]:
    """Prompts for scenes whose combination of kind, colour and background training never shows."""
    found = []
    for number in range(config.prompts):
        rng = np.random.default_rng((EVALUATION, config.seed, number))
        scene = draw_scene(rng, held_out=True, duration_s=setting.frames / setting.fps)
        if config.cameras == "still":
            scene = replace(scene, camera="static", light="soft")
        text = describe(scene, config.manner, rng)
        found.append(Prompt("held_out", config.manner, text, scene, seed=int(rng.integers(2**31))))
    return found


def true_clip(prompt: Prompt, setting: Setting) -> np.ndarray:
    """The scene of a prompt as it is, (T, H, W, 3) uint8."""
    size = {"n_frames": setting.frames, "width": setting.width, "height": setting.height}
    return render(prompt.scene, fps=setting.fps, **size)


def _batches(prompts: list[Prompt], size: int) -> list[list[Prompt]]:
    return [prompts[first : first + size] for first in range(0, len(prompts), size)]
