"""What `reelmill evaluate` measures: the videos that models draw of held-out scenes, and the true ones.

    measured = measure(config, checkpoints)      # the true clips of each setting, then each checkpoint

Scenes are drawn, rendered and judged in batches, so that memory does not grow with the number of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    from model.any_vae import AnyVAE
    from pipelines.evaluate import EvaluateConfig

#: First of the numbers that every random draw starts from: no training clip comes from it.
EVALUATION = 20261125
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
    """

    checkpoint: Checkpoint | None
    setting: Setting
    prompts: list[Prompt]
    seen: list[Seen]
    distance: float | None
    shown: list[np.ndarray]


def measure(config: EvaluateConfig, checkpoints: Sequence[Checkpoint]) -> list[Measured]:
    """The true clips through the VAE, once for each setting, then the checkpoints in their order."""
    perfect: list[Measured] = []
    models: list[Measured] = []
    true: dict[Setting, np.ndarray] = {}  # features of the true clips
    for checkpoint in checkpoints:
        loaded, setting = load(config, checkpoint.folder), checkpoint.setting
        judge, prompts = Judge(loaded.device), held_out_prompts(config, setting)
        if setting not in true:
            with Progress("true clips through the VAE", total=2 * len(prompts), unit="videos") as bar:
                true[setting], best = measure_true(
                    loaded.vae, setting, prompts, judge, config.batch, bar.advance
                )
            perfect.append(best)
        with Progress(checkpoint.name, total=len(prompts), unit="videos") as bar:
            drawn = partial(draw, loaded, setting, config.sampler, bar.advance)
            models.append(examined(checkpoint, setting, prompts, drawn, judge, true[setting], config.batch))
        del loaded, drawn  # before the next one is loaded
    return perfect + models


def measure_true(
    vae: AnyVAE,
    setting: Setting,
    prompts: list[Prompt],
    judge: Judge,
    size: int,
    on_videos: Callable[[float], None],
) -> tuple[np.ndarray, Measured]:
    """The features (N, D) of the true clips, and what a perfect model with this VAE would get."""

    def clips(batch: Sequence[Prompt]) -> list[np.ndarray]:
        on_videos(len(batch))
        return [true_clip(prompt, setting) for prompt in batch]

    def decoded(batch: Sequence[Prompt]) -> list[np.ndarray]:
        return [through(vae, clip) for clip in clips(batch)]

    true = np.concatenate([judge.features(clips(batch)) for batch in _batches(prompts, size)])
    return true, examined(None, setting, prompts, decoded, judge, true, size)


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

    `true` are the features (N, D) of the true clips of the same prompts.
    """
    seen: list[Seen] = []
    shown: list[np.ndarray] = []
    for batch in _batches(prompts, size):
        videos = draw(batch)
        seen += judge(videos, setting.fps)
        shown += videos[: SHOWN - len(shown)]
    features = np.stack([one.features for one in seen])
    distance = frechet_distance(features, true) if len(seen) > 1 else None
    return Measured(checkpoint, setting, prompts, seen, distance, shown)


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
