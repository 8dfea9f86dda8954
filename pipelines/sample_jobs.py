"""The videos of one command, and which of them are drawn side by side.

for group in groups(jobs, model, config.sampler): ...
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from model.config import Stretch
from model.guidance import weigh_at
from model.patches import grid
from model.sample_config import SampleConfig
from model.sampler import batches, calls_of
from pipelines.sample import SampleCommand
from pipelines.sample_format import Format
from pipelines.sample_model import Loaded
from pipelines.sample_modes import Mode, strength_of
from pipelines.sample_plan import Plan
from recaption.upsample import Upsampled

#: Videos that are worked on side by side, each with its open files.
MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Job:
    """One video.

    Attributes:
        number: of the video, from 0.
        config: the command, with its one prompt and its seed.
        mode: what it asks for.
        form: size and rate.
        plan: its length and its pieces.
        where: the line of a file that asks for it, for messages; empty if there is none.
        prompt: the prompt, perhaps written out.
        text: (L, text_width) features, or null for an empty prompt.
    """

    number: int
    config: SampleCommand
    mode: Mode
    form: Format
    plan: Plan
    where: str
    prompt: Upsampled
    text: Tensor | None

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Latent (t, h, w) of its longest piece."""
        return self.form.latent_size(self.plan.longest)

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture and no video."""
        return self.plan.frames == 1

    @property
    def name(self) -> str:
        return f"{self.number:03d}.{'png' if self.is_picture else 'mp4'}"


def n_steps(jobs: list[Job], model: Loaded, config: SampleConfig) -> int:
    """How often the model is called for clips of all jobs."""
    total = 0
    for job in jobs:
        strength = strength_of(job.config) if job.mode == "edit" else None
        for pictures, count in job.plan.pieces.items():
            size = job.form.latent_size(pictures)
            total += count * calls_of(size, model.dit, config, model.flow, strength)
    return total


def groups(jobs: list[Job], model: Loaded, config: SampleConfig) -> list[list[Job]]:
    """Jobs whose pieces fit one pass of the model, as nearly as can be told before, and have the same positions."""
    passes = len(weigh_at(config.guidance_interval[0], config, has_text=True, has_image=True))
    found = []
    for _, alike in groupby(jobs, lambda job: stretch_of(job, model)):
        members, needs = list(alike), []
        for job in members:
            t, h, w = grid(job.latent_size, model.dit.config.patch)
            needs.append(max(passes * t * h * w, config.token_budget // MOST_AT_ONCE))
        found += [[members[i] for i in numbers] for numbers in batches(needs, config.token_budget)]
    return found


def stretch_of(job: Job, model: Loaded) -> Stretch:
    """What brings the positions of a job's pieces into those of training."""
    method, typical = job.config.stretch, model.about["typical"]
    if method == "none":
        return Stretch()
    (t, h, w), (trained_t, trained_h, trained_w) = job.latent_size, typical["size"]
    trained_fps = typical["fps"] or model.dit.config.reference_fps
    return Stretch.over(
        (t / job.form.fps, h, w), (trained_t / trained_fps, trained_h, trained_w), method=method
    )
