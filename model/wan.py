"""Wan's video transformer (arXiv:2503.20314), as diffusers stores it, in our DiT.

    dit = load_wan("hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")        # or the folder of a transformer or of a pipeline
    dit.null_text.copy_(encoder.encode([""])[0][0])              # UMT5's features of the empty text
    v = dit(make_pack([Clip(latent, fps=16.0, text=features, t=0.7)], dit.config))

The geometry is the same, so the weights move over as they are and the outputs agree: Wan's timestep is 1000·t, and its
latent frame i stands at time i, as ours does at the rate the model was trained at: 16 pictures a second, 24 for
TI2V-5B (`config.reference_fps`). Wan fills texts up to 512 tokens with zeros and
attends to those too. So does the DiT that comes out (`config.text_tokens`): give its clips the features of the words
alone. What it takes are models conditioned by text alone: Wan 2.1 T2V (1.3B, 14B), each of the two of Wan 2.2 T2V-A14B,
and Wan 2.2 TI2V-5B, whose given first picture is at noise level 0, as ours is. Weights are read from safetensors alone,
without diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.config import PRESETS, DiTConfig
from model.dit import DiT
from model.errors import BadInput

CLASS = "WanTransformer3DModel"
TEXT_TOKENS = 512
#: Channels of the VAE of Wan 2.2 TI2V-5B, the only one so far that was trained at another rate than 16.
CHANNELS_5B, FPS_5B = 48, 24.0
WEIGHTS = "diffusion_pytorch_model.safetensors"

#: What our layers cannot be told otherwise, and its one value; these are diffusers' names and its defaults.
_FIXED: dict[str, Any] = {
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}

#: Our modules, inside a block and outside, and those of diffusers whose rows they hold one after another.
_MODULES = {
    "patch_in": ("patch_embedding",),
    "level.mlp.0": ("condition_embedder.time_embedder.linear_1",),
    "level.mlp.2": ("condition_embedder.time_embedder.linear_2",),
    "level.modulation": ("condition_embedder.time_proj",),
    "text_in.0": ("condition_embedder.text_embedder.linear_1",),
    "text_in.2": ("condition_embedder.text_embedder.linear_2",),
    "self_attention.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "self_attention.norm_q": ("attn1.norm_q",),
    "self_attention.norm_k": ("attn1.norm_k",),
    "self_attention.out": ("attn1.to_out.0",),
    "norm_cross": ("norm2",),
    "cross_attention.q": ("attn2.to_q",),
    "cross_attention.kv": ("attn2.to_k", "attn2.to_v"),
    "cross_attention.norm_q": ("attn2.norm_q",),
    "cross_attention.norm_k": ("attn2.norm_k",),
    "cross_attention.out": ("attn2.to_out.0",),
    "ffn.0": ("ffn.net.0.proj",),
    "ffn.2": ("ffn.net.2",),
    "head.out": ("proj_out",),
}


def load_wan(place: str | Path) -> DiT:
    """The transformer in a folder, or of the model that the hub calls hf:ORG/NAME: in `transformer/`, or by itself.

    In evaluation mode on the CPU, in float32. Its null text is zeros until it is given that of the encoder (see
    the module). Raises BadInput if it cannot be had or used.
    """
    try:
        folder = _folder(place)
        config = wan_config(json.loads((folder / "config.json").read_text()))
        with torch.device("meta"):
            dit = DiT(config)
        dit.load_state_dict(wan_weights(_read(folder), dit), assign=True)
    except BadInput as error:
        raise BadInput(f"{place} holds no usable Wan transformer: {error}") from error
    # The hub's errors are OSErrors.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"{place} holds no usable Wan transformer ({reason}). A folder must hold config.json and safetensors as "
            "diffusers' save_pretrained writes them; on a machine without the hub, give a folder."
        ) from error
    return dit.eval().requires_grad_(False)


def wan_config(told: Mapping[str, Any]) -> DiTConfig:
    """The shape of our DiT for diffusers' config.json. Raises BadInput for what it has no place for."""
    if told.get("_class_name") != CLASS:
        raise BadInput(f"it is of class {told.get('_class_name')}, not {CLASS}.")
    amiss = [f"{name} {told[name]}" for name, value in _FIXED.items() if told.get(name, value) != value]
    needed = (
        "in_channels", "patch_size", "num_attention_heads", "attention_head_dim", "num_layers", "ffn_dim", "text_dim",
    )  # fmt: skip
    if lacking := [name for name in needed if told.get(name) is None]:
        raise BadInput(
            f"its config.json does not tell {', '.join(lacking)}. Copy it again, as diffusers' save_pretrained "
            "writes it."
        )
    channels, patch = told["in_channels"], tuple(told["patch_size"])
    if len(patch) != 3:
        raise BadInput(f"its config.json has patch_size {patch}, not three numbers. Copy it again.")
    if told.get("out_channels") not in (None, channels):
        amiss.append(f"in_channels {channels} for out_channels {told['out_channels']}")
    if patch[0] != 1:
        amiss.append(f"patch_size {patch}")
    if amiss:
        raise BadInput(
            f"its config.json has {', '.join(amiss)}: no place is made for that. Give a Wan model that is "
            "conditioned by text alone, such as Wan2.1-T2V."
        )
    heads = told["num_attention_heads"]
    return DiTConfig(
        channels=channels,
        patch=(patch[0], patch[1], patch[2]),
        width=heads * told["attention_head_dim"],
        depth=told["num_layers"],
        heads=heads,
        ffn=told["ffn_dim"],
        text_width=told["text_dim"],
        reference_fps=FPS_5B if channels == CHANNELS_5B else PRESETS["1.3B"].reference_fps,
        places=False,
        text_tokens=TEXT_TOKENS,
    )


