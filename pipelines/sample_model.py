"""A checkpoint with all that is needed to draw from it: transformer, VAE, text encoder.

model = load_model("demo-run/runs/dit")
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from model.any_vae import AnyVAE, any_vae_id, load_any_vae
from model.config import FlowConfig
from model.dit import DiT, load_dit
from model.errors import BadInput
from model.text import TextEncoder, load_text_encoder
from pipelines.demo.weights import embedded
from pipelines.encode_latents import frame_step
from pipelines.text_place import text_id, text_place
from train.checkpoint import checkpoints, finished
from train.store import Store


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint needs to draw videos.

    Attributes:
        checkpoint: its folder.
        dit: the transformer, on the device.
        about: the rest of the checkpoint's config.json.
        vae: the VAE of its latents, on the device.
        vae_id: that VAE's id.
        text: the encoder of its text features, on the device.
        text_place: what `load_text_encoder` was given.
        device: cpu or cuda.
    """

    checkpoint: Path
    dit: DiT
    about: dict[str, Any]
    vae: AnyVAE
    vae_id: str
    text: TextEncoder
    text_place: str
    device: str

    @property
    def flow(self) -> FlowConfig:
        """The noise levels that it was trained with."""
        return FlowConfig(**self.about["flow"])

    @property
    def frame_step(self) -> int:
        """Pictures by which clips of the VAE may grow without padding."""
        return frame_step(self.vae)


def load_model(
    checkpoint: str,
    *,
    weights: Literal["ema", "model"] = "ema",
    vae: str | None = None,
    text_encoder: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Loaded:
    """Load the newest checkpoint of a run, the one given, or the `embedded` one, and what it names. Raises BadInput.

    `vae` and `text_encoder` say where these are now; they must be those that training had.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device=cuda: torch finds no GPU here. Give --device=cpu.")
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    folder = embedded("dit") if checkpoint == "embedded" else newest(checkpoint)
    dit, about = load_dit(folder, weights)
    told = about["latents"]
    loaded_vae = load_trained_vae(vae or told.get("vae"), told["vae_id"])
    place = text_place(text_encoder or told["text_encoder"])
    encoder = load_text_encoder(place, chosen)
    if told.get("text_id") not in (None, text_id(place)):
        raise BadInput(
            f"text encoder {place} is not the one that made the text features of the training data: give "
            "--text_encoder the one that `reelmill encode` used."
        )
    return Loaded(
        folder, dit.to(chosen), about, loaded_vae.to(chosen), told["vae_id"], encoder, place, chosen
    )


def newest(place: str) -> Path:
    """`place` if it is a checkpoint, else the newest finished one of the run in it. Raises BadInput.

    One in an object store is fetched, without what sampling does not need, and kept for the next time.
    """
    folder = Path(place)
    if "://" in place:
        if found := _fetched(place.rstrip("/")):
            return found
    elif (folder / "config.json").is_file():
        return folder
    elif there := checkpoints(folder):
        return there[-1]
    raise BadInput(
        f"{folder} holds no finished checkpoint. Give the --out folder of `reelmill train`, or one of its "
        "checkpoints/."
    )


def _fetched(place: str) -> Path | None:
    """The checkpoint at a URI, or the newest of those in it, on this machine; null if there is none."""
    store = Store(place)
    if "COMPLETE" not in store.names():
        if not (names := finished(store)):
            store = Store(f"{place}/checkpoints")
            names = finished(store)
        if not names:
            return None
        store = Store(store.uri(names[-1]))
    told = store.read("COMPLETE")  # the checksums of its files
    digest = hashlib.blake2b(store.place.encode() + told, digest_size=12).hexdigest()
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelmill" / "checkpoints" / digest
    )
    for name in store.names():
        if not name.startswith("optimizer") and name != "COMPLETE" and not (cache / name).is_file():
            store.fetch(name, cache / name)
    (cache / "COMPLETE").write_bytes(told)
    return cache


def load_trained_vae(name: str | None, wanted: str) -> AnyVAE:
    """The VAE called `name`, which must be the one with the id `wanted`; raises BadInput if it is not."""
    if name is None:
        raise BadInput(f"the checkpoint does not say where the VAE {wanted} lies: give --vae FOLDER.")
    vae = load_any_vae(str(embedded("vae")) if name == "embedded" else name)
    if (found := any_vae_id(vae)) != wanted:
        raise BadInput(
            f"the VAE in {name} is {found}, but the model was trained on latents of {wanted}: give --vae "
            "the folder of that one."
        )
    return vae
