"""What `reelmill sample` does: prompts, written out if asked, to latents to pixels to files.

files = generate(SampleCommand(checkpoint="demo-run/dit", prompt=["a red disc"], out="samples"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.sample_config import SampleConfig
from model.sampler import sample as draw
from model.solvers import n_calls
from pipelines.progress import Progress
from pipelines.sample import SampleCommand
from pipelines.sample_chain import Story
from pipelines.sample_files import GifFile, Mp4File, PngFile, VideoFile
from pipelines.sample_format import format_of
from pipelines.sample_jobs import Job, groups, stretch_of
from pipelines.sample_model import Loaded, load_model
from pipelines.sample_modes import Mode, check_trained, mode_of, tell
from pipelines.sample_pictures import video_pictures
from pipelines.sample_pieces import Piece, to_pictures, to_request
from pipelines.sample_prompts import asked, one_by_one
from pipelines.sample_sheet import Thumbnails, write_strip
from pipelines.upsample import upsample


def generate(config: SampleCommand) -> list[Path]:
    """Draw, decode and write one video per prompt and variant, strip.png and prompts.json; returns the files."""
    wanted = one_by_one(config)
    modes = [mode_of(one) for one in wanted]
    model = load_model(
        config.checkpoint,
        weights=config.weights,
        vae=config.vae,
        text_encoder=config.text_encoder,
        device=config.device,
    )
    jobs = _jobs(config, wanted, modes, model)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    steps = n_calls(config.sampler.solver, config.sampler.steps)
    of_one_piece = all(job.frames is not None and job.frames <= job.form.piece for job in jobs)
    shown: list[Thumbnails] = []
    with Progress("sample", total=steps * len(jobs) if of_one_piece else None, unit="steps") as bar:
        for group in groups(jobs, model, config.sampler):
            model.dit.stretch = stretch_of(group[0], model)
            shown += _make(group, model, config, out, bar.advance)
    write_strip(out / "strip.png", [one.chosen() for one in shown], [job.prompt.text for job in jobs])
    _write_json(
        out / "prompts.json", [_row(job, model, one.seen) for job, one in zip(jobs, shown, strict=True)]
    )
    names = [job.name for job in jobs]
    names += [f"{job.number:03d}.gif" for job in jobs if config.gif and job.frames != 1]
    return [out / name for name in (*names, "strip.png", "prompts.json")]


def _jobs(config: SampleCommand, wanted: list[SampleCommand], modes: list[Mode], model: Loaded) -> list[Job]:
    forms = [format_of(one, model) for one in wanted]
    for i, (one, mode, form) in enumerate(zip(wanted, modes, forms, strict=True)):
        check_trained(mode, one, form, model.about)
        if one.video is not None and mode == "keep" and one.frames is None:
            wanted[i] = replace(one, frames=sum(map(len, video_pictures(one.video, form.fps, form.size))))
    variants = config.upsample.variants
    written = upsample(
        config.upsample,
        [one.prompt[0] for one in wanted[::variants]],
        model.about["latents"].get("caption_words"),
        device=model.device,
    )
    features = model.text.encode([one.text for one in written])
    return [
        Job(number, one, mode, form, prompt, text if prompt.text else None)
        for number, (one, mode, form, prompt, text) in enumerate(
            zip(wanted, modes, forms, written, features, strict=True)
        )
    ]


def _make(
    jobs: list[Job], model: Loaded, config: SampleCommand, out: Path, advance: Callable[[float], None]
) -> list[Thumbnails]:
    """Write the videos of a group, and return what is to be seen of each on the contact sheet."""
    thumbnails = [Thumbnails() for _ in jobs]
    with ExitStack() as stack:
        stories = []
        for job, small in zip(jobs, thumbnails, strict=True):
            kinds: list[type[VideoFile]] = (
                [PngFile] if job.frames == 1 else [Mp4File, *([GifFile] if config.gif else [])]
            )
            files = [
                stack.enter_context(kind(out / f"{job.number:03d}{kind.suffix}", job.form.size, job.form.fps))
                for kind in kinds
            ]

            def show(pictures: np.ndarray, writers: Sequence[Any] = (*files, small)) -> None:
                for writer in writers:
                    writer.write(pictures)

            stories.append(tell(job.mode, job.config, job.form, show))
        _play(jobs, stories, model, config.sampler, advance)
    return thumbnails


def _play(
    jobs: list[Job],
    stories: list[Story],
    model: Loaded,
    config: SampleConfig,
    advance: Callable[[float], None],
) -> None:
    """Tell the stories side by side: in each round the next piece of every one that is not at its end."""
    waiting: dict[int, Piece] = {}
    for number, story in enumerate(stories):
        _go_on(waiting, number, story, None)
    part = 0
    while waiting:
        round_of = list(waiting.items())
        requests = [
            # Other parts of a video have other noise, which no video with another seed below 2³² has.
            to_request(
                piece, model.vae, jobs[i].form, jobs[i].text, (jobs[i].config.seed + (part << 32)) % (1 << 63)
            )
            for i, piece in round_of
        ]
        before = 0

        def on_step(done: int, _total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        latents = draw(model.dit, requests, config, model.flow, on_step)
        waiting = {}
        for (i, piece), latent in zip(round_of, latents, strict=True):
            _go_on(waiting, i, stories[i], to_pictures(latent, piece, model.vae))
        part += 1


def _go_on(waiting: dict[int, Piece], number: int, story: Story, pictures: np.ndarray | None) -> None:
    try:
        waiting[number] = next(story) if pictures is None else story.send(pictures)
    except StopIteration:
        return


def _row(job: Job, model: Loaded, frames: int) -> dict[str, Any]:
    """What prompts.json tells of a video: the prompt as given, what the model was given, why so, and all the rest."""
    one, config = job.prompt, job.config
    return {
        "video": job.name,
        "mode": job.mode,
        "seed": config.seed,
        "original": one.original,
        "text": one.text,
        "accepted": one.accepted,
        "reason": one.reason,
        "variant": one.variant,
        "rewrite_seed": one.seed,
        "frames": frames,
        "width": job.form.width,
        "height": job.form.height,
        "fps": job.form.fps,
        "piece": job.form.piece,
        "asked": asked(config, prompt=one.text),
        "sampler": asdict(config.sampler),
        "model": {
            "checkpoint": str(model.checkpoint),
            "weights": config.weights,
            "vae": model.vae_id,
            "text_encoder": model.text_place,
        },
    }


def _write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
