"""What `reelmill sample` does: prompts, written out if asked, to latents to pixels to files.

files = generate(SampleCommand(checkpoint="demo-run/runs/dit", prompt=["a red disc"], out="samples"))
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import BadInput
from model.sampler import sample as draw
from pipelines.progress import Progress
from pipelines.sample import SampleCommand
from pipelines.sample_chain import Story
from pipelines.sample_files import GifFile, Mp4File, PngFile, VideoFile
from pipelines.sample_format import Format, format_of
from pipelines.sample_jobs import Job, groups, n_steps, stretch_of
from pipelines.sample_model import Loaded, load_model
from pipelines.sample_modes import Mode, mode_of, tell
from pipelines.sample_pieces import Piece, check_tile, to_pictures, to_request
from pipelines.sample_plan import Plan, check_trained, rehearse
from pipelines.sample_prompts import SEEDS, Wanted, asked, one_by_one, told_where
from pipelines.sample_read import Files
from pipelines.sample_sheet import Thumbnails, write_strip
from pipelines.sample_text import encode_prompts
from pipelines.upsample import upsample
from recaption.upsample import Upsampled


def generate(config: SampleCommand) -> list[Path]:
    """Draw, decode and write one video per prompt and variant, strip.png and prompts.json; returns the files."""
    wanted = one_by_one(config)
    modes = [_mode(one) for one in wanted]
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out={out} cannot be made a folder ({error}): give another one.") from error
    model = load_model(
        config.checkpoint,
        weights=config.weights,
        vae=config.vae,
        text_encoder=config.text_encoder,
        device=config.device,
    )
    check_tile(model.vae, config.tile)
    jobs = _jobs(config, wanted, modes, model)
    if config.gif and all(job.is_picture for job in jobs):
        raise BadInput("--gif: a picture becomes a PNG. Leave --gif out, or give more --frames.")
    shown: list[Thumbnails] = []
    with Progress("sample", total=n_steps(jobs, model, config.sampler), unit="steps") as bar:
        for group in groups(jobs, model, config.sampler):
            model.dit.stretch = stretch_of(group[0], model)
            shown += _make(group, model, config, out, bar.advance)
            rows = [_row(job, model, one.seen) for job, one in zip(jobs, shown, strict=False)]
            _write_json(out / "prompts.json", rows)  # should a later group fail, these are told of
    titles = [
        f"{job.number:03d} · {job.mode} · {one.seen} frame{'s' * (one.seen > 1)}"
        for job, one in zip(jobs, shown, strict=True)
    ]
    write_strip(out / "strip.png", [one.chosen() for one in shown], [job.prompt.text for job in jobs], titles)
    names = [job.name for job in jobs]
    names += [f"{job.number:03d}.gif" for job in jobs if config.gif and not job.is_picture]
    return [out / name for name in (*names, "strip.png", "prompts.json")]


def _mode(one: Wanted) -> Mode:
    with told_where(one.where):
        return mode_of(one.config)


def _jobs(config: SampleCommand, wanted: list[Wanted], modes: list[Mode], model: Loaded) -> list[Job]:
    """All videos, each of which is known to go to its end but for damage to the files given."""
    forms: list[Format] = []
    plans: list[Plan] = []
    counts: dict[tuple[str, float], int] = {}
    for one, mode in zip(wanted, modes, strict=True):
        with told_where(one.where):
            forms.append(format_of(one.config, model))
            plans.append(rehearse(mode, one.config, forms[-1], counts))
            check_trained(plans[-1], model.about)
    written = _written(config, [one.config.prompt[0] for one in wanted], model)
    features = encode_prompts(model.text, [one.text for one in written])
    return [
        Job(number, one.config, mode, form, plan, one.where, prompt, text if prompt.text else None)
        for number, (one, mode, form, plan, prompt, text) in enumerate(
            zip(wanted, modes, forms, plans, written, features, strict=True)
        )
    ]


def _written(config: SampleCommand, prompts: list[str], model: Loaded) -> list[Upsampled]:
    """The prompts of all videos, written out; there is nothing to write out of an empty one."""
    variants = config.upsample.variants
    texts = [prompt for prompt in prompts[::variants] if prompt]
    words = model.about["latents"].get("caption_words")
    found = iter(upsample(config.upsample, texts, words, device=model.device) if texts else [])
    return [
        next(found)
        if prompt
        else Upsampled(prompt, prompt, False, None, number % variants, config.upsample.seed)
        for number, prompt in enumerate(prompts)
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
                [PngFile] if job.is_picture else [Mp4File, *([GifFile] if config.gif else [])]
            )
            files = [
                stack.enter_context(kind(out / f"{job.number:03d}{kind.suffix}", job.form.size, job.form.fps))
                for kind in kinds
            ]

            def show(pictures: np.ndarray, writers: Sequence[Any] = (*files, small)) -> None:
                for writer in writers:
                    writer.write(pictures)

            stories.append(tell(job.mode, job.config, job.form, show, Files(job.form, {})))
        _play(jobs, stories, model, config, advance)
    return thumbnails


def _play(
    jobs: list[Job],
    stories: list[Story],
    model: Loaded,
    config: SampleCommand,
    advance: Callable[[float], None],
) -> None:
    """Tell the stories side by side: in each round the next piece of every one that is not at its end."""
    waiting: dict[int, Piece] = {}
    for number, story in enumerate(stories):
        _go_on(waiting, number, jobs[number], story, None)
    part = 0
    while waiting:
        round_of = list(waiting.items())
        requests = [
            # Other parts of a video have other noise, which no video with another seed has.
            to_request(
                piece,
                model.vae,
                jobs[i].form,
                jobs[i].text,
                (jobs[i].config.seed + part * SEEDS) % (1 << 63),
                config.tile,
            )
            for i, piece in round_of
        ]
        before = 0

        def on_step(done: int, _total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        latents = draw(model.dit, requests, config.sampler, model.flow, on_step)
        waiting = {}
        for (i, piece), latent in zip(round_of, latents, strict=True):
            pictures = to_pictures(latent, piece, model.vae, config.tile)
            _go_on(waiting, i, jobs[i], stories[i], pictures)
        part += 1


def _go_on(
    waiting: dict[int, Piece], number: int, job: Job, story: Story, pictures: np.ndarray | None
) -> None:
    with told_where(job.where):
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
