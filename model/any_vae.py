"""The VAE at a place, be it one of ours or a pretrained one of diffusers: encode and decode are the same.

vae = load_any_vae("pipelines/demo/weights/vae")             # the folder that `reelmill train-vae` wrote
vae = load_any_vae("models/wan")                             # of a VAE or of a pipeline of diffusers
vae = load_any_vae("hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
any_vae_id(vae)                                              # wan-4x8x8-1f0c88d2
"""

from __future__ import annotations

from pathlib import Path

from model.errors import BadInput
from model.pretrained_vae import PretrainedVAE, class_name, load_pretrained, pretrained_id
from model.vae import VideoVAE, load_vae, vae_id

AnyVAE = VideoVAE | PretrainedVAE


def load_any_vae(place: str | Path) -> AnyVAE:
    """The VAE in a folder of ours, of a VAE or pipeline of diffusers, or of hf:ORG/NAME.

    In evaluation mode on the CPU, in float32. Raises BadInput if there is none or it cannot be used.
    """
    if str(place).startswith("hf:"):
        return load_pretrained(str(place).removeprefix("hf:"))
    folder = Path(place)
    for found in (folder, folder / "vae"):
        if class_name(found) is not None:
            return load_pretrained(found)
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"{folder} is no VAE: it lacks config.json. Give the folder that `reelmill train-vae` wrote "
            "(RUN_DIR/vae), that of a VAE or of a pipeline in diffusers' format, or hf:ORG/NAME."
        )
    return load_vae(folder)


def any_vae_id(vae: AnyVAE | str | Path) -> str:
    """Name, compression and 8 hex digits of a VAE or of the one at a place: a safe folder name.

    Latents of VAEs with different ids must never be mixed.
    """
    if not isinstance(vae, VideoVAE | PretrainedVAE):
        vae = load_any_vae(vae)
    return vae_id(vae) if isinstance(vae, VideoVAE) else pretrained_id(vae)
