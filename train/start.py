"""The transformer that a run begins with: random weights, or given ones (`TrainConfig.init`).

    dit = first_model(config, data)                      # on the CPU, to be trained
    dit = first_model(config, data, about)               # of a run that goes on: the shape alone, weights come later

Weights may be those of a run or a checkpoint of `reelmill train`, of which the averaged ones are taken, or diffusers'
WanTransformer3DModel (model/wan.py). They bring their geometry, and must fit the latents and the text features of the
dataset: a transformer that meets latents of another VAE has learned nothing of use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from model.config import DiTConfig, SizeConfig
from model.dit import DiT, load_dit, told_shape
from model.errors import BadInput
from model.wan import load_wan
from train.checkpoint import finished
from train.config import TrainConfig
from train.data import LatentDataset
from train.store import Store


def first_model(config: TrainConfig, data: LatentDataset, resumed: dict[str, Any] | None = None) -> DiT:
    """The model of a run at its first step, or, of one whose config.json is `resumed`, one of the right shape.

    Raises BadInput for weights that cannot be had or do not fit `data` or `config.model`.
    """
    if config.init is None:
        channels, text_width = data.about["channels"], data.about["text_width"]
        return _random(config.model.config(channels=channels, text_width=text_width), config.seed)
    if resumed is not None:  # what the run began with may be gone by now
        return _random(told_shape(resumed), config.seed)
    dit, about = load_start(config.init)
    check_fits(config, dit.config, about, data)
    return dit.train().requires_grad_(True)


def load_start(place: str) -> tuple[DiT, dict[str, Any]]:
    """The weights at `place`, and what its checkpoint tells of itself; of Wan's nothing. Raises BadInput."""
    folder = Path(place)
    if place.startswith("hf:") or _is_diffusers(folder):
        return load_wan(place), {}
    if "config.json" in Store(place).names():
        return load_dit(place)
    for store in (Store(f"{place}/checkpoints"), Store(place)):
        if found := finished(store):
            return load_dit(store.uri(found[-1]))
    raise BadInput(
        f"--init {place} holds no weights to start from. Give the --out folder of a `reelmill train` with a finished "
        "checkpoint, one of its checkpoints/, or the folder of diffusers' WanTransformer3DModel."
    )


def _is_diffusers(folder: Path) -> bool:
    """It holds a model or a pipeline as diffusers' save_pretrained writes them."""
    if (folder / "model_index.json").is_file() or (folder / "transformer" / "config.json").is_file():
        return True
    try:
        return "_class_name" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def check_fits(config: TrainConfig, shape: DiTConfig, about: dict[str, Any], data: LatentDataset) -> None:
    """Raise BadInput, naming all that differs, if weights of `shape` cannot go on with `config` on `data`."""
    trained, here = about.get("latents", {}), data.about
    pairs = {
        "latent channels": (shape.channels, here["channels"]),
        "features per text token": (shape.text_width, here["text_width"]),
        "VAE": (trained.get("vae_id"), here["vae_id"]),
        "text encoder": (trained.get("text_id"), here.get("text_id")),
    }
    # None is what nobody knows: Wan's weights name neither VAE nor text encoder.
    amiss = [
        f"{name} {a}, the dataset {b}" for name, (a, b) in pairs.items() if None not in (a, b) and a != b
    ]
    if amiss:
        raise BadInput(
            f"the weights of --init {config.init} do not fit {config.dataset}: they have {'; '.join(amiss)}. Encode "
            "the dataset with the VAE and the text encoder of those weights (`reelmill encode --vae ... --text ...`), "
            "or leave --init out."
        )
    if config.model == SizeConfig():
        return
    wanted = config.model.config(channels=shape.channels, text_width=shape.text_width)
    names = ("width", "depth", "heads", "ffn", "patch", "windows")
    differ = [
        f"{name} {getattr(shape, name)}, not {getattr(wanted, name)}"
        for name in names
        if getattr(shape, name) != getattr(wanted, name)
    ]
    if differ:
        raise BadInput(
            f"--init {config.init} holds a model of another shape than --model tells: it has {'; '.join(differ)}. "
            "Leave --model out: the weights bring their shape."
        )


def _random(shape: DiTConfig, seed: int) -> DiT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiT(shape)
