"""What `reelmill sample` does: prompts, written out if asked, to latents to pixels to files.

files = generate(SampleCommand(checkpoint="demo-run/dit", prompt=["a red disc"], out="samples"))
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from model.any_vae import AnyVAE, any_vae_id, load_any_vae
from model.config import FlowConfig
from model.dit import load_dit
from model.errors import BadInput
from model.sampler import Request
from model.sampler import sample as draw
from model.text import load_text_encoder
from model.vae import from_pixels, to_pixels
from pipelines.demo.weights import embedded
from pipelines.encode_plan import fingerprint
from pipelines.progress import Progress
from pipelines.sample import SampleCommand
from pipelines.sample_files import write_mp4, write_strip
from pipelines.upsample import upsample
from recaption.upsample import Upsampled
from train.checkpoint import checkpoints


def generate(config: SampleCommand) -> list[Path]:
    """Draw, decode and write one video per prompt and variant, strip.png and prompts.json; returns the files."""
    if not config.prompt:
        raise BadInput('there is no prompt: give --prompt "what to show".')
    dit, about = load_dit(newest(Path(config.checkpoint)), config.weights)
    told = about["latents"]
    vae = _load_vae(config.vae or told.get("vae"), told["vae_id"])
    place = _place(config.text_encoder or told["text_encoder"], "coca")
    encoder = load_text_encoder(place)
    if told.get("text_id") not in (None, fingerprint(place)):
        raise BadInput(
            f"text encoder {place} is not the one that made the text features of the training data: give "
            "--text_encoder the one that `reelmill encode` used."
        )
    size, frames = latent_size(config, vae, dit.config.patch, about["typical"]["size"])
    fps = config.fps or about["typical"]["fps"] or dit.config.reference_fps
    known, is_known = first_frame(config.image, vae, size) if config.image else (None, None)
    cuda = config.device != "cpu" and torch.cuda.is_available()
    asked = upsample(
        config.upsample, config.prompt, told.get("caption_words"), device="cuda" if cuda else "cpu"
    )
    texts = [one.text for one in asked]
    requests = [
        Request(size, fps, text, config.seed + number, known, is_known)
        for number, text in enumerate(encoder.encode(texts))
    ]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    with Progress("sample", total=len(requests) * config.sampler.steps, unit="steps") as bar:
        latents = draw(
            dit.to("cuda" if cuda else "cpu"),
            requests,
            config.sampler,
            FlowConfig(**about["flow"]),
            on_step=lambda done, _: bar.advance(done - bar.done),
        )
    videos = [_decode(vae, latent, frames) for latent in latents]
    names = [f"{number:03d}.mp4" for number in range(len(videos))]
    for name, video in zip(names, videos, strict=True):
        write_mp4(out / name, video, fps)
    write_strip(out / "strip.png", videos, texts)
    write_prompts(out / "prompts.json", names, asked, config.seed)
    return [out / name for name in (*names, "strip.png", "prompts.json")]


def write_prompts(path: Path, names: list[str], asked: list[Upsampled], seed: int) -> None:
    """JSON: for each video its file and seed, the prompt as given, what the model was given, and why so."""
    rows = [
        {
            "video": name,
            "seed": seed + number,
            "original": one.original,
            "text": one.text,
            "accepted": one.accepted,
            "reason": one.reason,
            "variant": one.variant,
            "rewrite_seed": one.seed,
        }
        for number, (name, one) in enumerate(zip(names, asked, strict=True))
    ]
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def newest(folder: Path) -> Path:
    """`folder` if it is a checkpoint, else the newest finished checkpoint of the run in it. Raises BadInput."""
    if (folder / "config.json").is_file():
        return folder
    if found := checkpoints(folder):
        return found[-1]
    raise BadInput(
        f"{folder} holds no finished checkpoint. Give the --out folder of `reelmill train`, or one of its "
        "checkpoints/."
    )


def latent_size(
    config: SampleCommand, vae: AnyVAE, patch: tuple[int, int, int], typical: list[int]
) -> tuple[tuple[int, int, int], int]:
    """Latent (t, h, w) for the size asked for, and the frames to keep. Raises BadInput if it does not fit."""
    time, space = vae.config.temporal, vae.config.spatial
    frames = time * (typical[0] - 1) + 1 if config.frames is None else config.frames
    height = space * typical[1] if config.height is None else config.height
    width = space * typical[2] if config.width is None else config.width
    for name, pixels, step in (("height", height, space * patch[1]), ("width", width, space * patch[2])):
        if pixels < 1 or pixels % step:
            raise BadInput(
                f"--{name}={pixels} must be a multiple of {step} pixels, such as {max(1, pixels // step) * step}."
            )
    if frames < 1:
        raise BadInput(f"--frames={frames}: give at least 1.")
    return (1 + -(-(frames - 1) // time), height // space, width // space), frames


def first_frame(image: str, vae: AnyVAE, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The latent (C, t, h, w) that holds a picture as its first frame, and which frames are given (t,)."""
    t, h, w = size
    try:
        with Image.open(image) as opened:
            fitted = ImageOps.fit(opened.convert("RGB"), (w * vae.config.spatial, h * vae.config.spatial))
    except OSError as error:
        raise BadInput(f"cannot read the picture {image}: {error}.") from error
    x = from_pixels(torch.from_numpy(np.asarray(fitted).copy())[None, None])  # (1, 3, 1, H, W)
    known = torch.zeros(vae.config.channels, t, h, w)
    known[:, :1] = vae.encode_latents(x)[0]
    return known, torch.arange(t) == 0


def _decode(vae: AnyVAE, latent: Tensor, frames: int) -> np.ndarray:
    """Latent (C, t, h, w) -> (frames, H, W, 3) uint8 RGB as NumPy."""
    with torch.inference_mode():
        return to_pixels(vae.decode_latents(latent[None]))[0, :frames].numpy()


def _place(name: str, weights: str) -> str:
    """Where to load `name` from; `embedded` stands for weights that ship with the code."""
    return str(embedded(weights)) if name == "embedded" else name


def _load_vae(name: str | None, wanted: str) -> AnyVAE:
    if name is None:
        raise BadInput(f"the checkpoint does not say where the VAE {wanted} lies: give --vae FOLDER.")
    vae = load_any_vae(_place(name, "vae"))
    if (found := any_vae_id(vae)) != wanted:
        raise BadInput(
            f"the VAE in {name} is {found}, but the model was trained on latents of {wanted}: give --vae "
            "the folder of that one."
        )
    return vae