def wan_weights(theirs: dict[str, Tensor], dit: DiT) -> dict[str, Tensor]:
    """The state of `dit` from diffusers' state dict, which is emptied. Raises BadInput if they do not fit."""
    ours = {"null_text": torch.zeros(dit.config.text_width)}
    for name in dit.state_dict():
        if name in ours:
            continue
        sources = _sources(name)
        if lacking := [source for source in sources if source not in theirs]:
            raise BadInput(f"it lacks the weights {lacking}. Copy it again.")
        x = torch.cat([theirs.pop(source) for source in sources]).float()
        if name == "patch_in.weight":
            x = x.flatten(1)  # (D, C, pt, ph, pw) -> (D, C·pt·ph·pw)
        elif name.endswith("table"):
            x = x.squeeze(0)  # (1, 6, D) -> (6, D)
        elif name.startswith("head.out"):
            # Wan's tokens come out in the order (pt, ph, pw, C), ours are (C, pt, ph, pw).
            x = x.unflatten(0, (-1, dit.config.channels)).transpose(0, 1).flatten(0, 1)
        ours[name] = x.contiguous()
    if theirs:
        raise BadInput(f"it has weights that its config.json does not tell of: {sorted(theirs)[:3]}.")
    return ours


def _sources(name: str) -> list[str]:
    """Names in diffusers' state dict that make up our `name`."""
    block, inner = re.fullmatch(r"(blocks\.\d+\.)?(.+)", name).groups(default="")  # type: ignore[union-attr]
    if inner in ("table", "head.table"):
        return [f"{block}scale_shift_table"]
    module, _, kind = inner.rpartition(".")
    return [f"{block}{their}.{kind}" for their in _MODULES[module]]


def _folder(place: str | Path) -> Path:
    """The folder with the transformer's config.json, after a download where `place` is hf:ORG/NAME."""
    if not str(place).startswith("hf:"):
        return _inside(Path(place))
    from huggingface_hub import snapshot_download

    name = str(place).removeprefix("hf:")
    found = Path(snapshot_download(name, allow_patterns=["transformer/*.json", "transformer/*.safetensors"]))
    if not (found / "transformer").is_dir():
        found = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    return _inside(found)


def _inside(folder: Path) -> Path:
    return folder / "transformer" if (folder / "transformer" / "config.json").is_file() else folder


def _read(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, be they in one file or in several that an index names."""
    index = folder / f"{WEIGHTS}.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {WEIGHTS}
    weights: dict[str, Tensor] = {}
    for name in sorted(names):
        weights |= load_file(folder / name)
    return weights
